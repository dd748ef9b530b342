"""Who answers: an expert is a callable model, a pool is the experts a system may use."""

from __future__ import annotations

import functools
import hashlib
import json
import math
import re
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import CodeType, FunctionType
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    model_validator,
)

from swarm.agents import weights
from swarm.agents.engines import ENGINES, engine_names
from swarm.agents.messages import Messages, Usage
from swarm.agents.prompt import STYLES, PromptStyle
from swarm.agents.role import Role
from swarm.errors import ConfigError, PoolError, did_you_mean
from swarm.settings_file import read_settings, settings_error

if TYPE_CHECKING:
    from swarm.agents.engines.recorded import Source
    from swarm.agents.recording import Recording

Script = Callable[[Messages], str]
"""What a scripted expert is: the messages of one request → the text of its answer."""


class Sampling(BaseModel):
    """How an expert's tokens are chosen."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    temperature: float = Field(0.0, ge=0, le=10)
    """0 is greedy decoding."""
    top_p: float = Field(1.0, gt=0, le=1)
    max_tokens: int = Field(256, ge=1)
    stop: tuple[str, ...] = ()
    """The text ends before the first of these."""
    seed: int = 0


class Price(BaseModel):
    """USD per million tokens."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: float = Field(0.0, ge=0)
    output: float = Field(0.0, ge=0)

    def of(self, usage: Usage) -> float:
        """USD for this many tokens."""
        return (self.input * usage.prompt_tokens + self.output * usage.completion_tokens) / 1e6


class Mixture(BaseModel):
    """Weights that are others' sum: sum over k of c_k * w_k, entry by entry.

    They exist in memory only, from when an engine is asked for them (see `swarm.agents.merge`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["adapter", "model"]
    """What the folders hold."""
    folders: tuple[str, ...] = Field(min_length=1)
    coefficients: tuple[float, ...]
    """c, one a folder; not all 0."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.coefficients) != len(self.folders):
            raise ValueError(
                f"{len(self.coefficients)} coefficients for {len(self.folders)} folders"
            )
        if not all(map(math.isfinite, self.coefficients)) or not any(self.coefficients):
            raise ValueError("coefficients must be finite, and not all 0")
        return self

    @functools.cached_property
    def digest(self) -> bytes:
        """32 bytes: the folders' contents and the coefficients."""
        digest = hashlib.blake2b(digest_size=32)
        for folder, c in zip(self.folders, self.coefficients, strict=True):
            # + 0.0 makes -0.0 the 0.0 that it equals.
            digest.update(weights.folder_digest(Path(folder)) + struct.pack("<d", c + 0.0))
        return digest.digest()


