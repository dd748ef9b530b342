"""Hugging Face models in this process: left-padded batches of like length, adapters mixed."""

from __future__ import annotations

import asyncio
import importlib.util
import time
import warnings
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from swarm.agents import weights
from swarm.agents.engines.base import Engine, Lengths
from swarm.agents.engines.chat_tokenizer import ChatTokenizer
from swarm.agents.engines.checkpoints import (
    Prefetch,
    adapter_folder,
    is_quantised,
    load_model,
    merged,
    weights_folder,
    width_of,
)
from swarm.agents.engines.codec import BURST, Codec, first_line
from swarm.agents.engines.determinism import Determinism
from swarm.agents.engines.local_lengths import LocalLengths
from swarm.agents.engines.mixed_lora import take_slices
from swarm.agents.messages import Messages, Request, Response
from swarm.errors import (
    ConfigError,
    EngineError,
    MissingPackageError,
    OutOfMemoryError,
    RequestError,
)

if TYPE_CHECKING:
    import torch

    from swarm.agents.expert import Expert

T = TypeVar("T")
P = ParamSpec("P")

NO_ADAPTER = "__base__"
"""peft's name for "none" in `adapter_names`."""
BATCH_TOKENS = {"cpu": 8_192}
"""On a CPU small batches are faster: what is worked on stays in its caches."""
ALONE = 64
"""Requests from which an adapter gets batches of its own: applying one adapter to a batch is faster
than applying several to their rows, if the rows are many enough."""


ALLOWANCE = 1.1
"""What a base takes beside its weights, as a factor: buffers, and memory in pieces too small for
anything. What a batch takes while it is worked on (its KV cache above all) is not in it: `memory`
should leave room for that."""


