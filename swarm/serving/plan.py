"""A pool file becomes command lines: one a server, with ports, memory and adapters filled in."""

from __future__ import annotations

import json
import socket
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from swarm.agents import standing
from swarm.agents.expert import Pool
from swarm.agents.served import Served, Server, server_tables, size
from swarm.errors import ConfigError, PoolError
from swarm.settings_file import read_settings

HELD = 3
"""The supervisor's exit code where another one already has the place."""
VLLM = ("-m", "vllm.entrypoints.openai.api_server")
"""vLLM's server, of whichever interpreter. (`vllm serve` asks for the version of a package called
`vllm`, which the build for CPUs is not.)"""
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes as ``--max-lora-rank``."""
MOST_LORAS = 8
"""How many adapters one batch of vLLM may mix, unless `args` say so: each takes memory."""
SHARED = 0.9
"""The share of a device that its servers have together, unless they say so: vLLM's own default."""


class Launch(BaseModel):
    """How one server is started, and known to be well."""

    model_config = ConfigDict(frozen=True)

    name: str
    model: str
    argv: tuple[str, ...]
    env: dict[str, str]
    """Beside what the process that starts it has."""
    cwd: str
    port: int
    health: str
    start_timeout: float
    health_timeout: float
    adapters: dict[str, str]
    """Served name → folder."""
    served: dict[str, Served]
    """Served name → what stands behind it."""
    lists_models: bool
    """Whether ``/v1/models`` must name all of `served` (of vLLM, which it is known of)."""
    devices: tuple[str, ...]
    """Of those with one in common, one starts after the other: each measures the free memory."""
    log: str


class Patience(BaseModel):
    """When a server is started again, and when no more. Times are seconds."""

    model_config = ConfigDict(frozen=True)

    backoff: float = 1.0
    """Before the second start in a row that fails; then it doubles. The first is at once."""
    longest: float = 60.0
    starts: int = 5
    """Starts that fail in a row."""
    deaths: int = 10
    """Deaths within `window`, however well it was in between."""
    window: float = 1800.0
    probe: float = 2.0
    """Between two looks at its health."""
    grace: float = 20.0
    """That it has to end by itself."""


class Plan(BaseModel):
    """All that is to be started for a pool file."""

    model_config = ConfigDict(frozen=True)

    pool: str
    name: str
    place: str
    servers: tuple[Launch, ...]
    patience: Patience = Patience()


class _Servers(BaseModel):
    """The part of a pool file that is of interest here; the rest has been checked."""

    name: str = "pool"
    servers: list[dict[str, Any]] = Field(default_factory=list)


def plan(path: Path) -> Plan:
    """What `swarm pool up` starts, with everything checked that can be before.

    Ports that were not given are those they would have now; see `with_free_ports`.

    Raises:
        ConfigError: the file has a key or value that is wrong, or no servers.
        PoolError: a base or an adapter that is not there or does not fit.
    """
    pool = Pool.load(path)
    file = read_settings(path, _Servers)
    tables = server_tables(file.servers, path)
    if not tables:
        raise ConfigError(f"`{path}` has no `[[servers]]`: there is nothing to start")
    behind: dict[str, dict[str, Served]] = defaultdict(dict)
    for expert in pool.values():
        served = Served.of(expert)
        if served is not None and served.pool == str(path.resolve()):
            behind[served.server][expert.model.partition("/")[2]] = served
    shares = _shares(tables, path)
    here = standing.place(path)
    launches = [_launch(server, path, behind[server.name], shares, here) for server in tables]
    return Plan(pool=str(path.resolve()), name=file.name, place=str(here), servers=tuple(launches))


def _shares(tables: Sequence[Server], path: Path) -> dict[str, float | None]:
    """Server → share of its devices: its own, or what the others on a device leave it."""
    together: dict[str, list[Server]] = defaultdict(list)
    for server in tables:
        for device in _devices(server):
            together[device].append(server)
    shares = {s.name: s.memory if isinstance(s.memory, float) else None for s in tables}
    for device, servers in together.items():
        taken = sum(shares[server.name] or 0.0 for server in servers)
        if taken > 1.0 + 1e-9:
            names = ", ".join(f"`{server.name}`" for server in servers)
            raise ConfigError(
                f"`{path}`: key `memory`: servers {names} want {taken:g} of device {device}: "
                "their shares must come to 1 at most"
            )
        open_ = [s for s in servers if s.memory is None and not s.by_itself]
        left = max(SHARED, taken) - taken
        if open_ and len(servers) > 1 and left < 0.02:
            raise ConfigError(
                f"`{path}`: server `{open_[0].name}`: nothing is left of device {device}: "
                "give all of its servers a share as `memory`"
            )
        for server in open_ if len(servers) > 1 else ():
            share = int(100 * left / len(open_)) / 100
            shares[server.name] = min(share, shares[server.name] or 1.0)
    return shares


def _devices(server: Server) -> tuple[str, ...]:
    return tuple(map(str, server.devices)) or ("default",)


