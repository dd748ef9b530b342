"""A system as a folder: its graph or policy, its pool, and the weights that were found for it."""

from __future__ import annotations

import json
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from swarm.agents.expert import Expert, Pool
from swarm.agents.mixing import export_expert
from swarm.errors import InputError, SwarmError
from swarm.graphs.graph import AgentGraph
from swarm.runtime.policy import Policy, load_policy
from swarm.runtime.system import System

GRAPH, POOL = "graph.json", "pool.toml"


def export(system: System, folder: str | Path) -> None:
    """Writes ``graph.json``, ``pool.toml`` and, for every expert whose weights are a mixture,
    ``experts/NAME``: an ordinary adapter or model folder. Whole or not at all. A policy that
    chooses graphs is written as ``policy.json`` and ``policy.safetensors`` instead.

    ``swarm run FOLDER/graph.json --pool FOLDER/pool.toml`` runs it, or ``swarm run FOLDER …`` where
    there is a policy, and `load` reads it. Weights that are in folders
    already stay where they are, and the pool names these folders.

    Raises:
        InputError: `folder` is there already, or an expert is a Python function.
        PoolError: weights that are to be mixed have changed or gone.
        SwarmError: it can't be written (disk full); nothing is left behind.
    """
    folder = Path(folder).resolve()
    if folder.exists():
        raise InputError(f"`{folder}` is already there: a system needs a new folder")
    names = system.graph.experts if system.fixed else system.policy.experts
    experts = [system.pool[name] for name in dict.fromkeys(names)]
    for expert in experts:
        if expert.script is not None:
            raise InputError(
                f"expert `{expert.name}` is a Python function, which can't be written to a file"
            )
        if expert.recorded is not None and expert.model.startswith("recording:"):
            raise InputError(
                f"expert `{expert.name}` is a recording in memory: save it (`Recording.save`) and "
                f'name the file in a pool, as in `model = "saved.jsonl.gz:{expert.recorded.model}"`'
            )
    unfinished = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
    try:
        unfinished.mkdir(parents=True)
        if not system.fixed:
            system.policy.save(unfinished)
        written = [_weights(expert, unfinished, k) for k, expert in enumerate(experts, start=1)]
        roles = [role.model_dump() for role in {**system.pool.roles, **system.roles}.values()]
        lines = [f"name = {_toml(system.pool.name)}"]
        for expert in written:
            lines += ["", "[[experts]]", *_table(expert.model_dump(exclude_defaults=True))]
        for role in roles:
            lines += ["", "[[roles]]", *_table(role)]
        (unfinished / POOL).write_text("\n".join(lines) + "\n", encoding="utf-8")
        if system.fixed:
            graph = system.graph.to_json(indent=2)
            (unfinished / GRAPH).write_text(graph + "\n", encoding="utf-8")
        unfinished.rename(folder)
    except BaseException as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        # An expert's weights were to go to a place that is not called what it was to be called.
        reason = error.__cause__ if type(error) is SwarmError else error
        if reason is not error or isinstance(error, OSError):
            raise SwarmError(
                f"`{folder}` can't be written ({reason}): make room there or choose another "
                "folder; nothing was left behind"
            ) from error
        raise


def load(folder: Path, pool: Pool | None = None) -> tuple[AgentGraph | Policy, Pool]:
    """What `export` has written to `folder`; the pool is `pool`, if one is given.

    Raises:
        InputError: there is none, or it can't be read.
    """
    pool = Pool.load(folder / POOL) if pool is None else pool
    graph = folder / GRAPH
    if graph.is_file():
        return AgentGraph.from_json(graph.read_bytes()), pool
    return load_policy(folder), pool


def _weights(expert: Expert, folder: Path, number: int) -> Expert:
    """`expert` as the pool's file shall have it."""
    if expert.mixture is None:
        return expert
    # A name is any text, and must neither leave the folder nor be another's.
    fit = re.fullmatch(r"[\w@+-][\w@+.-]*", expert.name)
    place = f"experts/{expert.name if fit else number}"
    (folder / "experts").mkdir(exist_ok=True)
    kind = expert.mixture.kind
    export_expert(expert, str(folder / place))
    return expert.model_copy(update={"mixture": None, kind: place})


def _table(fields: Mapping[str, Any]) -> Iterator[str]:
    for key, value in fields.items():
        if value is not None:
            yield f"{_key(key)} = {_toml(value)}"


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _toml(key)


def _toml(value: Any) -> str:
    """A value as TOML has it, inline."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(k)} = {_toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    # TOML's strings escape as JSON's do, but for DEL, which JSON leaves alone.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
