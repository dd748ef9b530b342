"""vLLM's core: the process that runs one base model, with its adapters, and how it is started."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
import time
from collections import OrderedDict
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from pydantic import BaseModel, Field, ValidationError, field_validator

from swarm.agents import weights
from swarm.agents.engines.chat_tokenizer import ChatTokenizer
from swarm.agents.engines.checkpoints import weights_folder
from swarm.agents.engines.codec import Codec, first_line
from swarm.agents.engines.vllm_process import end_with_this_process, root_cause, starting
from swarm.agents.messages import Request, Response
from swarm.errors import EngineError, RequestError
from swarm.settings_file import Settings, settings_error

if TYPE_CHECKING:
    from swarm.agents.expert import Expert, Mixture

OURS = frozenset(
    {"model", "tokenizer", "trust_remote_code", "load_format", "enable_lora", "max_cpu_loras"}
)
"""Arguments of vLLM's that no option may change: the engine, and its safety, rest on them."""
GIB = 1 << 30


class VllmOptions(Settings):
    """What an expert of this engine may say under `options`; all experts of one base the same."""

    gpu_memory_utilization: float | None = Field(None, gt=0, le=1)
    """The part of the device's memory that this base may take, weights and KV cache; None: vLLM's
    default. Each base asleep keeps its CUDA context there, which has to fit into the rest."""
    kv_cache: float | None = Field(None, gt=0)
    """GiB for the KV cache; None: what `gpu_memory_utilization` leaves (on a CPU, vLLM's own
    default, or the environment's `VLLM_CPU_KVCACHE_SPACE`)."""
    max_model_len: int | None = Field(None, ge=1)
    """Tokens of a prompt and its answer; None: what the model can hold."""
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    enforce_eager: bool | None = None
    """No compiling: starts sooner, runs slower. None: compile, but not on a CPU."""
    tensor_parallel: int = Field(1, ge=1)
    """Over how many devices the weights are split."""
    max_loras: int = Field(8, ge=1)
    """How many adapters one step may mix; each takes room on the device."""
    args: dict[str, Any] = Field(default_factory=dict)
    """Anything else that vLLM's `EngineArgs` takes, under its name there."""

    @field_validator("args")
    @classmethod
    def _check_args(cls, args: dict[str, Any]) -> dict[str, Any]:
        if taken := sorted(args.keys() & OURS):
            raise ValueError(f"`{taken[0]}` is decided by this engine: leave it out")
        return args

    @classmethod
    def of(cls, expert: Expert, who: str) -> VllmOptions:
        """Those of `expert`, checked; raises `ConfigError`."""
        try:
            return _Checked.model_validate({"options": expert.options}).options
        except ValidationError as error:
            raise settings_error(who.replace("`", ""), error, _Checked) from None


class _Checked(BaseModel):
    """Only there so that messages say ``options.max_loras``."""

    options: VllmOptions


class Plan(NamedTuple):
    """How a core is to be started."""

    options: VllmOptions
    rank: int
    """The largest of the adapters to come; 0: there are none."""

    def covers(self, other: Plan) -> bool:
        """Whether a core started so can do what one started as `other` says could."""
        return self.options == other.options and self.rank >= other.rank


def plan_core(experts: Sequence[Expert]) -> Plan:
    """One for all of them; raises `EngineError` where they want different ones."""
    plans = [_plan_for(expert) for expert in experts]
    for expert, plan in zip(experts, plans, strict=True):
        if plan.options != plans[0].options:
            raise EngineError(
                f"experts `{experts[0].name}` and `{expert.name}` are of one base and have "
                "different `options`: give all experts of a base the same, as in a pool's defaults"
            )
    return Plan(plans[0].options, max(plan.rank for plan in plans))


