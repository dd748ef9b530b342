"""Hugging Face models in this process: left-padded batches of like length, adapters mixed."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from swarm.agents.engines.base import Engine
from swarm.agents.messages import Messages, Request, Response, Usage
from swarm.errors import EngineError, MissingPackageError, OutOfMemoryError, RequestError

if TYPE_CHECKING:
    import torch

    from swarm.agents.expert import Expert

NO_ADAPTER = "__base__"
"""peft's name for "none" in `adapter_names`."""


class TransformersEngine(Engine):
    """Runs every base through `generate`, with LoRA adapters through peft.

    Requests are sorted by length and then by adapter and cut into batches under a token budget, so
    that little is spent on padding. Adapters of one base share a batch by peft's `adapter_names`.
    When the device is out of memory the batch is halved.

    Args:
        batch_tokens: how many tokens a batch may hold, prompt and answer, padding included.
        device: ``cuda``, ``mps``, ``cpu``; None takes the best there is.
        dtype: of the weights, as torch calls it; None keeps what the folder says on an accelerator
            and takes float32 on a CPU.
    """

    def __init__(
        self, *, batch_tokens: int = 32_768, device: str | None = None, dtype: str | None = None
    ) -> None:
        if (reason := self.unavailable()) is not None:
            raise MissingPackageError(reason, "local", "the engine `transformers`")
        self.batch_tokens = batch_tokens
        self.device = device
        self.dtype = dtype
        self._bases: dict[str, _Base] = {}

    @classmethod
    def unavailable(cls) -> str | None:
        for package in ("torch", "transformers", "peft", "safetensors"):
            if importlib.util.find_spec(package) is None:
                return package
        return None

    async def load(self, base: str, experts: Sequence[Expert]) -> None:
        await asyncio.to_thread(self._load, base, experts)

    def _load(self, base: str, experts: Sequence[Expert]) -> None:
        if base not in self._bases:
            self._bases[base] = _Base(experts[0].model, self._device(), self.dtype)
        for expert in experts:
            self._bases[base].add_adapter(expert.adapter)

    async def unload(self, base: str) -> None:
        if self._bases.pop(base, None) is not None:
            import torch

            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    async def close(self) -> None:
        for base in list(self._bases):
            await self.unload(base)

    async def plan(self, requests: Sequence[Request]) -> Sequence[Sequence[int]]:
        return await asyncio.to_thread(self._plan, requests)

    def _plan(self, requests: Sequence[Request]) -> list[list[int]]:
        lengths = [len(p) for p in self._base(requests).encode([r.messages for r in requests])]
        # Longest first: if memory does not suffice we learn it at once. Then by adapter, so that a
        # batch mixes few. A stop string would end every row of its batch, a sampled row slows all:
        # only requests that are alike in this mix.
        order = sorted(
            range(len(requests)),
            key=lambda i: (
                requests[i].expert.sampling.stop,
                _sampled(requests[i]),
                -(lengths[i] // 8),
                requests[i].expert.adapter or "",
            ),
        )
        batches: list[list[int]] = []
        width, kind = 0, None
        for i in order:
            sampling = requests[i].expert.sampling
            room = lengths[i] + sampling.max_tokens
            wider = max(width, room)
            if (
                not batches
                or kind != (sampling.stop, _sampled(requests[i]))
                or wider * (len(batches[-1]) + 1) > self.batch_tokens
            ):
                batches.append([])
                wider = room
                kind = (sampling.stop, _sampled(requests[i]))
            batches[-1].append(i)
            width = wider
        return batches

    async def generate(self, requests: Sequence[Request]) -> Sequence[Response | RequestError]:
        if not requests:
            return []
        return await asyncio.to_thread(self._generate, requests)

    def _device(self) -> str:
        if self.device is None:
            import torch

            accelerator = torch.accelerator.current_accelerator()
            self.device = accelerator.type if accelerator is not None else "cpu"
        return self.device

    def _base(self, requests: Sequence[Request]) -> _Base:
        name = requests[0].expert.base
        self._load(name, [request.expert for request in requests])
        return self._bases[name]

    def _generate(self, requests: Sequence[Request]) -> list[Response | RequestError]:
        base = self._base(requests)
        prompts = base.encode([request.messages for request in requests])
        answers: dict[int, Response | RequestError] = {}
        kinds: dict[tuple[str, ...], list[int]] = {}
        for i, (request, prompt) in enumerate(zip(requests, prompts, strict=True)):
            limit = request.expert.sampling.max_tokens
            if len(prompt) + limit <= base.context:
                kinds.setdefault(request.expert.sampling.stop, []).append(i)
                continue
            answers[i] = RequestError(
                f"a prompt of {len(prompt)} tokens and `max_tokens` {limit} are more than the "
                f"{base.context} that `{request.expert.model}` can hold: shorten the prompt or "
                "lower `max_tokens`"
            )
        for batch in kinds.values():
            self._run(base, batch, requests, prompts, answers)
        return [answers[i] for i in range(len(requests))]

    def _run(
        self,
        base: _Base,
        batch: list[int],
        requests: Sequence[Request],
        prompts: Sequence[list[int]],
        answers: dict[int, Response | RequestError],
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
                raise OutOfMemoryError(
                    f"`{base.path}`: no room on `{base.device}` for one prompt of "
                    f"{len(prompts[batch[0]])} tokens: lower `max_tokens`, or use a larger device"
                )
            half = len(batch) // 2
            self._run(base, batch[:half], requests, prompts, answers)
            self._run(base, batch[half:], requests, prompts, answers)
            return
        share = (time.perf_counter() - started) / len(batch)
        for i, tokens in zip(batch, written, strict=True):
            answers[i] = base.response(requests[i], len(prompts[i]), tokens, share)


def _sampled(request: Request) -> bool:
    return request.expert.sampling.temperature > 0


class _Base:
    """One base model on its device, with the adapters that were asked for."""

    def __init__(self, model: str, device: str, dtype: str | None) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils import logging

        logging.disable_progress_bar()
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=False)
            self.model = AutoModelForCausalLM.from_pretrained(
                model,
                use_safetensors=True,
                trust_remote_code=False,
                dtype=dtype or ("auto" if device != "cpu" else torch.float32),
            )
        except torch.OutOfMemoryError:
            raise OutOfMemoryError(f"`{model}` does not fit on `{device}`") from None
        except (OSError, ValueError, KeyError) as error:
            raise EngineError(f"`{model}` can't be loaded: {_first_line(error)}") from error
        self.path = model
        self.device = device
        self.model.to(device).eval().requires_grad_(False)
        self.context: int = getattr(self.model.config, "max_position_embeddings", 1 << 30)
        eos = self.model.generation_config.eos_token_id
        self.eos: set[int] = set(eos if isinstance(eos, list) else [eos]) - {None}
        self.pad: int = next(
            token
            for token in (self.tokenizer.pad_token_id, *self.eos, 0)
            if token is not None
        )
        self._adapters: dict[str, str] = {}
        """Folder → name in peft."""

    def add_adapter(self, folder: str | None) -> None:
        if folder is None or folder in self._adapters:
            return
        # peft registers adapter names as attributes of modules: `double` or `half` would hide the
        # methods of that name, so names are made up here.
        name = f"adapter_{len(self._adapters)}"
        try:
            if self._adapters:
                self.model.load_adapter(folder, adapter_name=name, use_safetensors=True)
            else:
                from peft import PeftModel

                self.model = PeftModel.from_pretrained(
                    self.model, folder, adapter_name=name, use_safetensors=True
                )
        except (OSError, ValueError, KeyError, RuntimeError, json.JSONDecodeError) as error:
            raise EngineError(
                f"adapter `{folder}` can't be loaded on `{self.path}`: {_first_line(error)}"
            ) from error
        self.model.eval().requires_grad_(False)
        self._adapters[folder] = name

    def encode(self, prompts: Sequence[Messages]) -> list[list[int]]:
        """Token ids of each prompt: by the model's chat template, else as plain text."""
        if self.tokenizer.chat_template:
            texts = self.tokenizer.apply_chat_template(
                [[message._asdict() for message in messages] for messages in prompts],
                tokenize=False,
                add_generation_prompt=True,
            )
        else:
            texts = ["\n\n".join(m.content for m in messages) for messages in prompts]
        special = not self.tokenizer.chat_template  # a template writes its own special tokens
        ids: list[list[int]] = self.tokenizer(texts, add_special_tokens=special)["input_ids"]
        return [row or [self.pad] for row in ids]

    def generate(
        self, requests: Sequence[Request], prompts: Sequence[list[int]]
    ) -> list[list[int]]:
        """The tokens written for each prompt; all requests have the same stop strings."""
        import torch
        from transformers import LogitsProcessorList

        width = max(map(len, prompts))
        ids = torch.full((len(prompts), width), self.pad)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :] = torch.tensor(prompt)
            mask[row, width - len(prompt) :] = 1
        options: dict[str, Any] = {}
        if self._adapters:
            options["adapter_names"] = [
                self._adapters[r.expert.adapter] if r.expert.adapter else NO_ADAPTER
                for r in requests
            ]
        if stops := requests[0].expert.sampling.stop:
            options |= {"stop_strings": list(stops), "tokenizer": self.tokenizer}
        if any(map(_sampled, requests)):
            options["logits_processor"] = LogitsProcessorList(
                [GumbelSampling(requests, self.device)]
            )
        with torch.inference_mode():
            written = self.model.generate(
                input_ids=ids.to(self.device),
                attention_mask=mask.to(self.device),
                max_new_tokens=max(r.expert.sampling.max_tokens for r in requests),
                do_sample=False,
                temperature=None,
                top_p=None,
                top_k=None,
                pad_token_id=self.pad,
                **options,
            )
        rows: list[list[int]] = written[:, width:].tolist()
        return rows

    def response(
        self, request: Request, read: int, tokens: list[int], seconds: float
    ) -> Response:
        limit = request.expert.sampling.max_tokens
        stop_at = next((k for k, t in enumerate(tokens[:limit]) if t in self.eos), None)
        written = tokens[: limit if stop_at is None else stop_at]
        text: str = self.tokenizer.decode(written, skip_special_tokens=True)
        ends = [at for s in request.expert.sampling.stop if (at := text.find(s)) >= 0]
        if ends:
            text = text[: min(ends)]
        stopped = stop_at is not None or bool(ends)
        usage = Usage(read, len(written))
        return Response(text.strip(), usage, "stop" if stopped else "length", seconds)