class Expert(BaseModel):
    """A callable model: engine + base model + optional LoRA adapter + sampling + price."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=200)
    engine: str = "transformers"
    model: str = Field(min_length=1)
    """A folder, or the name of a model on a hub."""
    adapter: str | None = None
    """The folder of a LoRA adapter for `model`."""
    mixture: Mixture | None = None
    """In place of `adapter`, or of the weights of `model`: a mixture of several."""
    prompt: Literal["chat", "compact"] = "chat"
    description: str = ""
    sampling: Sampling = Sampling()
    price: Price = Price()
    """In a pool, that of a hosted model is its list price unless it is given."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Whatever else the engine understands."""

    _script: Script | None = PrivateAttr(None)
    _recorded: Source | None = PrivateAttr(None)

    @classmethod
    def scripted(cls, name: str, script: Script | Mapping[str, str], **settings: Any) -> Expert:
        """An expert for tests and dry runs: a function of the messages, or a table by user prompt.

        A prompt that is not in the table is answered with an empty text.
        """
        if callable(script):
            function, identity = script, _identity(script)
        else:
            table = dict(script)
            function = functools.partial(_look_up, table)
            identity = json.dumps(table, sort_keys=True)
        # The name is part of it: two experts with one script may hide what tells them apart.
        content = f"{name}\0{identity}".encode("utf-8", "surrogatepass")
        digest = hashlib.blake2b(content, digest_size=8).hexdigest()
        expert = cls(name=name, engine="scripted", model=f"script:{digest}", **settings)
        expert._script = function
        return expert

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy. Unlike pydantic's, an updated one is checked, and fingerprinted anew."""
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        copy = type(self)(**{**fields, **(update or {})})
        copy._script = self._script
        if copy.model == self.model:
            copy._recorded = self._recorded
        return copy

    @property
    def script(self) -> Script | None:
        """The function behind a scripted expert."""
        return self._script

    @functools.cached_property
    def recorded(self) -> Source | None:
        """The recording behind a recorded expert, and whose answers it gives.

        Raises:
            ConfigError: it is in a file that can't be read or is no recording.
        """
        if self.engine != "recorded" or self._recorded is not None:
            return self._recorded
        from swarm.agents.engines.recorded import open_source

        return open_source(self.model, self.options.get("scale"))

    @property
    def style(self) -> PromptStyle:
        return STYLES[self.prompt]

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.mixture is not None and self.adapter is not None:
            raise ValueError("has an adapter and a mixture: give one of them")
        return self

    @functools.cached_property
    def base(self) -> str:
        """What must be resident to ask this expert: experts with one base share batches."""
        if self.mixture is not None and self.mixture.kind == "model":
            return f"{self.engine}:{self.model}+{self.mixture.digest.hex()[:32]}"
        return f"{self.engine}:{self.model}"

    @functools.cached_property
    def overlay(self) -> str | None:
        """What an engine lays over the base for this expert: the folder of an adapter, or the name
        of a mixture of adapters; None: nothing."""
        if self.mixture is not None and self.mixture.kind == "adapter":
            return f"mixture:{self.mixture.digest.hex()}"
        return self.adapter

    @functools.cached_property
    def fingerprint(self) -> bytes:
        """32 bytes: all that decides what this expert answers, its weights included.

        Name, description, price, prompt style and how it is reached (keys, limits) are left out:
        they change no answer to given messages.
        """
        config = self.model_dump(mode="json", exclude=_NOT_ASKED)
        engine = ENGINES.get(self.engine)
        for option in engine.sending if engine else ():
            config["options"].pop(option, None)
        digest = hashlib.blake2b(json.dumps(config, sort_keys=True).encode(), digest_size=32)
        if (source := self.recorded) is not None:
            digest.update(b"\0recording\0" + source.recording.digest + source.model.encode())
            return digest.digest()
        for part in (self.model, self.adapter):
            folder = Path(part) if part else None
            if folder and (engine is None or engine.reads_weights) and folder.is_dir():
                digest.update(b"\0folder\0" + weights.folder_digest(folder))
            else:
                digest.update(b"\0name\0" + (part or "").encode())
        if self.mixture is not None:
            digest.update(b"\0mixture\0" + self.mixture.digest)
        return digest.digest()


_NOT_ASKED = {"name", "description", "price", "prompt", "model", "adapter", "mixture"}
"""Fields that change no answer to given messages, or are in a fingerprint by their content."""


def _look_up(table: Mapping[str, str], messages: Messages) -> str:
    return table.get(messages[-1].content, "")


def _identity(value: object) -> str:
    """Changes when a script does (its code, defaults, or what it closes over), so that a store
    never answers for an older one; the same in every process."""
    if isinstance(value, CodeType):
        constants = ",".join(map(_identity, value.co_consts))
        return f"{value.co_code.hex()}({constants}){value.co_names}"
    if isinstance(value, FunctionType):
        inside = (value.__code__, value.__defaults__, value.__kwdefaults__, *_closed_over(value))
        return f"{value.__module__}.{value.__qualname__}({','.join(map(_identity, inside))})"
    if isinstance(value, functools.partial):
        return f"partial({_identity((value.func, value.args, value.keywords))})"
    if isinstance(value, tuple | list):
        return f"[{','.join(map(_identity, value))}]"
    if isinstance(value, set | frozenset):  # which has another order in another process
        return f"{{{','.join(sorted(map(_identity, value)))}}}"
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{k!r}:{_identity(v)}' for k, v in value.items())}}}"
    # The default repr holds an address, which says nothing in another process.
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def _closed_over(function: FunctionType) -> Iterator[object]:
    """Local functions by their code only: they may close over one another."""
    for cell in function.__closure__ or ():
        try:
            value = cell.cell_contents
        except ValueError:  # empty until it is assigned
            continue
        yield value.__code__ if isinstance(value, FunctionType) else value


