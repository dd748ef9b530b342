"""A job from a file: `job.toml` names the parts of a search, `job.py` makes them."""

from __future__ import annotations

import copy
import importlib.util
import sys
import tomllib
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import typer
from pydantic import Field

from swarm.agents.expert import Pool
from swarm.agents.memory import Memory
from swarm.agents.weights import is_hub_name
from swarm.app.graph_argument import naming
from swarm.app.settings import DEFAULTS, Chosen, choose
from swarm.errors import ConfigError, InputError, TaskError, did_you_mean
from swarm.optimizers import OPTIMIZERS, find_optimizer
from swarm.optimizers.base import Optimizer
from swarm.optimizers.budget import Budget
from swarm.settings_file import Settings, read_settings, shorten
from swarm.store import RunView
from swarm.tasks import Task

LIMITS = ("max_calls", "max_tokens", "max_cost", "max_seconds")
"""The limits of a job: `swarm.optimizers.budget.Budget`."""
FLAGS = ("pool", "task", "split", "limit", "store", "set", "memory", *LIMITS)
"""The settings of a job that are flags, too."""


@dataclass(frozen=True)
class Job:
    """All that `swarm optimize` needs, checked: nothing has been run, no model loaded."""

    optimizer: Optimizer
    pool: Pool
    task: Task
    chosen: Chosen
    """The settings that are flags, too."""
    origins: dict[str, str]
    """Where those of the optimizer's settings came from that are not its defaults."""
    files: dict[str, str]
    """Where job, pool and task were read from: absolute paths."""
    store: str
    """Fit to be kept."""
    budget: Budget

    @property
    def notes(self) -> dict[str, Any]:
        """What is kept with the run beside the optimizer's own settings."""
        defaults = dict.fromkeys(self.optimizer.settings(), "default")
        origins = {**defaults, **self.origins, **self.chosen.origins()}
        for limit in LIMITS:  # which may be another the next time
            origins.pop(limit, None)
        return {"store": self.store, "files": self.files, "from": origins}


class _JobFile(Settings):
    """The shape of a job's TOML file."""

    optimizer: str
    pool: str | None = None
    """Paths are relative to the file."""
    task: str | None = None
    split: str | None = None
    limit: int | None = None
    store: str | None = None
    """A URL, taken as it stands: relative to where the command is run."""
    max_calls: int | None = None
    max_tokens: int | None = None
    max_cost: float | None = None
    max_seconds: float | None = None
    settings: dict[str, Any] = Field(default_factory=dict)
    """The optimizer's."""


@dataclass(frozen=True)
class _Parts:
    """What a file says, of either kind."""

    optimizer: type[Optimizer]
    settings: dict[str, Any]
    values: dict[str, Any]
    """By flag; `pool` and `task` are paths, or what a Python file made itself."""
    made: Optimizer | None = None
    """The optimizer, where the file has made it itself."""


SHORT: dict[str, dict[str, Any]] = {
    "--reference": {"reference": True},
    "--exact": {"memoise": False, "bounds": False},
    "--racing": {"racing": 0.95},
}
"""Flags that are settings of the optimizer."""


def load_job(context: typer.Context, path: Path, short: Sequence[str] = ()) -> Job:
    """The job in `path`, with what flags and environment say put in place of what the file says.

    `short` are the flags of `SHORT` that were given.

    Raises:
        InputError: a key or value that is wrong, in any of the files.
    """
    parts = _read_python(path) if path.suffix == ".py" else _read_toml(path)
    chosen = choose(
        context,
        FLAGS,
        file=parts.values,
        file_name=path.name,
        defaults={**DEFAULTS, "split": "dev"},
    )
    pool, task = _part(path, chosen, "pool"), _part(path, chosen, "task")
    if (limit := chosen.value("limit")) is not None and limit < 1:
        raise ConfigError(f"{chosen.blame('limit')}: `{limit}` must be at least 1")
    check_split(task, chosen)
    within(pool, chosen)
    budget = _budget(chosen, pool)
    overrides = {key: value for flag in short for key, value in SHORT[flag].items()}
    shorthand = {key: flag for flag in short for key in SHORT[flag]}
    overrides |= map(parse_set, chosen.value("set") or ())
    optimizer = _make(parts, overrides, path)
    origins = {
        **dict.fromkeys(parts.settings, path.name),
        **{key: shorthand.get(key) or chosen["set"].origin for key in overrides},
    }
    files = {"job": str(path.resolve())}
    for name in ("pool", "task"):
        if isinstance(value := chosen.value(name), str):
            files[name] = str(Path(value).resolve())
    return Job(optimizer, pool, task, chosen, origins, files, chosen.lasting_store(), budget)