class GumbelSampling:
    """Sampling as an arg max: adds Gumbel noise to the log-probabilities, request by request.

    The largest of log p + Gumbel(0, 1) noise is a draw from p, so greedy decoding of the noised
    scores samples. Each request has a generator of its own, seeded by its expert's seed and its own
    content: what it draws does not depend on its neighbours in the batch.
    """

    def __init__(self, requests: Sequence[Request], device: str) -> None:
        import torch

        self.sampling = [request.expert.sampling for request in requests]
        self.generators = [
            torch.Generator("cpu").manual_seed(int.from_bytes(request.key()[:7], "little"))
            for request in requests
        ]
        self.device = device

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        import torch

        scores = scores.clone()
        for row, (how, generator) in enumerate(zip(self.sampling, self.generators, strict=True)):
            if how.temperature == 0:
                continue
            logs = torch.log_softmax(scores[row].float() / how.temperature, dim=-1)
            if how.top_p < 1:
                ranked, order = logs.sort(descending=True)
                mass_before = ranked.exp().cumsum(-1) - ranked.exp()
                logs[order[mass_before >= how.top_p]] = -torch.inf
            uniform = torch.rand(logs.shape, generator=generator).clamp_(min=1e-20)
            scores[row] = logs - torch.log(-torch.log(uniform)).to(logs)
        return scores


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