class TransformersEngine(Engine):
    """Runs every base through `generate`, with LoRA adapters through peft.

    Requests are sorted by length and cut into batches under a token budget, so that little is spent
    on padding. An adapter with many requests gets batches of its own; those with few share theirs
    by peft's `adapter_names`. When the device is out of memory the batch is halved.

    Args:
        batch_tokens: how many tokens a batch may hold, prompt and answer, padding included; None
            goes by the device.
        adapters: how many adapters may be loaded on one base; the least recently used goes first.
        device: ``cuda``, ``mps``, ``cpu``; None takes the best there is. An expert's
            ``options.device`` counts more.
        dtype: of the weights, as torch calls it; None keeps what the folder says on an accelerator
            and takes float32 on a CPU.
    """

    def __init__(
        self,
        *,
        batch_tokens: int | None = None,
        adapters: int = 64,
        device: str | None = None,
        dtype: str | None = None,
    ) -> None:
        if (reason := self.unavailable()) is not None:
            raise MissingPackageError(reason, "local", "the engine `transformers`")
        self.batch_tokens = batch_tokens
        self.adapters = adapters
        self.device = device
        self.dtype = dtype
        self._bases: dict[str, _Base] = {}
        # All work is done on one thread. So calls from several event loops take turns, and so does
        # what comes after a call that was cancelled: its batch can't be stopped.
        self._thread = ThreadPoolExecutor(1, "transformers")
        self._ahead: Prefetch | None = None
        self._reader = ThreadPoolExecutor(1, "prefetch")
        self._lengths = LocalLengths()

    @classmethod
    def unavailable(cls) -> str | None:
        for package in ("torch", "transformers", "peft", "safetensors"):
            if importlib.util.find_spec(package) is None:
                return package
        return None

    @classmethod
    def check(cls, expert: Expert, who: str) -> None:
        device = expert.options.get("device", "cpu")
        if not isinstance(device, str) or not device:
            raise ConfigError(f'{who}: key `options.device`: `{device}` must be a text: "cuda:0"')

    def device_of(self, expert: Expert) -> str:
        device: str = expert.options.get("device") or self._device()
        return "cuda:0" if device == "cuda" else device

    def size(self, base: str, experts: Sequence[Expert]) -> int | None:
        """The weights in the type they will have, `ALLOWANCE`, and as many of the adapters as are
        kept, which peft makes float32."""
        folder = weights_folder(experts[0])
        if folder is None:
            return None
        overlays = {expert.overlay: expert for expert in experts if expert.overlay is not None}
        adapters = sorted(
            (weights.size(adapter_folder(e), 4) for e in overlays.values()), reverse=True
        )
        width = None
        if not is_quantised(folder):
            width = width_of(
                self.dtype or ("float32" if self.device_of(experts[0]) == "cpu" else None)
            )
        return int(ALLOWANCE * weights.size(folder, width)) + sum(adapters[: self.adapters])

    async def prefetch(self, base: str, experts: Sequence[Expert]) -> bool:
        if base in self._bases:
            return False
        self.forget()
        ahead = self._ahead = Prefetch(base, keep=self.device_of(experts[0]) != "cpu")
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

    @classmethod
    def determinism(cls, expert: Expert) -> Determinism:
        """Seeded: a batch of another shape, or another device, takes sums in another order. (Of 64
        prompts for the zoo's base, on a CPU in float32, 48 had other logits in one padded batch
        than alone, by up to 4e-6.)"""
        return Determinism.SEEDED

    async def context(self, expert: Expert) -> int | None:
        """The positions that the model has by its config, or fewer where the expert says so."""
        return await self._lengths.context(expert.model, expert.context)

    async def count(self, expert: Expert, prompts: Sequence[Messages]) -> Lengths:
        return await self._lengths.count(expert.model, prompts)

    async def load(self, base: str, experts: Sequence[Expert]) -> None:
        await self._do(self._load, experts[0])

    async def unload(self, base: str) -> None:
        await self._do(self._unload, base)

    async def plan(self, requests: Sequence[Request]) -> Sequence[Sequence[int]]:
        return await self._do(self._plan, requests) if requests else []

    async def generate(self, requests: Sequence[Request]) -> Sequence[Response | EngineError]:
        return await self._do(self._generate, requests) if requests else []

    async def close(self) -> None:
        self.forget()
        for base in list(self._bases):
            await self.unload(base)

    async def _do(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.wrap_future(self._thread.submit(work, *args, **kwargs))

    def _load(self, expert: Expert) -> _Base:
        if expert.base not in self._bases:
            device = expert.options.get("device") or self._device()
            made = _Base(expert, device, self.dtype, self.adapters, self._prefetched(expert.base))
            self._bases[expert.base] = made
        return self._bases[expert.base]

    def _prefetched(self, base: str) -> dict[str, torch.Tensor] | None:
        """The weights of `base`, if they have been read."""
        ahead = self._ahead
        if ahead is None or ahead.base != base or ahead.read is None:
            return None
        self._ahead = None
        wait([ahead.read])  # sooner done than beginning once more
        return ahead.tensors or None

    def _unload(self, base: str) -> None:
        if self._bases.pop(base, None) is not None:
            import torch

            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def _device(self) -> str:
        if self.device is None:
            import torch

            accelerator = torch.accelerator.current_accelerator()
            self.device = accelerator.type if accelerator is not None else "cpu"
        return self.device

    def _plan(self, requests: Sequence[Request]) -> list[list[int]]:
        base = self._load(requests[0].expert)
        budget = self.batch_tokens or BATCH_TOKENS.get(base.device, 32_768)
        base.forget_prompts()
        lengths = [len(prompt) for prompt in base.encode([r.messages for r in requests])]
        adapters = [request.expert.overlay for request in requests]
        # Who has enough for a batch of its own gets one, the others share. Longest first: if memory
        # does not suffice we learn it at once. Then by adapter, so that a batch mixes few.
        many = {adapter for adapter, count in Counter(adapters).items() if count >= ALONE}
        groups = [("own", adapter) if adapter in many else ("shared", None) for adapter in adapters]
        order = sorted(
            range(len(requests)),
            key=lambda i: (str(groups[i]), -(lengths[i] // 8), adapters[i] or ""),
        )
        batches: list[list[int]] = []
        width = 0
        for i in order:
            room = lengths[i] + requests[i].expert.sampling.max_tokens
            width = max(width, room)
            if (
                not batches
                or groups[i] != groups[batches[-1][0]]
                or width * (len(batches[-1]) + 1) > budget
            ):
                batches.append([])
                width = room
            batches[-1].append(i)
        return batches

    def _generate(self, requests: Sequence[Request]) -> list[Response | EngineError]:
        base = self._load(requests[0].expert)
        prompts = base.encode([request.messages for request in requests])
        broken = base.load_adapters({r.expert.overlay: r.expert for r in requests})
        answers: dict[int, Response | EngineError] = {}
        for i, (request, prompt) in enumerate(zip(requests, prompts, strict=True)):
            limit = request.expert.sampling.max_tokens
            if request.expert.overlay in broken:
                answers[i] = broken[request.expert.overlay]
            elif len(prompt) + limit > base.context:
                answers[i] = RequestError(
                    f"a prompt of {len(prompt)} tokens and `max_tokens` {limit} are more than the "
                    f"{base.context} that `{base.path}` can hold: shorten the prompt or lower "
                    "`max_tokens`"
                )
        batch = [i for i in range(len(requests)) if i not in answers]
        if batch:
            self._run(base, batch, requests, prompts, answers)
        return [answers[i] for i in range(len(requests))]

    def _run(
        self,
        base: _Base,
        batch: list[int],
        requests: Sequence[Request],
        prompts: Sequence[list[int]],
        answers: dict[int, Response | EngineError],
    ) -> None:
        import torch

        started = time.perf_counter()
        try:
            written = base.generate([requests[i] for i in batch], [prompts[i] for i in batch])
        except torch.OutOfMemoryError:
            written = None
        if written is None:  # outside the handler: the traceback would keep the tensors alive
            torch.cuda.empty_cache()
            if len(batch) == 1:
                answers[batch[0]] = OutOfMemoryError(
                    f"`{base.path}`: no room on `{base.device}` for one prompt of "
                    f"{len(prompts[batch[0]])} tokens: lower `max_tokens`, or use a larger device"
                )
                return
            half = len(batch) // 2
            self._run(base, batch[:half], requests, prompts, answers)
            self._run(base, batch[half:], requests, prompts, answers)
            return
        share = (time.perf_counter() - started) / len(batch)
        for i, tokens in zip(batch, written, strict=True):
            answers[i] = base.response(requests[i], len(prompts[i]), tokens, share)


class _Base(Codec):
    """One base model on its device, with the adapters that were asked for."""

    def __init__(
        self,
        expert: Expert,
        device: str,
        dtype: str | None,
        adapters: int,
        prefetched: dict[str, torch.Tensor] | None = None,
    ) -> None:
        import torch
        from transformers.utils import logging

        logging.disable_progress_bar()
        model = expert.model
        options: dict[str, Any] = {
            "trust_remote_code": False,
            "dtype": dtype or ("auto" if device != "cpu" else torch.float32),
        }
        try:
            chat = ChatTokenizer.load(model)
            self.model = load_model(expert, options, prefetched)
            self.model.to(device).eval().requires_grad_(False)
        except torch.OutOfMemoryError:
            raise OutOfMemoryError(f"`{model}` does not fit on `{device}`") from None
        except Exception as error:  # each of the libraries has its own
            raise EngineError(f"`{model}` can't be loaded: {first_line(error)}") from error
        self.path = model
        self.device = device
        super().__init__(chat, self.model.config, self.model.generation_config)
        self._limit = adapters
        self._adapters: OrderedDict[str, str] = OrderedDict()
        """`Expert.overlay` → name in peft, least recently used first."""
        self._named = 0

    def load_adapters(self, experts: Mapping[str | None, Expert]) -> dict[str | None, EngineError]:
        """Loads those that are not; returns what is wrong with those that can't be.

        `experts` are by their `overlay`.
        """
        broken: dict[str | None, EngineError] = {}
        wanted = {overlay: expert for overlay, expert in experts.items() if overlay is not None}
        for overlay, expert in wanted.items():
            if overlay in self._adapters:
                self._adapters.move_to_end(overlay)
                continue
            try:
                self._add_adapter(overlay, expert)
            except Exception as error:  # each of the libraries has its own
                what = f"`{expert.adapter}`" if expert.mixture is None else f"of `{expert.name}`"
                broken[overlay] = EngineError(
                    f"adapter {what} can't be loaded on `{self.path}`: {first_line(error)}"
                )
        while len(self._adapters) > max(self._limit, len(wanted)):
            _, name = self._adapters.popitem(last=False)
            self.model.set_adapter(next(iter(self._adapters.values())))  # peft warns if it has to
            self.model.delete_adapter(name)
        return broken

    def _add_adapter(self, overlay: str, expert: Expert) -> None:
        from peft import PeftConfig, PeftModel, set_peft_model_state_dict

        # peft registers adapter names as attributes of modules: `double` or `half` would hide the
        # methods of that name, so names are made up here.
        name = f"adapter_{self._named}"
        self._named += 1
        with warnings.catch_warnings():  # peft still asks transformers by an older name
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated")
            if expert.mixture is not None:
                config = PeftConfig.from_pretrained(expert.mixture.folders[0])
                config.inference_mode = True
                if hasattr(self.model, "peft_config"):
                    self.model.add_adapter(name, config)
                else:
                    self.model = PeftModel(self.model, config, adapter_name=name)
                set_peft_model_state_dict(self.model, merged(expert.mixture), adapter_name=name)
            elif hasattr(self.model, "peft_config"):
                self.model.load_adapter(expert.adapter, adapter_name=name, use_safetensors=True)
            else:
                self.model = PeftModel.from_pretrained(
                    self.model, expert.adapter, adapter_name=name, use_safetensors=True
                )
        self.model.eval().requires_grad_(False)
        take_slices(self.model)
        self._adapters[overlay] = name

    def generate(
        self, requests: Sequence[Request], prompts: Sequence[list[int]]
    ) -> list[list[int]]:
        """The tokens written for each prompt, what comes after its end included.

        Rows of one adapter are next to each other (see `mixed_lora`). Goes in bursts of tokens:
        between two of them the rows that are done leave the batch.
        """
        order = sorted(range(len(prompts)), key=lambda i: requests[i].expert.overlay or "")
        written = self._generate([requests[i] for i in order], [prompts[i] for i in order])
        return [tokens for _, tokens in sorted(zip(order, written, strict=True))]

    def _generate(
        self, requests: Sequence[Request], prompts: Sequence[list[int]]
    ) -> list[list[int]]:
        import torch

        width = max(map(len, prompts))
        ids = torch.full((len(prompts), width), self.pad)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :] = torch.tensor(prompt)
            mask[row, width - len(prompt) :] = 1
        ids, mask = ids.to(self.device), mask.to(self.device)
        sampling = GumbelSampling(requests)
        written: list[list[int]] = [[] for _ in prompts]
        rows = list(range(len(prompts)))
        cache: Any = None
        while rows:
            left = max(requests[row].expert.sampling.max_tokens for row in rows)
            left -= len(written[rows[0]])
            with torch.inference_mode(), self._without_traces():
                out = self.model.generate(
                    input_ids=ids,
                    attention_mask=mask,
                    past_key_values=cache,
                    max_new_tokens=min(BURST, left),
                    do_sample=False,
                    temperature=None,
                    top_p=None,
                    top_k=None,
                    pad_token_id=self.pad,
                    logits_processor=sampling.processors(rows),
                    return_dict_in_generate=True,
                    **self._adapters_of([requests[row] for row in rows]),
                )
            ids, cache = out.sequences, out.past_key_values
            new = ids[:, mask.shape[1] :]
            mask = torch.cat([mask, torch.ones_like(new)], dim=1)
            for row, tokens in zip(rows, new.tolist(), strict=True):
                written[row] += tokens
            going = [k for k, row in enumerate(rows) if not self._done(requests[row], written[row])]
            if 0 < len(going) < len(rows):
                chosen = torch.tensor(going, device=self.device)
                ids, mask = ids[chosen], mask[chosen]
                cache.batch_select_indices(chosen)
            rows = [rows[k] for k in going]
        return written

    @contextmanager
    def _without_traces(self) -> Iterator[None]:
        """peft leaves its hooks where a generation fails: they would give the rows of the next one
        the adapters of this."""
        try:
            yield
        except BaseException:
            for module in self.model.modules():
                for name, hook in list(module._forward_pre_hooks.items()):
                    if isinstance(hook, partial) and "adapter_names" in hook.keywords:
                        del module._forward_pre_hooks[name]
                        module._forward_pre_hooks_with_kwargs.pop(name, None)
            raise

    def _adapters_of(self, requests: Sequence[Request]) -> dict[str, Any]:
        """What peft's `generate` wants to be told of the adapter of each row."""
        overlays = [request.expert.overlay for request in requests]
        if not self._adapters:
            return {}
        if len(set(overlays)) == 1 and overlays[0] is not None:  # faster than a mix of one
            self.model.set_adapter(self._adapters[overlays[0]])
            return {}
        return {"adapter_names": [self._adapters[o] if o else NO_ADAPTER for o in overlays]}

    def _done(self, request: Request, tokens: list[int]) -> bool:
        how = request.expert.sampling
        return (
            len(tokens) >= how.max_tokens
            or not self.eos.isdisjoint(tokens)
            or any(stop in self.text(tokens) for stop in how.stop)
        )


class GumbelSampling:
    """Sampling as an arg max: adds Gumbel noise to the log-probabilities, request by request.

    The largest of log p + Gumbel(0, 1) noise is a draw from p, so greedy decoding of the noised
    scores samples. Each request has a generator of its own, seeded by its expert's seed and its own
    content: what it draws does not depend on its neighbours in the batch.
    """

    def __init__(self, requests: Sequence[Request]) -> None:
        import torch

        self._how = [request.expert.sampling for request in requests]
        self._generators = {
            row: torch.Generator("cpu").manual_seed(int.from_bytes(request.key()[:7], "little"))
            for row, request in enumerate(requests)
            if request.expert.sampling.temperature > 0
        }

    def processors(self, rows: Sequence[int]) -> Any:
        """For a batch of these requests, as `generate` wants it; empty where none samples."""
        from transformers import LogitsProcessorList

        sampled = [(k, row) for k, row in enumerate(rows) if row in self._generators]

        def add_noise(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            scores = scores.clone()
            for k, row in sampled:
                scores[k] = self._noised(scores[k], row)
            return scores

        return LogitsProcessorList([add_noise] if sampled else [])

    def _noised(self, scores: torch.Tensor, row: int) -> torch.Tensor:
        import torch

        how = self._how[row]
        logs = torch.log_softmax(scores.float() / how.temperature, dim=-1)
        if how.top_p < 1:
            ranked, order = logs.sort(descending=True)
            mass_before = ranked.exp().cumsum(-1) - ranked.exp()
            logs[order[mass_before >= how.top_p]] = -torch.inf
        uniform = torch.rand(logs.shape, generator=self._generators[row]).clamp_(min=1e-20)
        return logs - torch.log(-torch.log(uniform)).to(logs)