def _budget(chosen: Chosen, pool: Pool) -> Budget:
    limits = {name: chosen.value(name) for name in LIMITS if name in chosen}
    for name, limit in limits.items():
        try:
            Budget(**{name: limit}).check(pool)
        except InputError as error:
            raise ConfigError(f"{chosen.blame(name)}: {error}") from None
    return Budget(**limits)


def parse_set(word: str) -> tuple[str, Any]:
    """``key=value``, with the value as TOML has it; what is not TOML is a text."""
    key, equals, value = word.partition("=")
    if not equals or not key:
        raise InputError(f"`--set {word}`: must be `key=value`, such as `--set particles=20`")
    try:
        return key, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key, value


def load_pool(path: str) -> Pool:
    """The pool in a TOML file; every error names the file."""
    with naming(path):
        return Pool.load(path)


def load_task(path: str) -> Task:
    """The task in a TOML file; every error names the file."""
    with naming(path):
        return Task.load(path)


def within(pool: Pool, chosen: Chosen) -> None:
    """Gives `pool` the memory that was chosen, if any was, in place of its own."""
    if "memory" in chosen:
        try:
            pool.memory = Memory.parse(chosen.value("memory"))
        except InputError as error:
            raise ConfigError(f"{chosen.blame('memory')}: {error}") from None


def check_split(task: Task, chosen: Chosen) -> None:
    """Raises `TaskError` where the task has no such split as was chosen."""
    try:
        task.split(chosen.value("split"))
    except TaskError as error:
        raise TaskError(f"{chosen.blame('split')}: {error}") from None


def remembered(files: Mapping[str, str], part: str) -> Any:
    """The `pool` or `task` of a recorded run, from the files it was made of; None without any.

    Raises:
        InputError: the file is not there any more, or is not what it was.
    """
    if part in files:
        return load_pool(files[part]) if part == "pool" else load_task(files[part])
    if (job := files.get("job", "")).endswith(".py"):
        return _read_python(Path(job)).values[part]
    return None


def task_of(run: RunView, path: str | None) -> tuple[Task | None, list[str]]:
    """The task at `path`, or else the one `run` was made with; if there is none, why not."""
    if path is not None:
        return load_task(path), []
    try:
        task = remembered(run.settings.get("files", {}), "task")
    except InputError as error:
        return None, [f"the task of run {run.id} can't be read: {error}"]
    if task is None:
        return None, [f"run {run.id} does not say where its task is: give `--task`"]
    return task, []


def _read_toml(path: Path) -> _Parts:
    file = read_settings(path, _JobFile)
    if file.optimizer not in OPTIMIZERS:
        raise ConfigError(
            f"`{path}`: key `optimizer`: `{file.optimizer}` is not an optimizer"
            f"{did_you_mean(file.optimizer, OPTIMIZERS)}: use one of "
            f"{', '.join(f'`{name}`' for name in OPTIMIZERS)}"
        )
    values: dict[str, Any] = file.model_dump(exclude={"optimizer", "settings"})
    for part in ("pool", "task"):
        if values[part] is not None:
            values[part] = str(path.parent / values[part])
    optimizer = find_optimizer(file.optimizer)
    return _Parts(optimizer, _located(optimizer, file.settings, path.parent), values)