def _plan_for(expert: Expert) -> Plan:
    rank = 0
    if expert.overlay is not None:
        folder = Path(expert.mixture.folders[0] if expert.mixture else expert.adapter or "")
        with contextlib.suppress(OSError, ValueError, TypeError):  # said when it is loaded
            config = json.loads((folder / "adapter_config.json").read_text())
            rank = max(config.get("r", 1), *(config.get("rank_pattern") or {"": 1}).values())
        rank = max(rank, 1)
    return Plan(VllmOptions.of(expert, f"expert `{expert.name}`"), rank)


class Core:
    """One base in its vLLM core, with the adapters that were asked for.

    All methods run on the engine's loop.
    """

    def __init__(self, expert: Expert, plan: Plan, adapters: int, folder: Path) -> None:
        """Starts it; blocks until it is ready.

        Raises:
            EngineError: it can't be started.
        """
        self.path = expert.model
        self.plan = plan
        self._limit = adapters
        self._folder = folder
        self._adapters: OrderedDict[str, Any] = OrderedDict()
        """`Expert.overlay` → vLLM's `LoRARequest`, least recently used first."""
        self._named = 0
        self._asked = 0
        self._asleep = False
        self._cause: str | None = None
        """Why it is dead."""
        merged = None
        try:
            model = expert.model
            if expert.mixture is not None and expert.mixture.kind == "model":
                model = str(merged := _write(expert.mixture, folder))
            self.codec = _codec(model)
            with starting(folder, offline=Path(model).is_dir()):
                self._engine = _start(model, plan, adapters)
            self.size = weights.size(weights_folder(expert) or Path(model))
            """Bytes of its weights."""
        except Exception as error:  # each of the libraries has its own
            reason = root_cause(folder) or first_line(error)
            raise EngineError(f"`{expert.model}` can't be loaded: {reason}") from error
        finally:
            if merged is not None:  # it is in the core's memory now
                shutil.rmtree(merged)
        self.context = min(self.codec.context, self._engine.model_config.max_model_len)
        end_with_this_process(self)

    async def sleep(self) -> bool:
        """Moves the weights to host memory, where the platform can; else returns False."""
        try:
            if not self._engine.model_config.enable_sleep_mode:
                return False
            await self._call(self._engine.sleep(level=1))
        except Exception:  # it will be ended, and that must not fail for what was wrong with it
            return False
        self._asleep = True
        return True

    async def wake(self) -> bool:
        """Makes it ready if it is not; False: it is dead."""
        if self._engine.errored:
            return False
        try:
            if self._asleep:
                await self._call(self._engine.wake_up())
        except Exception:
            return False
        self._asleep = False
        return True

    def end(self) -> None:
        """Ends the process, and gives back all that it took."""
        self._engine.shutdown(timeout=5.0)
        for overlay in list(self._adapters):
            self._forget(overlay)

    def kill(self) -> None:
        """Ends the process, and leaves all else."""
        for process in self._engine.engine_core.resources.engine_manager.processes:
            process.kill()

    async def answer(self, requests: Sequence[Request]) -> list[Response | EngineError]:
        started = time.perf_counter()
        prompts = self.codec.encode([request.messages for request in requests])
        self.codec.forget_prompts()
        broken = await self._load_adapters({r.expert.overlay: r.expert for r in requests})
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._answer(request, prompt, broken))
                for request, prompt in zip(requests, prompts, strict=True)
            ]
        share = (time.perf_counter() - started) / len(requests)
        answers = (task.result() for task in tasks)
        return [a._replace(seconds=share) if isinstance(a, Response) else a for a in answers]

    async def _answer(
        self, request: Request, prompt: list[int], broken: Mapping[str | None, EngineError]
    ) -> Response | EngineError:
        from vllm.v1.engine.exceptions import EngineDeadError

        overlay, limit = request.expert.overlay, request.expert.sampling.max_tokens
        if overlay in broken:
            return broken[overlay]
        if len(prompt) + limit > self.context:
            return RequestError(
                f"a prompt of {len(prompt)} tokens and `max_tokens` {limit} are more than the "
                f"{self.context} that `{self.path}` can hold: shorten the prompt or lower "
                "`max_tokens`"
            )
        self._asked += 1
        outputs = self._engine.generate(
            {"prompt_token_ids": prompt},
            self._sampling(request),
            f"{id(self)}-{self._asked}",
            lora_request=self._adapters.get(overlay) if overlay is not None else None,
        )
        tokens: list[int] = []
        stopped = False
        try:
            async with contextlib.aclosing(outputs):
                async for output in outputs:
                    [written] = output.outputs
                    tokens += written.token_ids
                    stopped = written.finish_reason == "stop" or self._has_stopped(request, tokens)
                    if stopped:
                        break
        except EngineDeadError:
            return self._died()
        except Exception as error:  # it has several, in several modules
            return RequestError(
                f"vLLM can't answer `{request.expert.name}`: {first_line(error.__cause__ or error)}"
            )
        return self.codec.response(request, len(prompt), tokens, 0.0, stopped=stopped)

    async def _call(self, work: Coroutine[Any, Any, Any]) -> None:
        """`work`, which may not notice if its core dies."""
        task = asyncio.ensure_future(work)
        try:
            while not (await asyncio.wait([task], timeout=1.0))[0]:
                if self._engine.errored:
                    raise self._died()
            task.result()
        finally:
            task.cancel()

    def _died(self) -> EngineError:
        """Every request that was under way is told the same."""
        self._cause = self._cause or root_cause(self._folder) or "it was killed"
        return EngineError(
            f"`{self.path}`: vLLM's process ended ({self._cause}): it is started again when it is "
            "asked next"
        )

    def _has_stopped(self, request: Request, tokens: list[int]) -> bool:
        """Whether one of the stop strings is there that vLLM was not told."""
        watched = self._watched(request)
        return bool(watched) and any(stop in self.codec.text(tokens) for stop in watched)

    @staticmethod
    def _watched(request: Request) -> tuple[str, ...]:
        """The stop strings, if vLLM can't be told them: for vLLM a text may begin with a space that
        is not in the text that an answer is made of."""
        stops = request.expert.sampling.stop
        return stops if any(stop.startswith(" ") for stop in stops) else ()

    def _sampling(self, request: Request) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        how = request.expert.sampling
        watched = bool(self._watched(request))
        told = () if watched else how.stop
        return SamplingParams(
            temperature=how.temperature,
            top_p=how.top_p,
            max_tokens=how.max_tokens,
            stop=list(told) or None,
            stop_token_ids=sorted(self.codec.eos),
            # Each request has a generator of its own, seeded by its expert's seed and its own
            # content: what it draws does not depend on its neighbours in the batch.
            seed=int.from_bytes(request.key()[:7], "little") if how.temperature > 0 else None,
            repetition_penalty=self.codec.repetition_penalty,
            detokenize=bool(told),  # else nobody there looks at the text
            output_kind=RequestOutputKind.DELTA if watched else RequestOutputKind.FINAL_ONLY,
        )

    async def _load_adapters(
        self, experts: Mapping[str | None, Expert]
    ) -> dict[str | None, EngineError]:
        """Loads those that are not; returns what is wrong with those that can't be.

        `experts` are by their `overlay`.
        """
        broken: dict[str | None, EngineError] = {}
        wanted = {overlay: expert for overlay, expert in experts.items() if overlay is not None}
        for overlay in wanted.keys() & self._adapters.keys():
            self._adapters.move_to_end(overlay)
        new = [overlay for overlay in wanted if overlay not in self._adapters]
        while self._adapters and len(self._adapters) + len(new) > max(self._limit, len(wanted)):
            overlay = next(iter(self._adapters))
            with contextlib.suppress(Exception):  # a dead core has none
                await self._call(self._engine.remove_lora(self._adapters[overlay].lora_int_id))
            self._forget(overlay)
        for overlay in new:
            try:
                await self._add_adapter(overlay, wanted[overlay])
            except Exception as error:  # each of the libraries has its own
                expert = wanted[overlay]
                what = f"`{expert.adapter}`" if expert.mixture is None else f"of `{expert.name}`"
                reason = re.sub(r"^.*?Loading lora \w+ failed: ", "", first_line(error))
                reason = re.sub(r"', please check the stack trace above.*", "", reason)
                told = EngineError(f"adapter {what} can't be loaded on `{self.path}`: {reason}")
                broken[overlay] = self._died() if self._engine.errored else told
        return broken

    async def _add_adapter(self, overlay: str, expert: Expert) -> None:
        from vllm.lora.request import LoRARequest

        self._named += 1
        folder = expert.adapter
        if expert.mixture is not None:
            folder = str(_write(expert.mixture, self._folder))
        asked = LoRARequest(f"adapter_{self._named}", self._named, str(folder))
        self._adapters[overlay] = asked
        try:
            await self._call(self._engine.add_lora(asked))
        except BaseException:
            self._forget(overlay)
            raise

    def _forget(self, overlay: str) -> None:
        folder = Path(self._adapters.pop(overlay).lora_path)
        if folder.parent == self._folder:  # a mixture's
            shutil.rmtree(folder, ignore_errors=True)


