"""vLLM in this process: one base a core, its adapters as LoRA requests in mixed batches.

vLLM runs each base in a process of its own, its *core*. A base that is unloaded is put to sleep
where the platform can (CUDA: its weights wait in host memory), else its core ends.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from swarm.agents import weights
from swarm.agents.engines.base import Engine, Lengths
from swarm.agents.engines.checkpoints import (
    Prefetch,
    adapter_folder,
    is_quantised,
    weights_folder,
    width_of,
)
from swarm.agents.engines.codec import first_line
from swarm.agents.engines.determinism import Determinism
from swarm.agents.engines.local_lengths import LocalLengths
from swarm.agents.engines.vllm_core import GIB, Core, VllmOptions, plan_core
from swarm.agents.engines.vllm_process import device_memory, settle
from swarm.agents.messages import Messages, Request, Response
from swarm.errors import EngineError, MissingPackageError

if TYPE_CHECKING:
    from swarm.agents.expert import Expert

T = TypeVar("T")

ALLOWANCE = 1.1
"""What a base takes beside its weights, its adapters and its KV cache, as a factor."""
UTILIZATION = 0.92
"""vLLM's own default of `gpu_memory_utilization`."""


class VllmEngine(Engine):
    """Runs every base in a vLLM core, with prefix caching, adapters mixed by vLLM.

    Args:
        batch: how many requests are handed to vLLM at a time, which batches them as it likes;
            between two of these their answers are kept.
        adapters: how many adapters of one base may be loaded; the least recently used goes first.
        host_memory: GiB of weights that may wait in host memory for bases asleep, where the
            platform can; None: half of this machine's memory; 0: none sleeps.
    """

    def __init__(
        self, *, batch: int = 1024, adapters: int = 64, host_memory: float | None = None
    ) -> None:
        if (reason := self.unavailable()) is not None:
            raise MissingPackageError(reason, "vllm", "the engine `vllm`")
        self.batch = batch
        self.adapters = adapters
        self.host_memory = _half_of_memory() if host_memory is None else host_memory * GIB
        self._cores: dict[str, Core] = {}
        """Those awake, by base."""
        self._asleep: OrderedDict[str, Core] = OrderedDict()
        """By base, first the one that fell asleep first."""
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        # vLLM keeps tasks of its own by event loop, and callers come from many, some of which end
        # at once: all work is done on one loop, in its thread. Calls take turns there, so what
        # comes after a call that was cancelled begins when that call's requests are aborted.
        self._loop: asyncio.AbstractEventLoop | None = None
        self._turn = asyncio.Lock()
        self._starting = threading.Lock()
        self._ahead: Prefetch | None = None
        self._lengths = LocalLengths()
        self._reader = ThreadPoolExecutor(1, "prefetch")

    @classmethod
    def unavailable(cls) -> str | None:
        return None if importlib.util.find_spec("vllm") else "vllm"

    @classmethod
    def runs_on(cls) -> str:
        settle()
        try:
            from vllm.platforms import current_platform
        except Exception as error:  # a library of a broken installation
            raise EngineError(f"can't be imported: {first_line(error)}") from error
        if not current_platform.device_type:
            raise EngineError("the installed vllm was built for a device that is not here")
        return str(current_platform.device_type)

    @classmethod
    def check(cls, expert: Expert, who: str) -> None:
        VllmOptions.of(expert, who)

    @classmethod
    def determinism(cls, expert: Expert) -> Determinism:
        """Bitwise where vLLM computes every request as if it were alone, else seeded."""
        invariant = os.environ.get("VLLM_BATCH_INVARIANT", "0") not in {"", "0"}
        return Determinism.BITWISE if invariant else Determinism.SEEDED

    async def context(self, expert: Expert) -> int | None:
        """By the model's config, or fewer where the expert or its `max_model_len` says so."""
        options = VllmOptions.of(expert, f"expert `{expert.name}`")
        return await self._lengths.context(expert.model, expert.context, options.max_model_len)

    async def count(self, expert: Expert, prompts: Sequence[Messages]) -> Lengths:
        return await self._lengths.count(expert.model, prompts)

    def size(self, base: str, experts: Sequence[Expert]) -> int | None:
        """All that vLLM takes at once, KV cache and room for adapters included: the part of the
        device that `gpu_memory_utilization` says, or the weights and `kv_cache`."""
        options = VllmOptions.of(experts[0], f"expert `{experts[0].name}`")
        if options.kv_cache is None:
            return int(device_memory() * (options.gpu_memory_utilization or UTILIZATION))
        folder = weights_folder(experts[0])
        if folder is None:
            return None
        width = None if is_quantised(folder) else width_of(options.dtype)
        adapters = [weights.size(adapter_folder(e)) for e in experts if e.overlay is not None]
        room = options.max_loras * max(adapters, default=0)
        return int(ALLOWANCE * weights.size(folder, width) + room + options.kv_cache * GIB)

    async def prefetch(self, base: str, experts: Sequence[Expert]) -> bool:
        if base in self._cores:
            return False
        if base in self._asleep:
            return True  # that is where it is
        self.forget()
        # vLLM reads by itself, in another process: more than to have its files at hand can't be.
        ahead = self._ahead = Prefetch(base, keep=False)
        ahead.read = self._reader.submit(ahead.go, experts[0])
        try:
            return await asyncio.wrap_future(ahead.read)
        except asyncio.CancelledError:
            ahead.stop.set()
            raise

    def forget(self) -> None:
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            ahead.stop.set()

    async def load(self, base: str, experts: Sequence[Expert]) -> None:
        await self._do(self._load(experts))

    async def unload(self, base: str) -> None:
        await self._do(self._unload(base))

    async def plan(self, requests: Sequence[Request]) -> Sequence[Sequence[int]]:
        """By adapter, so that few are wanted at a time, in pieces of `batch`."""
        order = sorted(range(len(requests)), key=lambda i: requests[i].expert.overlay or "")
        batches: list[list[int]] = []
        overlays: set[str | None] = set()
        for i in order:
            overlays.add(requests[i].expert.overlay)
            if not batches or len(batches[-1]) == self.batch or len(overlays) > self.adapters:
                batches.append([])
                overlays = {requests[i].expert.overlay}
            batches[-1].append(i)
        return batches

    async def generate(self, requests: Sequence[Request]) -> Sequence[Response | EngineError]:
        return await self._do(self._generate(requests)) if requests else []

    async def close(self) -> None:
        self.forget()
        await self._do(self._close())

    async def _do(self, work: Coroutine[Any, Any, T]) -> T:
        async def in_turn() -> T:
            try:
                async with self._turn:
                    return await work
            finally:
                work.close()  # it never began, if this was cancelled before its turn

        with self._starting:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name="vllm", daemon=True).start()
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(in_turn(), self._loop))

    async def _load(self, experts: Sequence[Expert]) -> Core:
        base = experts[0].base
        plan = plan_core(experts)
        core = self._cores.pop(base, None) or self._asleep.pop(base, None)
        if core is not None and core.plan.covers(plan) and await core.wake():
            self._cores[base] = core
            return core
        if core is not None:
            plan = plan._replace(rank=max(plan.rank, core.plan.rank))
            core.end()
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="swarm-vllm-")
        self._cores[base] = Core(experts[0], plan, self.adapters, Path(self._folder.name))
        return self._cores[base]

    async def _unload(self, base: str) -> None:
        core = self._cores.pop(base, None)
        if core is None:
            return
        room = self.host_memory - core.size
        while self._asleep and sum(each.size for each in self._asleep.values()) > room:
            self._asleep.popitem(last=False)[1].end()
        if room >= 0 and await core.sleep():
            self._asleep[base] = core
        else:
            core.end()

    async def _generate(self, requests: Sequence[Request]) -> list[Response | EngineError]:
        core = await self._load(list({r.expert.fingerprint: r.expert for r in requests}.values()))
        return await core.answer(requests)

    async def _close(self) -> None:
        for cores in (self._cores, self._asleep):
            while cores:
                cores.popitem()[1].end()
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None


def _half_of_memory() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2
