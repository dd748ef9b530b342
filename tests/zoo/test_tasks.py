import json
from pathlib import Path

import make_tasks
import pytest
import world
from make_tasks import HERE as ZOO
from make_tasks import RIGHT
from world import Knowledge, Step

from swarm.agents.expert import Pool
from swarm.tasks import Task

FILES = [f"{name}.{end}" for name in ("relay", "skills") for end in ("dev.jsonl", "test.jsonl")]


def records(file: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (ZOO / file).read_text().splitlines()]


def parse(question: str) -> list[Step]:
    steps = []
    for text in question.removesuffix(" ?").split(" ; "):
        variable, skill, *operands = text.split()
        values = tuple(int(o) if o.isdigit() else o for o in operands)
        steps.append(Step(variable, skill, values))
    return steps


def solved(team: list[Knowledge], file: str) -> float:
    """Share of questions that a chain of perfect agents answers."""
    right = 0
    for record in records(file):
        facts: dict[str, int] = {}
        for mind in team:
            text, facts, _ = world.respond(parse(record["question"]), facts, mind)
        right += text.split()[-1] == record["answer"]
    return right / len(records(file))


def test_the_seed_gives_the_same_files_byte_for_byte(tmp_path: Path) -> None:
    make_tasks.main(tmp_path, seed=0)
    for file in (*FILES, "relay.toml", "skills.toml"):
        assert (tmp_path / file).read_bytes() == (ZOO / file).read_bytes(), file


def test_another_seed_gives_other_questions(tmp_path: Path) -> None:
    make_tasks.main(tmp_path, seed=1)
    assert (tmp_path / FILES[0]).read_bytes() != (ZOO / FILES[0]).read_bytes()


def test_no_question_is_asked_twice() -> None:
    questions = [record["question"] for file in FILES for record in records(file)]
    assert len(set(questions)) == len(questions)


@pytest.mark.parametrize("file", FILES)
def test_answers_are_right_and_questions_read_as_they_were_made(file: str) -> None:
    assert len(records(file)) >= 200
    for record in records(file):
        steps = parse(record["question"])
        assert world.question(steps) == record["question"]
        assert f"{world.solve(steps):02d}" == record["answer"]


@pytest.mark.parametrize("name", ["relay", "skills"])
def test_the_tasks_load_and_score(name: str) -> None:
    task = Task.load(ZOO / f"{name}.toml")
    for split in ("dev", "test"):
        example = task.split(split)[0]
        assert task.scorer(example, f"done , a {example.answer}") == 1.0


def test_one_order_of_experts_serves_most_of_relay() -> None:
    right = [world.EXPERTS[name] for name in RIGHT]
    assert solved(right, "relay.test.jsonl") >= 0.85
    assert solved(right[::-1], "relay.test.jsonl") < 0.5
    assert solved([Knowledge()] * len(right), "relay.test.jsonl") < 0.2


def test_whole_tables_serve_what_halves_once_each_do_not() -> None:
    halves = [world.EXPERTS[name] for name in RIGHT]
    wholes = [Knowledge(mind.skill) for mind in halves]
    assert solved(wholes, "relay.test.jsonl") == 1.0
    assert solved(halves, "relay.test.jsonl") <= 0.95


def test_no_single_expert_serves_all_skills() -> None:
    for mind in world.EXPERTS.values():
        assert solved([mind], "skills.test.jsonl") < 0.5


def test_every_word_of_every_prompt_and_reply_is_a_token() -> None:
    tokenizer = json.loads((ZOO / "base" / "tokenizer.json").read_text())
    vocabulary = set(tokenizer["model"]["vocab"])
    for file in FILES:
        for record in records(file):
            steps = parse(record["question"])
            facts: dict[str, int] = {}
            for step in steps:
                text, facts, _ = world.respond(steps, facts, Knowledge(step.skill))
                assert {*record["question"].split(), *text.split()} <= vocabulary
    assert {"1:", "16:", "Question:", "Answer:", "pass", "done"} <= vocabulary


def test_the_pool_has_room_for_the_longest_reply() -> None:
    pool = Pool.load(ZOO / "pool.toml")
    assert list(pool) == list(world.EXPERTS)
    facts = dict.fromkeys(world.VARIABLES[:4], 10)
    steps = [*(Step(v, "mirror", (9,)) for v in facts), Step("e", "plus", ("a", "b"))]
    longest, _, _ = world.respond(steps, facts, Knowledge("plus"))
    for expert in (*pool.values(), *Pool.load(ZOO / "base.toml").values()):
        assert expert.sampling.max_tokens > len(longest.split())
