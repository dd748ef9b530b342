"""`swarm pool up`, `status`, `down` and `check`, as a user types them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import NamedTuple

import pytest

from swarm.app.cli import main
from swarm.serving.processes import has_ended

from .conftest import kill, until

TASK = 'name = "words"\nscorer = "exact"\n[splits]\ntest = "test.jsonl"\n'
SCRIPT = """
def fine(messages):
    return "5"

def broken(messages):
    raise ValueError("no answer today")

count = iter(range(1000))
def fickle(messages):
    return f"answer {next(count)}"
"""


class Result(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def cli(world, capsys, monkeypatch):
    monkeypatch.chdir(world.folder)
    for name in [name for name in os.environ if name.startswith("SWARM_") and name[6:] != "STATE"]:
        monkeypatch.delenv(name)
    (world.folder / "task.toml").write_text(TASK)
    (world.folder / "test.jsonl").write_text('{"question": "ab", "answer": "ab"}\n')

    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        out, err = capsys.readouterr()
        return Result(int(ended.value.code or 0), out, err)

    return run


@pytest.mark.parametrize("command", ["up", "status", "down", "check"])
def test_help(cli, command):
    code, out, err = cli("pool", command, "--help")
    assert (code, err) == (0, "")
    assert f"Example:\n    swarm pool {command} pool.toml" in out
    for option in ("--json", "--debug"):
        assert option in out
    assert f"  {command}  " in cli("pool", "--help").out


def test_from_up_to_down(cli, world):
    held = world.folder / "held"
    world.write(servers=2, held=held)
    assert cli("pool", "status", "pool.toml") == (1, "not up: `swarm pool up pool.toml`\n", "")
    document = json.loads(cli("pool", "status", "pool.toml", "--json").out)
    assert (document["up"], document["healthy"], document["servers"]) == (False, False, [])

    code, out, err = cli("pool", "up", "pool.toml")
    assert code == 0
    assert "letters: up after " in out
    assert "s0: healthy (port " in err  # "starting" may be over before it is looked at
    assert "s1: healthy (port " in err
    for shown in ("s0", "s1", "base", "a, c, e", "b, d, f", "healthy"):
        assert shown in out

    again = cli("pool", "up", "pool.toml")
    assert again.code == 0
    assert "letters: already up" in again.out
    document = json.loads(cli("pool", "up", "pool.toml", "--json").out)
    assert document["started"] is False
    assert document["healthy"] is True

    code, out, _ = cli("pool", "status", "pool.toml", "--json")
    assert code == 0
    servers = json.loads(out)["servers"]
    assert [list(server["adapters"]) for server in servers] == [["a", "c", "e"], ["b", "d", "f"]]
    assert servers[0]["requests"] == {"done": 0, "running": 0, "waiting": 0}
    assert servers[0]["url"] == f"http://127.0.0.1:{servers[0]['port']}/v1"

    state = world.state
    held.touch()
    kill(world.pid())
    until(lambda: not world.state.healthy)
    assert cli("pool", "status", "pool.toml").code == 1
    held.unlink()
    until(lambda: world.state.healthy)
    out = cli("pool", "status", "pool.toml").out
    assert "s0: the last time: killed by SIGKILL; see " in out

    assert cli("pool", "down", "pool.toml") == (0, "stopped s0, s1\n", "")
    assert cli("pool", "down", "pool.toml") == (0, "was not up\n", "")
    document = json.loads(cli("pool", "down", "pool.toml", "--json").out)
    assert document["was_up"] is False
    assert has_ended(state.pid)


def test_up_that_fails(cli, world):
    world.write(broken="out of memory", mended=world.folder / "never")
    code, out, err = cli("pool", "up", "pool.toml", "--quiet")
    assert (code, out) == (1, "")
    assert err.startswith("error: server `s0`: exit code 1: RuntimeError: out of memory; see `")
    assert err.count("\n") == 1
    told = cli("pool", "status", "pool.toml")
    assert "the last time: server `s0`: exit code 1: RuntimeError: out of memory" in told.out


def test_bad_input_starts_nothing(cli, world):
    world.write(table="port = 0.5")
    code, out, err = cli("pool", "up", "pool.toml")
    assert (code, out) == (2, "")
    assert err.startswith("error: `pool.toml: server 1 (s0)`: key `port`: `0.5` must")
    assert not world.place.exists()
    world.write(experts=["a", "b"])
    (world.folder / "adapters/b/adapter_config.json").unlink()
    code, _, err = cli("pool", "up", "pool.toml")
    assert code == 2
    assert "holds no adapter_config.json" in err
    assert not world.place.exists()


def test_what_has_changed_since(cli, world):
    world.write(experts=["a"])
    cli("pool", "up", "pool.toml")
    world.write(experts=["a", "b"])
    code, _, err = cli("pool", "up", "pool.toml")
    assert code == 1
    assert "have changed since: `swarm pool down pool.toml`, then `swarm pool up pool.toml`" in err


def test_a_graph_runs_when_they_are_up_and_is_refused_before_anything_is_recorded(cli, world):
    world.write()
    asked = ("run", "chain:a,b", "--pool", "pool.toml", "--task", "task.toml")
    code, out, err = cli(*asked)
    assert (code, out) == (2, "")
    assert "expert `a`: its server `s0` is not up: `swarm pool up " in err
    assert not (world.folder / "swarm.db").exists()
    cli("pool", "up", "pool.toml")
    code, out, err = cli(*asked, "--json")
    assert code == 0, err
    assert json.loads(out)["summary"]["score"] == 1.0


def test_in_the_foreground_until_ctrl_c(world, tmp_path):
    world.write(child=1)
    code = "import sys; from swarm.app.cli import main; main(sys.argv[1:])"
    said = tmp_path / "said"
    with said.open("w") as err:
        up = subprocess.Popen(
            [sys.executable, "-c", code, "pool", "up", "--foreground", str(world.file)],
            stdout=subprocess.PIPE,
            stderr=err,
            text=True,
        )
    state = until(lambda: (s := world.state) and s.healthy and s)
    until(lambda: "Ctrl-C stops them" in said.read_text())
    first = world.pid()
    kill(first)
    until(lambda: said.read_text().count("s0: healthy") == 2)
    left = [state.pid, world.pid()]
    up.send_signal(signal.SIGINT)
    out, _ = up.communicate(timeout=60)
    assert up.returncode == 0
    assert "up after" in out
    assert "stopping" in said.read_text()
    assert all(map(has_ended, left))
    assert world.state is None


class TestCheck:
    def pool(self, world, *experts):
        (world.folder / "script.py").write_text(SCRIPT)
        lines = ['name = "mixed"']
        for name in experts:
            lines += ["[[experts]]", f'name = "{name}"', 'engine = "scripted"']
            lines += [f'model = "script.py:{name}"', "price = { input = 1, output = 2 }"]
        world.file.write_text("\n".join(lines) + "\n")

    def test_served_experts(self, cli, world):
        world.write(experts="ab")
        cli("pool", "up", "pool.toml")
        code, out, _ = cli("pool", "check", "pool.toml", "--question", "abc", "--json")
        assert code == 0, out
        document = json.loads(out)
        assert (document["question"], document["well"]) == ("abc", True)
        for expert, answer in zip(document["experts"], ["a", "-"], strict=True):
            assert expert["answers"] == [answer] * 2
            assert expert["context"] == 256
            assert expert["same_twice"] is True
            assert expert["determinism"] == "seeded"
            assert expert["tokens_per_second"] > 0
            assert len(expert["seconds"]) == 2

    def test_those_that_fail_and_those_that_differ(self, cli, world):
        self.pool(world, "fine", "broken", "fickle")
        code, out, err = cli("pool", "check", "pool.toml")
        assert code == 1
        rows = {line.split()[0]: line.split() for line in out.splitlines() if line.strip()}
        assert rows["fine"][-3:] == ["yes", "(bitwise)", "5"]
        assert rows["fickle"][-4] == "no"
        assert rows["broken"][-1] == "failed"
        assert rows["fine"][5:8] == ["1", "/", "2"]
        assert "broken: " in out
        assert "no answer today" in out
        assert "fine: " in err

    def test_only_one(self, cli, world):
        self.pool(world, "fine", "broken")
        code, out, _ = cli("pool", "check", "pool.toml", "--expert", "fine", "--json")
        assert code == 0
        [expert] = json.loads(out)["experts"]
        assert expert["cost"] == pytest.approx(
            (expert["prompt_tokens"] + 2 * expert["completion_tokens"]) / 1e6
        )
        code, _, err = cli("pool", "check", "pool.toml", "--expert", "fin")
        assert code == 2
        assert "did you mean `fine`?" in err

    def test_servers_that_are_not_up(self, cli, world):
        world.write(experts="ab")
        code, out, _ = cli("pool", "check", "pool.toml")
        assert code == 1
        assert "b: its server `s0` is not up: `swarm pool up " in out