class _PoolFile(BaseModel):
    """The shape of a pool's TOML file."""

    model_config = ConfigDict(extra="forbid")

    name: str = "pool"
    defaults: dict[str, Any] = Field(default_factory=dict)
    """Any key of an expert, for those that do not give it themselves."""
    experts: list[dict[str, Any]]
    roles: list[Role] = Field(default_factory=list)


class Pool(Mapping[str, Expert]):
    """The experts a system may use, by name, in order."""

    def __init__(
        self, experts: Iterable[Expert], *, name: str = "pool", roles: Iterable[Role] = ()
    ) -> None:
        """Checks what can be checked without loading a model.

        Raises:
            PoolError: no experts, two (or two roles) of one name, an unknown engine, weights that
                are missing or made for another base.
        """
        self.name = name
        self.roles: dict[str, Role] = {}
        for role in roles:
            if role.name in self.roles:
                raise PoolError(f"pool `{name}`: two roles are called `{role.name}`: rename one")
            self.roles[role.name] = role
        self._experts: dict[str, Expert] = {}
        for expert in experts:
            if expert.name in self._experts:
                raise PoolError(
                    f"pool `{name}`: two experts are called `{expert.name}`: rename one"
                )
            self._experts[expert.name] = expert
        if not self._experts:
            raise PoolError(f"pool `{name}` has no experts: give at least one")
        for expert in list(self._experts.values()):
            check_expert(expert, f"pool `{name}`: expert `{expert.name}`")
            self._experts[expert.name] = _priced(expert)

    @classmethod
    def load(cls, path: str | Path) -> Pool:
        """A pool from a TOML file; its paths are relative to the file.

        Raises:
            ConfigError: the file can't be read or has a key or value that is wrong.
            PoolError: see `Pool`.
        """
        path = Path(path)
        file = read_settings(path, _PoolFile)
        experts = []
        for i, entry in enumerate(file.experts):
            merged = {**file.defaults, **entry}
            for table in ("sampling", "price", "options"):
                tables = [given[table] for given in (file.defaults, entry) if table in given]
                if all(isinstance(each, dict) for each in tables):
                    merged[table] = {k: v for each in tables for k, v in each.items()}
            experts.append(_expert(merged, f"{path}: expert {i + 1}", path.parent))
        try:
            return cls(experts, name=file.name, roles=file.roles)
        except (ConfigError, PoolError) as error:
            raise type(error)(f"`{path}`: {error}") from None

    @classmethod
    def recorded(
        cls,
        recording: Recording,
        *,
        models: Iterable[str] | None = None,
        name: str = "recorded",
        **settings: Any,
    ) -> Pool:
        """The models of a recording as experts that answer its questions, and no others.

        See `swarm.agents.engines.recorded`. `models`: only these, in this order. `settings` go to
        every expert: `sampling`, `prompt`, `price` (else it is what the recorded costs come to).
        """
        from swarm.agents.engines.recorded import Source

        if models is not None:
            models = [recording.models[recording.model(each)] for each in models]
        experts = []
        for model in recording.models if models is None else models:
            place = f"recording:{recording.digest.hex()[:16]}:{model}"
            expert = Expert(name=model, engine="recorded", model=place, **settings)
            expert._recorded = Source(recording, model)
            experts.append(expert)
        return cls(experts, name=name)

    def __getitem__(self, name: str) -> Expert:
        try:
            return self._experts[name]
        except KeyError:
            raise PoolError(
                f"expert `{name}` is not in pool `{self.name}`{did_you_mean(name, self._experts)}: "
                f"it has {', '.join(f'`{n}`' for n in self._experts)}"
            ) from None

    def __contains__(self, name: object) -> bool:
        return name in self._experts

    def __iter__(self) -> Iterator[str]:
        return iter(self._experts)

    def __len__(self) -> int:
        return len(self._experts)

    def __repr__(self) -> str:
        return f"Pool({', '.join(self)})"

    def subset(self, *names: str) -> Pool:
        """A pool of these experts, in this order."""
        return Pool((self[name] for name in names), name=self.name, roles=self.roles.values())

    @property
    def fingerprint(self) -> bytes:
        """32 bytes: the experts, their names and order."""
        digest = hashlib.blake2b(digest_size=32)
        for name, expert in self._experts.items():
            digest.update(name.encode() + b"\0" + expert.fingerprint)
        return digest.digest()


