"""The command line with real models: the zoo's, where they and torch are there."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from .conftest import Cli

ZOO = Path(__file__).parents[2] / "examples" / "zoo"


needs_zoo = pytest.mark.skipif(
    not (ZOO / "pool.toml").is_file() or importlib.util.find_spec("torch") is None,
    reason="needs the weights of examples/zoo, and torch",
)


@needs_zoo
def test_real_models_are_run_recorded_and_replayed(cli: Cli) -> None:
    files = ("--pool", str(ZOO / "pool.toml"), "--task", str(ZOO / "relay.toml"))
    code, out, err = cli("run", "star:minus_lo,times_hi,gap", *files, "--limit", "4", "--json")
    assert code == 0, err
    assert json.loads(out)["summary"]["calls"] == 12
    [batch, *_] = json.loads(cli("show", "1", "--batches", "--json").out)["batches"]
    assert batch["experts"] == ["minus_lo", "times_hi"]
    assert json.loads(cli("replay", "1", "--json").out)["prompts"] == 12


@needs_zoo
def test_prompts_are_cut_to_what_a_real_model_is_given(cli: Cli, world: Path) -> None:
    experts = ("minus_lo", "times_hi", "plus_lo", "gap")
    lines = ["[defaults]", 'engine = "transformers"', f'model = "{ZOO / "base"}"']
    lines += ['prompt = "compact"', "sampling = { max_tokens = 24 }"]
    lines += ["context = 70", 'overflow = "shorten"']
    for name in experts:
        lines += ["[[experts]]", f'name = "{name}"', f'adapter = "{ZOO / "adapters" / name}"']
    (world / "short.toml").write_text("\n".join(lines))
    files = ("--pool", "short.toml", "--task", str(ZOO / "relay.toml"))
    code, out, err = cli("run", f"complete:{','.join(experts)}", *files, "--limit", "6", "--json")
    assert code == 0, err
    summary = json.loads(out)["summary"]
    assert summary["failures"] == 0
    assert summary["determinism"] == "seeded"
    cut = 0
    for number in range(6):
        trace = json.loads(cli("show", "1", "--trace", str(number), "--json").out)
        for call in trace["calls"]:
            assert call["prompt_tokens"] <= 70 - 24
            assert trace["question"] in call["prompt"][-1]["content"]
            cut += bool(call["shortened"])
    assert cut == summary["shortened"] > 0
    again = json.loads(
        cli("run", f"complete:{','.join(experts)}", *files, "--limit", "6", "--json").out
    )
    assert again["summary"]["asked"] == 0, "what is shortened is shortened the same way"
    assert again["summary"]["determinism"] == "bitwise", "all of it was known"
    assert json.loads(cli("replay", "1", "--json").out)["shortened"] == cut