def _launch(
    server: Server,
    path: Path,
    behind: dict[str, Served],
    shares: dict[str, float | None],
    here: Path,
) -> Launch:
    port = server.port or standing.port_of(path, server.name)
    flags = {key: value for name, of in behind.items() for key, value in [(name, of.adapter)]}
    adapters = {name: folder for name, folder in flags.items() if folder is not None}
    model = next((of.model for of in behind.values()), None) or _model(server, path)
    served = {
        server.name: Served(
            pool=str(path.resolve()), server=server.name, model=model, flags=server.flags
        ),
        **behind,
    }
    filled = {"port": str(port), "model": model, "name": server.name}
    argv = [_fill(word, filled) for word in server.command]
    if argv and "/" in argv[0]:
        argv[0] = _beside(path, argv[0])
    if not argv:
        python = _beside(path, server.python) if server.python else sys.executable
        argv = [python, *VLLM]
    if not server.by_itself:
        argv += ["--model", model]
    if not server.by_itself:
        argv += _vllm_flags(server, port, adapters, shares[server.name], path)
    env = dict(server.env)
    if server.devices:
        env["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, server.devices))
    return Launch(
        name=server.name,
        model=model,
        argv=tuple(argv),
        env=env,
        cwd=str(path.resolve().parent),
        port=port,
        health=server.health,
        start_timeout=server.start_timeout,
        health_timeout=server.health_timeout,
        adapters=adapters,
        served=served,
        lists_models=not server.by_itself,
        devices=_devices(server),
        log=str(here / "logs" / f"{server.name}.log"),
    )


def _model(server: Server, path: Path) -> str:
    folder = path.parent / Path(server.model).expanduser()
    return str(folder.resolve()) if folder.is_dir() else server.model


def _beside(path: Path, program: str) -> str:
    """A path relative to the file; not resolved: a virtual environment's python is a link."""
    return str(path.resolve().parent / Path(program).expanduser())


def _fill(word: str, values: dict[str, str]) -> str:
    for name, value in values.items():
        word = word.replace(f"{{{name}}}", value)
    return word


def _vllm_flags(
    server: Server, port: int, adapters: dict[str, str], share: float | None, path: Path
) -> list[str]:
    given = {arg.partition("=")[0].replace("_", "-") for arg in server.args}
    flags = ["--host", "127.0.0.1", "--port", str(port), "--served-model-name", server.name]

    def default(flag: str, value: object) -> None:
        if flag not in given:
            flags.extend([flag, str(value)])

    if isinstance(server.memory, str):
        default("--kv-cache-memory-bytes", size(server.memory))
    elif share is not None:
        default("--gpu-memory-utilization", share)
    if len(server.devices) > 1:
        default("--tensor-parallel-size", len(server.devices))
    if adapters:
        flags += ["--enable-lora", "--lora-modules"]
        flags += [
            json.dumps({"name": name, "path": folder, "base_model_name": server.name})
            for name, folder in adapters.items()
        ]
        default("--max-lora-rank", _rank(adapters.values(), server, path))
        default("--max-loras", min(len(adapters), MOST_LORAS))
        default("--max-cpu-loras", len(adapters))
    return [*flags, *server.args]


def _rank(folders: Iterable[str], server: Server, path: Path) -> int:
    """What vLLM must make room for: the highest rank of any layer of any adapter."""
    highest = 1
    for folder in folders:
        config = json.loads((Path(folder) / "adapter_config.json").read_text())
        ranks = [config.get("r"), *(config.get("rank_pattern") or {}).values()]
        highest = max([highest, *(rank for rank in ranks if isinstance(rank, int))])
        if highest > RANKS[-1]:
            raise PoolError(
                f"`{path}`: server `{server.name}`: adapter `{folder}` has rank {highest}: "
                f"vLLM takes {RANKS[-1]} at most"
            )
    return next(rank for rank in RANKS if rank >= highest)


def with_free_ports(path: Path) -> Plan:
    """The plan with ports that are free now. Those that were chosen for it are remembered.

    Raises:
        ConfigError: a port that the file gives is taken by somebody else.
    """
    first = plan(path)
    tables = {
        table.name: table for table in server_tables(read_settings(path, _Servers).servers, path)
    }
    chosen: dict[str, int] = {}
    fixed = {table.port for table in tables.values()}
    for launch in first.servers:
        port = tables[launch.name].port
        if port:
            if not is_free(port):
                raise ConfigError(
                    f"`{path}`: server `{launch.name}`: key `port`: {port} is taken by another "
                    "program: stop that, give another, or leave `port` out and one is chosen"
                )
            continue
        port = launch.port
        while port in fixed or not is_free(port):
            port = standing.FIRST_PORT + (port + 1 - standing.FIRST_PORT) % standing.PORTS
        fixed.add(port)
        chosen[launch.name] = port
    if chosen:
        standing.remember_ports(path, chosen)
    return plan(path)


def is_free(port: int) -> bool:
    """Whether a server could listen on it."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
