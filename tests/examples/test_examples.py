"""What the README and the examples show works as shown."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import swarm
from swarm.agents.served import Server

ROOT = Path(__file__).parents[2]
NEEDS_TORCH = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="real models need torch: the extra `local`"
)


def run(*command, cwd=ROOT):
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "example", ["scripted.py", "recorded.py", pytest.param("hand_made.py", marks=NEEDS_TORCH)]
)
def test_examples_run(example):
    assert "score" in run(sys.executable, f"examples/{example}")


@NEEDS_TORCH
def test_the_python_of_the_readme_runs(tmp_path):
    code = "".join(re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL))
    code = code.replace("sqlite:///swarm.db", f"sqlite:///{tmp_path / 'swarm.db'}")
    # The whole search is the demo's; here its two first steps.
    code = code.replace("particles=10, iterations=10, seed=0", "particles=2, iterations=2, seed=1")
    assert "particles=2" in code
    for folder in ("found", "recruiter"):
        code = code.replace(f'"{folder}"', repr(str(tmp_path / folder)))
    out = run(sys.executable, "-c", code)
    assert "flowchart" in out
    assert "score" in out
    assert (tmp_path / "found" / "pool.toml").is_file()


JOBS = sorted(path.name for path in (ROOT / "examples").glob("*.toml"))


SHORT = ("epochs=1", "samples=2", "max_agents=2")


@NEEDS_TORCH
@pytest.mark.parametrize(
    ("job", "sets"), [("symbolic_moe.toml", ()), ("router.toml", ()), ("masrouter.toml", SHORT)]
)
def test_policies_are_fitted(job, sets, tmp_path):
    if job != "symbolic_moe.toml":
        pytest.importorskip("sentence_transformers", reason="the extra `routers`")
    script, path = str(Path(sys.executable).with_name("swarm")), str(ROOT / "examples" / job)
    flags = [flag for each in sets for flag in ("--set", each)]
    out = run(script, "optimize", path, "--limit", "20", "-q", "--json", *flags, cwd=tmp_path)
    summary = json.loads(out)["summary"]
    assert summary["policy"]
    if not sets:
        assert summary["score"] > summary["best_single"]


@pytest.mark.parametrize("job", JOBS)
def test_job_files_can_be_run(job, tmp_path):
    script = str(Path(sys.executable).with_name("swarm"))
    out = run(script, "optimize", str(ROOT / "examples" / job), "--dry-run", cwd=tmp_path)
    assert "calls" in out
    assert not list(tmp_path.iterdir())


def test_the_pool_of_the_readme_has_only_keys_that_exist():
    pools = re.findall(r"```toml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(pools) == 2
    for pool in pools:
        content = tomllib.loads(pool)
        defaults = {"model": "models/qwen", **content.get("defaults", {})}
        for expert in content["experts"]:
            swarm.Expert.model_validate({**defaults, **expert})
        for server in content.get("servers", ()):
            Server.model_validate(server)


def test_the_commands_of_the_readme_exist():
    text = (ROOT / "README.md").read_text()
    commands = set(re.findall(r"^swarm (\w+)", text, re.MULTILINE))
    assert commands == {
        *("run", "optimize", "runs", "show", "replay", "doctor"),
        *("plot", "report", "export", "routers", "pool"),
    }
    script = str(Path(sys.executable).with_name("swarm"))
    for command in commands - {"pool"}:
        assert "--store" in run(script, command, "--help")


def test_exports_are_what_is_promised():
    assert dir(swarm) == sorted(swarm.__all__)
    assert swarm.__all__ == [
        "Agent",
        "AgentGraph",
        "Budget",
        "Example",
        "Expert",
        "HeterogeneousSwarm",
        "MasRouter",
        "Pool",
        "Price",
        "Recording",
        "Role",
        "RoleStep",
        "Runtime",
        "Sampling",
        "Store",
        "SwarmError",
        "SymbolicMoE",
        "System",
        "Task",
        "chain",
        "evaluate",
        "random_graphs",
        "single",
        "star",
    ]
    for name in swarm.__all__:
        assert getattr(swarm, name) is not None
    with pytest.raises(AttributeError, match="no attribute `chian`"):
        _ = swarm.chian


def test_the_wheel_holds_one_package_and_all_its_data(tmp_path):
    run(
        *(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"),
        *("--wheel-dir", str(tmp_path), "."),
    )
    [wheel] = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    outside = {name.split("/")[0] for name in names} - {"swarm"}
    assert all(name.endswith(".dist-info") for name in outside)
    for folder, package in (("agents", "swarm/agents"), ("graphs", "swarm/graphs"),
                            ("optimizers", "swarm/optimizers"), ("swarm", "swarm")):  # fmt: skip
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in {".py", ".toml", ".yaml"} or path.name == "py.typed":
                assert f"{package}/{path.relative_to(ROOT / folder).as_posix()}" in names