def check_expert(expert: Expert, who: str) -> None:
    """Raises `PoolError` where the expert can't be what it says, without loading it, and
    `ConfigError` for options that its engine does not know."""
    if expert.engine not in ENGINES:
        raise PoolError(
            f"{who}: key `engine`: `{expert.engine}` is not an engine"
            f"{did_you_mean(expert.engine, ENGINES)}: use one of {engine_names()}"
        )
    ENGINES[expert.engine].load().check(expert, who)
    if not ENGINES[expert.engine].reads_weights:
        return
    base = None if weights.is_hub_name(expert.model) else Path(expert.model)
    if base is not None:
        weights.check_model(base, who)
    if expert.adapter is not None:
        weights.check_adapter(Path(expert.adapter), base, who)
    if expert.mixture is not None:
        for folder in map(Path, expert.mixture.folders):
            if expert.mixture.kind == "adapter":
                weights.check_adapter(folder, base, who)
            else:
                weights.check_model(folder, who)


def _priced(expert: Expert) -> Expert:
    """With its engine's list price, if it says none itself."""
    if "price" in expert.model_fields_set:
        return expert
    listed = ENGINES[expert.engine].load().list_price(expert)
    if listed is None:
        return expert
    return expert.model_copy(update={"price": Price(input=listed[0], output=listed[1])})


def _expert(entry: dict[str, Any], where: str, folder: Path) -> Expert:
    """One expert of a pool file; `where` names it until its own name is known to be good."""
    if isinstance(name := entry.get("name"), str):
        where = f"{where} (`{name}`)"
    try:
        expert = Expert.model_validate(entry)
    except ValidationError as error:
        raise settings_error(where.replace("`", ""), error, Expert) from None
    if expert.engine == "scripted":
        return Expert.scripted(
            script=_load_script(expert.model, folder, where),
            **expert.model_dump(exclude={"engine", "model"}),
        )
    if expert.engine == "recorded":
        return expert.model_copy(update={"model": str((folder / expert.model).resolve())})
    if expert.engine in ENGINES and not ENGINES[expert.engine].reads_weights:
        return expert
    places: dict[str, str] = {}
    for key in ("model", "adapter"):
        value = getattr(expert, key)
        if value is not None and not (key == "model" and not _is_path(value, folder)):
            places[key] = str((folder / Path(value).expanduser()).resolve())
    return expert.model_copy(update=places)


def _is_path(model: str, folder: Path) -> bool:
    # A folder that is there and lacks the model is a mistake, not the name of an organisation.
    return (folder / model).parent.is_dir() or not weights.is_hub_name(model)


def _load_script(model: str, folder: Path, where: str) -> Script | dict[str, str]:
    """`table.json` or `file.py:function`, relative to the pool's file."""
    path, _, function = model.partition(":")
    file = folder / path
    where = f"{where}: key `model`"
    if not file.is_file():
        raise ConfigError(
            f"{where}: `{model}`: there is no file `{file}`: "
            "a scripted expert is `table.json` or `file.py:function`"
        )
    if not function:
        try:
            table = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ConfigError(f"{where}: `{file}` is not JSON ({error})") from None
        if not isinstance(table, dict):
            raise ConfigError(f"{where}: `{file}` must hold an object prompt → answer")
        return {str(k): str(v) for k, v in table.items()}
    from importlib import util

    spec = util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{where}: `{file}` is no Python file: its name must end in .py")
    module = util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever the user's file raises
        problem = f"{type(error).__name__}: {error}"
        raise ConfigError(f"{where}: `{file}` can't be imported: {problem}") from error
    script = getattr(module, function, None)
    if not callable(script):
        raise ConfigError(f"{where}: `{file}` has no function `{function}`")
    return script  # type: ignore[no-any-return]
