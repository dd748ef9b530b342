"""What `swarm pool check` does: every expert is asked the same question, twice."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swarm.agents.engines import Engine, create_engine
from swarm.agents.engines.determinism import Determinism
from swarm.agents.expert import Expert, Pool
from swarm.agents.messages import Request, Response
from swarm.agents.prompt import Position
from swarm.agents.role import find_role
from swarm.app.documents import Document
from swarm.app.terminal import console, one_line
from swarm.errors import SwarmError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

DEFAULT_QUESTION = "What is 2 plus 3? Answer with the number."
DEADLINE = 60.0
"""Seconds after which an expert behind HTTP is given up here."""


@dataclass(frozen=True)
class Checked:
    """What one expert came to."""

    expert: Expert
    answers: tuple[Response, ...] = ()
    """Both, if it is well."""
    error: str | None = None
    context: int | None = None
    """Tokens of prompt and answer that it takes; None: not known."""
    promised: Determinism | None = None
    """What its engine says of asking again."""
    load_seconds: float | None = None
    """What loading its base took, where it was loaded for it."""

    @property
    def same(self) -> bool | None:
        """Whether both answers are the same text; None: there are not two."""
        return self.answers[0].text == self.answers[1].text if len(self.answers) == 2 else None

    @property
    def seconds(self) -> float | None:
        """What an answer takes: the faster of both, as the first may find a cold server."""
        return min((answer.seconds for answer in self.answers), default=None)

    @property
    def tokens_per_second(self) -> float | None:
        """Tokens written a second, one request at a time."""
        rates = [
            answer.usage.completion_tokens / answer.seconds
            for answer in self.answers
            if answer.seconds > 0
        ]
        return max(rates, default=None)

    @property
    def cost(self) -> float | None:
        """USD for one answer."""
        return self.expert.price.of(self.answers[0].usage) if self.answers else None

    def document(self) -> dict[str, Any]:
        expert = self.expert
        return {
            "expert": expert.name,
            "engine": expert.engine,
            "model": expert.model,
            "well": self.error is None,
            "error": self.error,
            "answers": [answer.text for answer in self.answers],
            "seconds": [answer.seconds for answer in self.answers],
            "load_seconds": self.load_seconds,
            "prompt_tokens": self.answers[0].usage.prompt_tokens if self.answers else None,
            "completion_tokens": self.answers[0].usage.completion_tokens if self.answers else None,
            "tokens_per_second": self.tokens_per_second,
            "price": expert.price.model_dump(),
            "cost": self.cost,
            "context": self.context,
            "temperature": expert.sampling.temperature,
            "same_twice": self.same,
            "determinism": self.promised,
        }


@dataclass(frozen=True)
class CheckedPool:
    """What all came to."""

    pool: Pool
    question: str
    experts: Sequence[Checked]

    @property
    def well(self) -> bool:
        return all(checked.error is None for checked in self.experts)

    def document(self) -> Document:
        return {
            "pool": self.pool.name,
            "question": self.question,
            "well": self.well,
            "experts": [checked.document() for checked in self.experts],
        }


def check_pool(file: Path, names: Sequence[str], question: str, *, quiet: bool) -> CheckedPool:
    """Asks the experts of these names, or all. What fails is in the result.

    Raises:
        InputError: the file is wrong, or has no such expert.
    """
    pool = Pool.load(file)
    if names:
        pool = pool.subset(*dict.fromkeys(names))
    found = asyncio.run(_check_all(list(pool.values()), question, pool, quiet=quiet))
    return CheckedPool(pool, question, [found[name] for name in pool])


async def _check_all(
    experts: Sequence[Expert], question: str, pool: Pool, *, quiet: bool
) -> dict[str, Checked]:
    err = console(stderr=True)

    def tell(done: Checked) -> Checked:
        if not quiet:
            how = f"{done.seconds or 0:.2f} s" if done.error is None else "failed"
            err.print(one_line(f"{done.expert.name}: {how}"))
        return done

    by_engine: dict[str, list[Expert]] = defaultdict(list)
    for expert in experts:
        by_engine[expert.engine].append(expert)
    found: list[Checked] = []
    remote: list[tuple[Engine, list[Expert]]] = []
    local: list[tuple[Engine, list[Expert]]] = []
    for name, of in by_engine.items():
        try:
            if missing := type(engine := create_engine(name)).unavailable():
                raise SwarmError(f"the engine `{name}` needs the package `{missing}`")
        except (SwarmError, ImportError) as error:
            found += [tell(Checked(expert, error=str(error))) for expert in of]
            continue
        (local if engine.resident else remote).append((engine, of))

    async def one(engine: Engine, expert: Expert) -> Checked:
        return tell(await _check(engine, expert, question, pool))

    # All that are elsewhere side by side; then what takes this machine, one after the other.
    found += await asyncio.gather(*(one(engine, expert) for engine, of in remote for expert in of))
    for engine, of in local:
        bases: dict[str, list[Expert]] = defaultdict(list)
        for expert in of:
            bases[expert.base].append(expert)
        for base, alike in bases.items():
            found += [tell(each) for each in await _check_base(engine, base, alike, question, pool)]
    for engine, _ in (*remote, *local):
        await engine.close()
    return {checked.expert.name: checked for checked in found}


async def _check_base(
    engine: Engine, base: str, experts: Sequence[Expert], question: str, pool: Pool
) -> list[Checked]:
    """Those of one base, which is loaded for them."""
    started = time.perf_counter()
    try:
        await engine.load(base, experts)
    except SwarmError as error:
        return [Checked(expert, error=str(error)) for expert in experts]
    took = time.perf_counter() - started
    found = [await _check(engine, expert, question, pool, took) for expert in experts]
    await engine.unload(base)
    return found


async def _check(
    engine: Engine, expert: Expert, question: str, pool: Pool, took: float | None = None
) -> Checked:
    role = find_role("solver", pool.roles)
    [messages] = expert.style.messages(role, Position.FIRST, [question], [])
    answers: list[Response] = []
    try:
        type(engine).require(expert)
        for _ in range(2):
            started = time.perf_counter()
            [answer] = await engine.generate([Request(_hurried(expert), messages)])
            if not isinstance(answer, Response):
                raise answer
            seconds = answer.seconds or time.perf_counter() - started
            answers.append(answer._replace(seconds=seconds))
        context = await engine.context(_hurried(expert))
    except SwarmError as error:
        return Checked(expert, error=str(error), load_seconds=took)
    return Checked(
        expert,
        tuple(answers),
        context=context,
        promised=type(engine).determinism(expert),
        load_seconds=took,
    )


def _hurried(expert: Expert) -> Expert:
    """With less patience than a job has, where the engine has any."""
    if expert.engine != "server":
        return expert
    given = expert.options.get("deadline", DEADLINE)
    return expert.model_copy(
        update={"options": {**expert.options, "deadline": min(given, DEADLINE)}}
    )


def show(out: Console, checked: CheckedPool) -> None:
    """The table of `swarm pool check`."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("expert", "engine"):
        table.add_column(title, overflow="fold")
    for title in ("latency", "tokens/s", "price in / out", "context"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("same twice", no_wrap=True)
    table.add_column("answer", overflow="ellipsis", no_wrap=True)
    for one in checked.experts:
        name = Text(one_line(one.expert.name, 40), "" if one.error is None else "red")
        price = one.expert.price
        table.add_row(
            name,
            one.expert.engine,
            *(
                "-" if one.seconds is None else _duration(one.seconds),
                "-" if one.tokens_per_second is None else f"{one.tokens_per_second:,.0f}",
                f"{price.input:g} / {price.output:g}" if price.input or price.output else "-",
                "-" if one.context is None else f"{one.context:,}",
            ),
            _same(one),
            Text("failed", "red")
            if one.error is not None
            else Text(one_line(one.answers[0].text, 60)),
        )
    out.print(table)
    for one in checked.experts:
        if one.error is not None:
            told = one.error.removeprefix(f"expert `{one.expert.name}`: ")
            out.print(Text(f"{one_line(one.expert.name, 40)}: {one_line(told, 300)}", "red"))


def _duration(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _same(one: Checked) -> Text:
    from rich.text import Text

    if one.same is None:
        return Text("-")
    said = f"{'yes' if one.same else 'no'} ({one.promised})"
    if temperature := one.expert.sampling.temperature:
        said += f", at {temperature:g}"
    return Text(said, "green" if one.same else "yellow")
