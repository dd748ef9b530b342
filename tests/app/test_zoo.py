"""The command line with real models: the zoo's, where they and torch are there."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from .conftest import Cli

ZOO = Path(__file__).parents[2] / "examples" / "zoo"


@pytest.mark.skipif(
    not (ZOO / "pool.toml").is_file() or importlib.util.find_spec("torch") is None,
    reason="needs the weights of examples/zoo, and torch",
)
def test_real_models_are_run_recorded_and_replayed(cli: Cli) -> None:
    files = ("--pool", str(ZOO / "pool.toml"), "--task", str(ZOO / "relay.toml"))
    code, out, err = cli("run", "star:minus_lo,times_hi,gap", *files, "--limit", "4", "--json")
    assert code == 0, err
    assert json.loads(out)["summary"]["calls"] == 12
    [batch, *_] = json.loads(cli("show", "1", "--batches", "--json").out)
    assert batch["experts"] == ["minus_lo", "times_hi"]
    assert json.loads(cli("replay", "1", "--json").out)["prompts"] == 12