def _codec(model: str) -> Codec:
    from transformers import AutoConfig, GenerationConfig

    config = AutoConfig.from_pretrained(model, trust_remote_code=False)
    try:
        generation = GenerationConfig.from_pretrained(model)
    except OSError:  # the file is not there
        generation = GenerationConfig.from_model_config(config)
    return Codec(ChatTokenizer.load(model), config, generation)


def _start(model: str, plan: Plan, adapters: int) -> Any:
    from vllm import AsyncEngineArgs
    from vllm.platforms import current_platform
    from vllm.v1.engine.async_llm import AsyncLLM

    options = plan.options
    on_cpu = current_platform.is_cpu()
    eager = on_cpu if options.enforce_eager is None else options.enforce_eager
    dtype = "float32" if on_cpu and options.dtype == "auto" else options.dtype
    settings: dict[str, Any] = {
        "tokenizer": model,
        "trust_remote_code": False,
        "load_format": "safetensors",
        "generation_config": "vllm",  # sampling is said with each request
        "dtype": dtype,
        "max_model_len": options.max_model_len,
        "enforce_eager": eager,
        "tensor_parallel_size": options.tensor_parallel,
        "enable_prefix_caching": True,
        # A part of a prompt draws a token that is dropped, and the request's generator is rewound,
        # which a CPU's can't be: that would end the core (`GPUModelRunner._bookkeeping_sync`).
        "enable_chunked_prefill": not on_cpu,
        "enable_sleep_mode": current_platform.is_sleep_mode_available(),
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
    }
    if options.gpu_memory_utilization is not None:
        settings["gpu_memory_utilization"] = options.gpu_memory_utilization
    if options.kv_cache is not None:
        settings["kv_cache_memory_bytes"] = int(options.kv_cache * GIB)
    if plan.rank:
        settings |= {
            "enable_lora": True,
            "max_loras": min(options.max_loras, adapters),
            "max_cpu_loras": adapters,
            "max_lora_rank": _allowed_rank(plan.rank),
        }
    arguments = AsyncEngineArgs(model=model, **{**settings, **options.args})
    return AsyncLLM.from_engine_args(arguments)


def _allowed_rank(rank: int) -> int:
    """The least that vLLM can be started with for adapters of this rank."""
    from vllm.config.lora import MaxLoRARanks

    allowed: list[int] = sorted(get_args(MaxLoRARanks))
    return next((each for each in allowed if each >= rank), rank)


def _write(mixture: Mixture, folder: Path) -> Path:
    """`mixture` as an ordinary folder, in `folder`."""
    from swarm.agents.merge import check_compatible, export

    path = folder / mixture.digest.hex()[:32]
    export(check_compatible(mixture.folders), mixture.coefficients, path)
    return path
