"""Which base models are loaded, and on which engine."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import NamedTuple

from swarm.agents.engines import Engine, create_engine
from swarm.agents.expert import Expert
from swarm.agents.memory import Memory, Room, shown
from swarm.errors import InputError
from swarm.runtime.planning import Model


class Loaded(NamedTuple):
    """What it took to have a base ready."""

    fresh: bool = False
    """Whether the base had to be loaded now."""
    seconds: float = 0.0
    """How long that took, evictions included."""
    bytes: int = 0
    """Of weights that were brought to the device; 0 where the engine does not say."""
    prefetched: bool = False
    """Whether they were in host memory already, read while the device was at work."""
    evicted: tuple[str, ...] = ()
    """The bases that were unloaded to make room."""
    evict_seconds: float = 0.0
    """What that took; part of `seconds`."""


@dataclass
class _Resident:
    """A base that is loaded."""

    engine: Engine
    device: str
    size: int | None
    experts: dict[str | None, Expert]
    """By overlay: all that were asked since it was loaded, whose adapters are in `size`."""


@dataclass(frozen=True)
class _Ahead:
    """A base that is being read into host memory, or has been."""

    base: str
    engine: Engine
    task: asyncio.Task[bool]
    loop: asyncio.AbstractEventLoop


class Residency:
    """Keeps engines warm, and what is loaded on them within the room that there is.

    Engines outlive schedulers: what is loaded for one evaluation is there for the next. Several
    schedulers may share one residency, also on event loops of different threads: they take turns.
    Never is more loaded than there is room for: what has to go is gone before anything comes.
    """

    def __init__(
        self, engines: Mapping[str, Engine] | None = None, *, memory: Memory | str | int = 1
    ) -> None:
        """`engines` are used under their names instead of new ones; `memory`: see `Memory`."""
        self.memory = Memory.parse(memory)
        self._engines: dict[str, Engine] = dict(engines or {})
        self._loaded: OrderedDict[str, _Resident] = OrderedDict()
        """By base, least recently used first."""
        self._ahead: _Ahead | None = None
        self._turn = threading.Lock()

    def engine(self, name: str) -> Engine:
        """The engine called `name`, made when it is first wanted."""
        if name not in self._engines:
            self._engines[name] = create_engine(name)
        return self._engines[name]

    @property
    def loaded(self) -> tuple[str, ...]:
        """The bases that are loaded, least recently used first."""
        return tuple(self._loaded)

    def model(self, experts: Sequence[Expert]) -> Model:
        """What a planner has to know of the base of these experts, which is one."""
        engine = self.engine(experts[0].engine)
        if not engine.resident:
            return Model(size=0)
        return Model(engine.device_of(experts[0]), engine.size(experts[0].base, experts))

    def loaded_model(self, base: str) -> Model:
        """The same of one that is loaded."""
        held = self._loaded[base]
        return Model(held.device, held.size)

    def room(self, device: str) -> Room:
        """What may be loaded on `device`.

        Raises:
            InputError: nobody has said.
        """
        room = self.memory.room(device)
        if room is None:
            known = ", ".join(f"`{name}`" for name in self.memory.rooms)
            raise InputError(
                f"`memory` says nothing of device `{device}` but of {known}: add it, or give one "
                "number for all"
            )
        return room

    def check(self, experts: Iterable[Expert]) -> None:
        """Whether each base of these experts, alone with its adapters, has room.

        Raises:
            InputError: one has not, or nobody knows how large it is.
        """
        if all(room.models is not None for room in self.memory.rooms.values()) and (
            "" in self.memory.rooms
        ):
            return  # there is room for any one model
        together: dict[str, dict[str | None, Expert]] = {}
        for expert in experts:
            together.setdefault(expert.base, {}).setdefault(expert.overlay, expert)
        for base, overlays in together.items():
            self._check(base, list(overlays.values()))

    def _check(self, base: str, experts: Sequence[Expert]) -> tuple[Model, Room]:
        model = self.model(experts)
        if model.size == 0:
            return model, Room(models=1)
        room = self.room(model.device)
        if room.bytes is not None and model.size is None:
            raise InputError(
                f"`memory` is {room}, but nobody knows how much `{base}` takes: use a folder of "
                "safetensors, or give `memory` as a number of models"
            )
        if not room.holds([model.size]):
            where = f" on `{model.device}`" if model.device else ""
            raise InputError(
                f"`{base}` takes {shown(model.size or 0)}, adapters included, and `memory` is "
                f"{room}{where}: give more, or use a smaller model"
            )
        return model, room

    @asynccontextmanager
    async def turn(self, name: str) -> AsyncIterator[Engine]:
        """The engine called `name`; if it is resident, nobody else uses a resident engine inside.

        So what is acquired stays loaded until the end of the turn, unless more is acquired in it.
        """
        engine = self.engine(name)
        if not engine.resident:
            yield engine
            return
        # Who has the turn may be on another thread's event loop, where no asyncio lock reaches.
        while not self._turn.acquire(blocking=False):  # noqa: ASYNC110
            await asyncio.sleep(0.002)
        try:
            yield engine
        finally:
            self._turn.release()

    async def acquire(
        self, base: str, experts: Sequence[Expert], evict: Sequence[str] = ()
    ) -> Loaded:
        """Loads `base` if it is not, and unloads others before if there is no room.

        Those go first that `evict` names, in its order, then what was used longest ago. To be
        called in the engine's turn.

        Raises:
            EngineError: it can't be loaded.
            InputError: it can never be (see `check`).
        """
        engine = self.engine(experts[0].engine)
        if not engine.resident:
            return Loaded()
        started = time.perf_counter()
        wanted = {expert.overlay: expert for expert in experts}
        held = self._loaded.get(base)
        evicted: list[str] = []
        model, room = self._check(base, list(wanted.values()))
        if held is not None:
            together = {**held.experts, **wanted}
            if together.keys() != held.experts.keys():
                larger = Model(model.device, engine.size(base, list(together.values())))
                if room.holds([larger.size]):
                    model, wanted = larger, together
                else:  # with the adapters of before it grows out of its room: it starts afresh
                    await self._unload(base)
                    held = None
            else:
                model, wanted = self.loaded_model(base), held.experts
        for victim in self._victims(base, model, room, evict):
            await self._unload(victim)
            evicted.append(victim)
        freed = time.perf_counter()
        fresh = held is None
        prefetched = fresh and await self._arrived(base)
        try:
            await engine.load(base, experts)
        except BaseException:
            if fresh:
                await engine.unload(base)  # the part that was loaded takes room, too
            raise
        self._loaded[base] = _Resident(engine, model.device, model.size, wanted)
        self._loaded.move_to_end(base)
        if model.size == 0 or not (fresh or evicted):
            return Loaded()
        return Loaded(
            fresh=fresh,
            seconds=time.perf_counter() - started,
            bytes=(model.size or 0) if fresh else 0,
            prefetched=prefetched,
            evicted=tuple(evicted),
            evict_seconds=freed - started if evicted else 0.0,
        )

    def _victims(self, base: str, model: Model, room: Room, evict: Sequence[str]) -> list[str]:
        """Who has to go for `base` to have room; nobody who could stay."""
        if model.size == 0:
            return []
        staying = {
            name: held.size
            for name, held in self._loaded.items()
            if name != base and held.device == model.device
        }
        first = [name for name in evict if name in staying]
        victims: list[str] = []
        for name in [*first, *(name for name in staying if name not in first)]:
            if room.holds([*(staying[n] for n in staying if n not in victims), model.size]):
                break
            if staying[name] != 0:
                victims.append(name)
        for name in reversed(victims[:-1]):  # the last was too large for all of them to be needed
            rest = [n for n in victims if n != name]
            if room.holds([*(staying[n] for n in staying if n not in rest), model.size]):
                victims = rest
        return victims

    async def _unload(self, base: str) -> None:
        await self._loaded[base].engine.unload(base)
        del self._loaded[base]

    def prefetch(self, base: str, experts: Sequence[Expert]) -> None:
        """Has `base` read into host memory while the device works on another.

        One base at a time: what was prefetched before and is still not loaded is given up.
        """
        engine = self.engine(experts[0].engine)
        if not engine.resident or base in self._loaded or self.model(experts).size == 0:
            return
        if self._ahead is not None:
            if self._ahead.base == base:
                return
            self._give_up()
        loop = asyncio.get_running_loop()
        task = loop.create_task(engine.prefetch(base, experts))
        task.add_done_callback(_seen)
        self._ahead = _Ahead(base, engine, task, loop)

    def _give_up(self) -> None:
        ahead, self._ahead = self._ahead, None
        if ahead is None:
            return
        if ahead.loop is asyncio.get_running_loop():
            ahead.task.cancel()
        elif not ahead.loop.is_closed():
            ahead.loop.call_soon_threadsafe(ahead.task.cancel)
        ahead.engine.forget()

    async def _arrived(self, base: str) -> bool:
        """Whether `base` has been prefetched; waits for it if it is on its way."""
        ahead = self._ahead
        if ahead is None or ahead.base != base:
            return False
        if ahead.loop is not asyncio.get_running_loop() and not ahead.task.done():
            self._give_up()  # it can't be waited for from here
            return False
        if not ahead.task.done():
            try:
                await asyncio.wait([ahead.task])
            except BaseException:
                self._give_up()
                raise
        self._ahead = None
        task = ahead.task
        return not task.cancelled() and task.exception() is None and bool(task.result())

    async def close(self) -> None:
        """Unloads everything. The next `acquire` loads again."""
        self._give_up()
        self._loaded.clear()
        for engine in self._engines.values():
            await engine.close()


def _seen(task: asyncio.Task[bool]) -> None:
    """A prefetch that failed is no error: its base is loaded from scratch."""
    if not task.cancelled():
        task.exception()
