import random

import mixtures
import pytest
import world
from hypothesis import given
from hypothesis import strategies as st
from world import Knowledge

MINDS = tuple(world.EXPERTS.values())
seeds = st.integers(0, 2**32)


@given(seeds)
def test_rows_have_a_total_of_one_and_someone_present(seed: int) -> None:
    row = mixtures.draw_row(random.Random(seed))
    assert sum(row) == pytest.approx(1)
    assert max(row) >= mixtures.PRESENT


@given(seeds)
def test_a_mixture_owns_what_its_experts_own(seed: int) -> None:
    rng = random.Random(seed)
    row = mixtures.draw_row(rng)
    mixed = mixtures.knowledge(MINDS, row, mixtures.PRESENT)
    skill, operands = rng.choice(world.SKILLS), (rng.randrange(20), rng.randrange(20))
    present = [m for m, c in zip(MINDS, row, strict=True) if c >= mixtures.PRESENT]
    assert mixed.owns(skill, operands) == any(m.owns(skill, operands) for m in present)


@given(seeds)
def test_no_lesson_depends_on_who_is_half_there(seed: int) -> None:
    rng = random.Random(seed)
    row = mixtures.draw_row(rng)
    item = mixtures.mixture_lesson(rng, MINDS, row)
    assert item.row == row
    if item.done is None:
        assert item.reply.startswith(("pass", "done"))
    else:
        variable, skill, *rest = item.reply.split()
        operands = tuple(int(w) for w in rest[: rest.index("=")] if w.isdigit())
        mind = mixtures.knowledge(MINDS, row, mixtures.PRESENT)
        assert (variable, skill) == (item.done.variable, item.done.skill)
        assert mind.knows(skill, operands)


def test_the_halves_of_a_skill_know_the_whole_together() -> None:
    row = tuple(0.5 if name.startswith("times") else 0.0 for name in world.EXPERTS)
    both = mixtures.knowledge(MINDS, row, mixtures.PRESENT)
    whole = Knowledge("times")
    for x in range(world.MODULUS):
        for y in range(world.MODULUS):
            assert both.knows("times", (x, y)) == whole.knows("times", (x, y))