def _located(
    optimizer: type[Optimizer], settings: Mapping[str, Any], folder: Path
) -> dict[str, Any]:
    """The optimizer's settings, with paths found from `folder`; a hub's name stays as it is."""
    located = copy.deepcopy(dict(settings))
    for path in optimizer.paths:
        *tables, name = path.split(".")
        table: Any = located
        for each in tables:
            table = table.get(each) if isinstance(table, dict) else None
        if isinstance(table, dict) and isinstance(value := table.get(name), str) and value:
            beside = (folder / value).resolve()
            table[name] = str(beside) if beside.exists() or not is_hub_name(value) else value
    return located


def _read_python(path: Path) -> _Parts:
    module = _import(path)
    found: dict[str, Any] = {}
    for name, (kind, rule) in _DEFINED.items():
        found[name] = value = getattr(module, name, None)
        if value is None and name in _NEEDED:
            hint = did_you_mean(name, (known for known in vars(module) if known[0] != "_"))
            raise ConfigError(f"`{path}`: defines no `{name}`{hint}: it must be {rule}")
        if value is not None and not isinstance(value, kind):
            raise ConfigError(f"`{path}`: `{name}` is `{shorten(repr(value))}`: must be {rule}")
    job: Optimizer = found.pop("job")
    return _Parts(type(job), job.given(), found, job)


_DEFINED: dict[str, tuple[type | tuple[type, ...], str]] = {
    "job": (Optimizer, "an optimizer such as `swarm.RoleStep(…)`"),
    "pool": (Pool, "a `swarm.Pool`"),
    "task": (Task, "a `swarm.Task`"),
    "split": (str, "a text"),
    "limit": (int, "a whole number"),
    "store": (str, "a URL"),
    "max_calls": (int, "a whole number"),
    "max_tokens": (int, "a whole number"),
    "max_cost": ((int, float), "a number"),
    "max_seconds": ((int, float), "a number"),
}
"""What a Python file may define."""
_NEEDED = ("job", "pool", "task")


def _import(path: Path) -> ModuleType:
    """Runs `path` as `python path` would: what lies beside it can be imported."""
    if not path.is_file():
        siblings = path.parent.glob("*.py") if path.parent.is_dir() else []
        hint = did_you_mean(path.name, (sibling.name for sibling in siblings))
        raise ConfigError(f"`{path}`: no such file{hint}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.resolve().parent))
    try:
        spec.loader.exec_module(module)
    except InputError as error:
        raise type(error)(f"`{path}`: {error}") from error
    except Exception as error:  # whatever the user's file raises
        trace = traceback.extract_tb(error.__traceback__)
        frames = [frame for frame in trace if frame.filename == spec.origin]
        line = getattr(error, "lineno", None) or (frames[-1].lineno if frames else None)
        where = f"`{path}:{line}`" if line else f"`{path}`"
        raise ConfigError(f"{where}: {type(error).__name__}: {error}") from error
    return module


def _part(path: Path, chosen: Chosen, name: str) -> Any:
    value = chosen.value(name)
    if value is None:
        raise ConfigError(f"`{path}`: key `{name}`: missing: add `{name} = …`, or give `--{name}`")
    if isinstance(value, Pool | Task):
        return value
    try:
        return load_pool(value) if name == "pool" else load_task(value)
    except InputError as error:
        if Path(value).exists():
            raise
        raise type(error)(f"{chosen.blame(name)}: {error}") from None


def _make(parts: _Parts, overrides: Mapping[str, Any], path: Path) -> Optimizer:
    if parts.made is not None and not overrides:
        return parts.made
    try:
        return parts.optimizer(**{**parts.settings, **overrides})
    except InputError as error:
        blamed = [key for key in overrides if f"key `{key}" in str(error)]
        source = f"--set {blamed[0]}={overrides[blamed[0]]}" if blamed else str(path)
        raise type(error)(f"`{source}`: {error}") from None
