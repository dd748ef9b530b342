"""What a job may use in all: calls, tokens, money, time; and what it has used so far."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta

from swarm.agents.expert import Expert, Pool, Price
from swarm.agents.messages import Messages, Request, Usage
from swarm.errors import BudgetError, InputError
from swarm.store import BatchRecord, Store

PER_MESSAGE = 8
"""Tokens that a chat template puts around a message, at most."""
PER_PROMPT = 64
"""Tokens that it adds to a prompt beside these, at most: start, opening of the answer, a date."""


@dataclass(frozen=True)
class Budget:
    """Limits of a job, over all its sessions. None: no limit.

    They are no part of what the job is: with a higher one it goes on where it was stopped.

    Raises:
        InputError: a limit that is not above 0.
    """

    max_calls: int | None = None
    """Requests that engines answer. Never exceeded."""
    max_tokens: int | None = None
    """Read and written. What does not fit by its upper bound (`most_tokens`) is not asked."""
    max_cost: float | None = None
    """USD by the experts' prices. What does not fit by its upper bound is not asked."""
    max_seconds: float | None = None
    """Wall time. A batch that has begun is let end. Of earlier sessions counts the time in which
    engines worked or models were loaded: that is recorded, whatever ended them."""

    def __post_init__(self) -> None:
        for name, limit in asdict(self).items():
            if limit is not None and not limit > 0:
                raise InputError(f"`{name}` is {limit}: a limit must be above 0")

    def check(self, pool: Pool) -> None:
        """Raises `InputError` where a limit could never be reached."""
        if self.max_cost is not None and not any(
            expert.price.input or expert.price.output for expert in pool.values()
        ):
            raise InputError(
                f"`max_cost` is {self.max_cost:g}, but no expert of pool `{pool.name}` has a "
                "price: give them one, or leave out the limit"
            )


@dataclass
class Spent:
    """What a job has used, or may use at most."""

    calls: int = 0
    tokens: int = 0
    """Read and written."""
    cost: float = 0.0
    """USD."""
    seconds: float = 0.0

    def add(self, other: Spent, sign: int = 1) -> None:
        self.calls += sign * other.calls
        self.tokens += sign * other.tokens
        self.cost += sign * other.cost
        self.seconds += sign * other.seconds


def most_tokens(messages: Messages) -> int:
    """How many tokens a prompt can have: no tokenizer makes more than one of a byte."""
    sizes = (len(content.encode("utf-8", "surrogatepass")) for _, content in messages)
    return PER_PROMPT + sum(PER_MESSAGE + size for size in sizes)


def most(request: Request) -> Spent:
    """What a request can take at most. Time can't be known."""
    expert = request.expert
    usage = Usage(most_tokens(request.messages), expert.sampling.max_tokens)
    return Spent(1, usage.total, expert.price.of(usage))


class Account:
    """What a job uses, held against its budget. Used from one event loop.

    Args:
        before: what earlier sessions have used.
        pool: whose prices count; of experts that are not in it (they come to be in a job) the own.
    """

    def __init__(
        self,
        budget: Budget | None = None,
        before: Spent | None = None,
        pool: Mapping[str, Expert] | None = None,
    ) -> None:
        self.budget = budget or Budget()
        self._used = before or Spent()
        self._pending = Spent()
        """What is being asked may take at most."""
        self._prices = _prices(pool or {})
        self._started = time.monotonic()
        self._settled = asyncio.Event()
        """Set, and replaced by a new one, when something that was being asked is answered."""

    @property
    def spent(self) -> Spent:
        """Up to now."""
        now = Spent(seconds=time.monotonic() - self._started)
        now.add(self._used)
        return now

    def book(self, batch: BatchRecord, experts: Iterable[Expert]) -> None:
        """Counts a batch that was answered by some of `experts`."""
        for expert in experts:
            self._prices.setdefault(expert.name, expert.price)
        self._used.add(_spent(batch, self._prices))

    @asynccontextmanager
    async def asking(self, requests: Sequence[Request]) -> AsyncIterator[int]:
        """See `Recorder.asking`. While others are being asked, who does not fit waits for them:
        they may take less than their bounds, and are not to be given up when the job stops.

        Raises:
            BudgetError: a limit is reached.
        """
        while True:
            count, reserved, limit = self._fitting(requests)
            if limit is None:
                break
            if not self._pending.calls:
                raise self._error(limit)
            await self._settled.wait()
        self._pending.add(reserved)
        try:
            yield count
        finally:
            self._pending.add(reserved, -1)
            self._settled.set()
            self._settled = asyncio.Event()

    def _fitting(self, requests: Sequence[Request]) -> tuple[int, Spent, str | None]:
        """How many fit, what they take at most, and the limit that the first does not fit."""
        budget, reserved = self.budget, Spent()
        if budget == Budget():
            return len(requests), Spent(len(requests)), None
        total = self.spent
        if budget.max_seconds is not None and total.seconds >= budget.max_seconds:
            return 0, reserved, "max_seconds"
        total.add(self._pending)
        bounded = budget.max_tokens is not None or budget.max_cost is not None
        for count, request in enumerate(requests):
            take = most(request) if bounded else Spent(1)
            total.add(take)
            for name in ("calls", "tokens", "cost"):
                limit = getattr(budget, f"max_{name}")
                if limit is not None and getattr(total, name) > limit:
                    return count, reserved, None if count else f"max_{name}"
            reserved.add(take)
        return len(requests), reserved, None

    def _error(self, limit: str) -> BudgetError:
        used = getattr(self.spent, limit.removeprefix("max_"))
        return BudgetError(limit, getattr(self.budget, limit), used)


def spent_before(store: Store, run: int, pool: Mapping[str, Expert]) -> Spent:
    """What earlier sessions of a job have used, from the batches they left, by today's prices."""
    batches = [view.batch for view in store.batches(run)]
    spent, prices = Spent(seconds=busy_seconds(batches)), _prices(pool)
    for batch in batches:
        spent.add(_spent(batch, prices))
    return spent


def _spent(batch: BatchRecord, prices: Mapping[str, Price]) -> Spent:
    """What a batch has used but for time, which may be that of others, too.

    It costs what the dearest of its experts asks: they share a base model, and so its price as a
    rule. Of an expert that has no price here, that is the dearest there is.
    """
    usage = Usage(batch.prompt_tokens, batch.completion_tokens)
    asked = set(batch.experts)
    known = [prices[name] for name in asked & prices.keys()]
    dearest = known if len(known) == len(asked) else prices.values()
    cost = max((price.of(usage) for price in dearest), default=0.0)
    return Spent(batch.requests, usage.total, cost)


def busy_seconds(batches: Iterable[BatchRecord]) -> float:
    """How long any of `batches` was loaded for or answered; what ran together counts once."""
    spans = sorted(
        (
            batch.started_at - timedelta(seconds=batch.load_seconds),
            batch.started_at + timedelta(seconds=batch.seconds),
        )
        for batch in batches
    )
    busy = timedelta()
    until = None
    for start, end in spans:
        if until is None or start > until:
            busy, until = busy + (end - start), end
        elif end > until:
            busy, until = busy + (end - until), end
    return busy.total_seconds()


def _prices(pool: Mapping[str, Expert]) -> dict[str, Price]:
    return {name: expert.price for name, expert in pool.items()}
