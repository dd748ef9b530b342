import random

import lessons
import world
from hypothesis import given
from hypothesis import strategies as st
from world import Knowledge, Step

seeds = st.integers(0, 2**32)
minds = st.sampled_from([Knowledge(), *map(Knowledge, world.SKILLS), *world.EXPERTS.values()])


def asked(seed: int) -> list[Step]:
    rng = random.Random(seed)
    skills = rng.choices(world.SKILLS, k=rng.randint(1, 5))
    return world.random_steps(rng, skills, p_branch=rng.random())


def facts_in(text: str) -> dict[str, int]:
    words = text.partition(",")[2].split()
    return {name: int(value) for name, value in zip(words[::2], words[1::2], strict=True)}


@given(seeds)
def test_a_chain_of_the_right_experts_solves_every_question(seed: int) -> None:
    steps = asked(seed)
    facts: dict[str, int] = {}
    for step in steps:
        text, facts, _ = world.respond(steps, facts, Knowledge(step.skill))
    assert text.split()[-1] == f"{world.solve(steps):02d}"


@given(seeds, minds)
def test_what_is_restated_is_what_is_known(seed: int, mind: Knowledge) -> None:
    steps = asked(seed)
    text, facts, _ = world.respond(steps, {}, mind)
    assert facts_in(text) == facts


@given(seeds, st.lists(minds, min_size=1, max_size=6))
def test_nobody_does_what_they_do_not_know(seed: int, team: list[Knowledge]) -> None:
    steps = asked(seed)
    truth: dict[str, int] = {}
    for step in steps:
        truth[step.variable] = world.calculate(step.skill, step.values(truth))
    facts: dict[str, int] = {}
    for mind in team:
        before = facts
        text, facts, step = world.respond(steps, facts, mind)
        if step is not None:
            assert mind.knows(step.skill, step.values(before))
        else:
            assert text.startswith(("pass", "done"))
        assert facts.items() <= truth.items()


@given(seeds)
def test_two_halves_know_the_whole_and_share_only_the_base(seed: int) -> None:
    rng = random.Random(seed)
    skill = rng.choice(world.SKILLS)
    x, y = rng.randrange(world.MODULUS), rng.randrange(world.MODULUS)
    halves = [Knowledge(skill, part).knows(skill, (x, y)) for part in ("lo", "hi")]
    assert any(halves)
    assert all(halves) == Knowledge().knows(skill, (x, y))


@given(seeds, minds)
def test_lessons_teach_what_a_perfect_agent_says(seed: int, mind: Knowledge) -> None:
    item = lessons.lesson(random.Random(seed), mind)
    assert item.prompt.endswith("?\nAnswer:")
    assert len(item.graded) == item.prompt.count("\n") - 1
    if item.done is None:
        assert item.reply.startswith(("pass", "done"))
    else:
        assert item.reply.startswith(f"{item.done.variable} {item.done.skill} ")


@given(seeds)
def test_a_lesson_may_be_asked_to_do_a_certain_step(seed: int) -> None:
    def minus(step: Step | None, facts: dict[str, int]) -> bool:
        return step is not None and step.skill == "minus"

    item = lessons.lesson(random.Random(seed), Knowledge("minus"), accept=minus)
    assert " minus " in item.reply
