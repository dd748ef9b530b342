"""Servers that a pool file describes, and what an expert that one of them serves is asked by."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, ValidationError, field_validator

from swarm.agents import standing, weights
from swarm.errors import ConfigError, PoolError, did_you_mean
from swarm.settings_file import Settings, settings_error

if TYPE_CHECKING:
    from swarm.agents.expert import Expert

OURS = {
    "--host": "servers listen on 127.0.0.1 only",
    "--port": "give `port`",
    "--model": "give `model`",
    "--served-model-name": "that is the server's `name`",
    "--enable-lora": "it is, where an expert has an `adapter`",
    "--lora-modules": "give experts an `adapter`",
    "--api-key": 'set VLLM_API_KEY where it runs, and give experts `key = "VLLM_API_KEY"`',
}  # fmt: skip
"""Flags that are not for `args`, and what to do instead."""


class Server(Settings):
    """A ``[[servers]]`` table: one base, served with all adapters that experts want of it."""

    name: str = Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$", max_length=100)
    model: str = Field(min_length=1)
    """The base: a folder, relative to the file, or the name of a model on a hub."""
    port: int = Field(0, ge=0, le=65535)
    """0: one is chosen, and stays."""
    memory: float | str | None = None
    """The share of its devices that it may use (above 0, up to 1), or the size of its KV cache
    ("20GiB"). None: servers on one device share it evenly."""
    devices: tuple[int | str, ...] = ()
    """The GPUs it runs on, as CUDA numbers them; several share the model (tensor parallel)."""
    args: tuple[str, ...] = ()
    """More flags for vLLM, as it is typed: ``["--max-model-len", "4096"]``."""
    env: dict[str, str] = Field(default_factory=dict)
    """More environment variables. Kept in no file; a secret is better set where it runs."""
    python: str | None = None
    """The interpreter that has vLLM; None: the one that runs this."""
    command: tuple[str, ...] = ()
    """In place of vLLM. ``{port}``, ``{model}`` and ``{name}`` are filled in; without ``{port}``
    it gets vLLM's flags."""
    health: str = Field("/health", pattern="^/")
    """The path that answers 200 when it is well."""
    start_timeout: float = Field(900.0, gt=0)
    """Seconds that it may take to start."""
    health_timeout: float = Field(60.0, gt=0)
    """Seconds without a healthy answer after which it is started again."""

    @field_validator("devices", mode="before")
    @classmethod
    def _one_device(cls, value: object) -> object:
        return (value,) if isinstance(value, int | str) else value

    @field_validator("memory")
    @classmethod
    def _check_memory(cls, value: float | str | None) -> float | str | None:
        if isinstance(value, str):
            size(value)
        elif value is not None and not 0 < value <= 1:
            raise ValueError(
                'must be a share above 0 and up to 1, or a size such as "20GiB" (of the KV cache)'
            )
        return value

    @property
    def by_itself(self) -> bool:
        """Whether `command` is all there is to it: it gets no flags, and takes no adapters."""
        return any("{port}" in word for word in self.command)

    @property
    def flags(self) -> tuple[str, ...]:
        """What is said of how it answers, weights apart."""
        return (*self.command, *self.args)


def size(text: str) -> int:
    """Bytes of ``20GiB``, ``500 MB``. Raises `ValueError`."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT])(i?)B", text.strip())
    if found is None or not float(found[1]):
        raise ValueError('must be a size such as "20GiB" or "500MB", or a share as a number')
    power = "KMGT".index(found[2]) + 1
    return int(float(found[1]) * (1024 if found[3] else 1000) ** power)


class Served(Settings):
    """What stands behind an expert that a server of the pool serves (`options.served`).

    It takes the place of address and model name in the expert's fingerprint: a cache never answers
    for other weights, and moving to another port forgets nothing.
    """

    pool: str
    """The file that describes the server."""
    server: str
    model: str
    adapter: str | None = None
    flags: tuple[str, ...] = ()

    @classmethod
    def of(cls, expert: Expert) -> Served | None:
        """That of `expert`, None where it is not served so."""
        given = expert.options.get("served") if expert.engine == "server" else None
        try:
            return None if given is None else cls.model_validate(given)
        except ValidationError:  # the engine says what is wrong with it
            return None

    @property
    def digest(self) -> bytes:
        """32 bytes: base, adapter, and the flags that the server runs with."""
        digest = hashlib.blake2b(json.dumps(self.flags).encode(), digest_size=32)
        for part in (self.model, self.adapter):
            if part is not None and Path(part).is_dir():
                digest.update(b"\0folder\0" + weights.folder_digest(Path(part)))
            else:
                digest.update(b"\0name\0" + (part or "").encode())
        return digest.digest()

    def supervision(self) -> tuple[str | None, bool]:
        """What is to be known of a server that does not answer: why it will not unless somebody
        does something about it, and what (None: it will); whether it is being started again."""
        state = standing.current(standing.place(Path(self.pool)))
        why = self._why_down(state)
        server = state.server(self.server) if state is not None else None
        phase = server.phase if server is not None else None
        return why, why is None and phase in ("waiting", "starting", "restarting")

    def _why_down(self, state: standing.PoolStanding | None) -> str | None:
        where = f"its server `{self.server}`"
        if state is None:
            return f"{where} is not up: `swarm pool up {self.pool}`"
        again = f"`swarm pool down {self.pool}`, then `swarm pool up {self.pool}`"
        server = state.server(self.server)
        if server is None:
            return f"{where} is not among those that are up: {again}"
        if server.phase == "failed":
            return f"{where} has given up ({server.note}; see `{server.log}`): {again}"
        if state.failure is not None or server.phase == "stopping":
            return f"{where} is being stopped: `swarm pool up {self.pool}`"
        return None


_BELIEVED = 0.5
"""Seconds for which a server that is up is taken to be up."""
_up: dict[Served, float] = {}


def require_up(expert: Expert) -> None:
    """Raises `PoolError` unless the server of `expert`, if it is one of a pool's own, is up (or on
    its way), and serves what the expert's folders hold now."""
    served = Served.of(expert)
    if served is None or time.monotonic() - _up.get(served, -_BELIEVED) < _BELIEVED:
        return
    who = f"expert `{expert.name}`"
    why, _ = served.supervision()
    if why is not None:
        raise PoolError(f"{who}: {why}")
    state = standing.current(standing.place(Path(served.pool)))
    server = state.server(served.server) if state else None
    if server is not None:
        again = f"`swarm pool down {served.pool}`, then `swarm pool up {served.pool}`"
        name = expert.model.partition("/")[2]
        if server.serves.get(name) != served.digest.hex():
            raise PoolError(
                f"{who}: its server `{served.server}` was started before its weights or the pool "
                f"file were changed: {again}"
            )
        if expert.options.get("url") != url(server.port):
            raise PoolError(
                f"{who}: its server `{served.server}` has moved to port {server.port}: "
                "load the pool again"
            )
    _up[served] = time.monotonic()


def url(port: int) -> str:
    """The address of a server of this machine."""
    return f"http://127.0.0.1:{port}/v1"


class ServedExperts:
    """Turns what a pool file says of experts into what the engine `server` asks.

    An expert with the engine `server` and `options.server`, or that names nothing else where there
    is only one server, is served by it: its adapter under a name of its own, else the base.
    """

    def __init__(self, file: Path, servers: Sequence[Server]) -> None:
        """Checks the servers.

        Raises:
            ConfigError: two of one name or port.
            PoolError: a base that is not there.
        """
        self._file = file
        self._servers: dict[str, Server] = {}
        self._models: dict[str, str] = {}
        self._names: dict[tuple[str, str], str] = {}
        """(server, adapter folder) → served name."""
        ports: dict[int, str] = {}
        for server in servers:
            who = f"`{file}`: server `{server.name}`"
            if server.name in self._servers:
                raise ConfigError(f"{who}: there are two of this name: rename one")
            if server.port and server.port in ports:
                raise ConfigError(
                    f"{who}: key `port`: {server.port} is that of server "
                    f"`{ports[server.port]}`: give another, or none"
                )
            ports[server.port] = server.name
            self._servers[server.name] = server
            self._models[server.name] = self._base(server, who)

    def _base(self, server: Server, who: str) -> str:
        folder = self._file.parent / Path(server.model).expanduser()
        if server.by_itself:  # which may call it what it likes
            return str(folder.resolve()) if folder.exists() else server.model
        # A folder that is there and lacks the model is a mistake, not the name of an organisation.
        if weights.is_hub_name(server.model) and not folder.parent.is_dir():
            return server.model
        weights.check_model(folder, who)
        return str(folder.resolve())

    def entry(self, entry: Mapping[str, Any], where: str) -> dict[str, Any]:
        """What an expert's table comes to; anything that no server serves stays as it is.

        Raises:
            ConfigError: a server that is not there or doesn't fit.
            PoolError: an adapter that is not there or doesn't fit.
        """
        options = entry.get("options", {})
        if entry.get("engine") != "server" or not isinstance(options, dict):
            return dict(entry)
        server = self._server(entry, options, where)
        if server is None:
            return dict(entry)
        model, adapter = entry.get("model"), entry.get("adapter")
        if model not in (None, server.model, self._models[server.name]):
            raise ConfigError(
                f"{where}: key `model`: `{model}` is not the base of server `{server.name}` "
                f"(`{server.model}`): leave `model` out, or name another server"
            )
        if adapter is not None and not isinstance(adapter, str):
            raise ConfigError(f"{where}: key `adapter`: `{adapter!r}` must be a string")
        name, folder = server.name, None
        if adapter is not None:
            folder = str((self._file.parent / Path(adapter).expanduser()).resolve())
            self._check_adapter(server, folder, where)
            name = self._name(server, folder)
        served = Served(
            pool=str(self._file.resolve()),
            server=server.name,
            model=self._models[server.name],
            adapter=folder,
            flags=server.flags,
        )
        kept = {key: value for key, value in options.items() if key != "server"}
        return {
            **{key: value for key, value in entry.items() if key != "adapter"},
            "model": f"openai/{name}",
            "options": {
                **kept,
                "url": url(server.port or standing.port_of(self._file, server.name)),
                "served": served.model_dump(mode="json"),
            },
        }

    def _server(
        self, entry: Mapping[str, Any], options: Mapping[str, Any], where: str
    ) -> Server | None:
        name = options.get("server")
        if name is None:
            if len(self._servers) != 1 or "url" in options:
                return None
            [server] = self._servers.values()
            own = (None, server.model, self._models[server.name])
            return server if "adapter" in entry or entry.get("model") in own else None
        where = f"{where}: key `options.server`"
        if name not in self._servers:
            known = ", ".join(f"`{known}`" for known in self._servers)
            raise ConfigError(
                f"{where}: there is no server `{name}`{did_you_mean(str(name), self._servers)}: "
                + (f"the file has {known}" if known else "add a `[[servers]]` table of this name")
            )
        if "url" in options:
            raise ConfigError(f"{where}: there is a `url`, too: give one of them")
        return self._servers[name]

    def _check_adapter(self, server: Server, folder: str, where: str) -> None:
        if server.by_itself:
            raise ConfigError(
                f"{where}: key `adapter`: server `{server.name}` has a `command` of its own, which "
                "can't be told of adapters: let it serve the adapter, or use vLLM"
            )
        base = self._models[server.name]
        weights.check_adapter(Path(folder), Path(base) if Path(base).is_dir() else None, where)

    def _name(self, server: Server, folder: str) -> str:
        """What an adapter is served as: its folder's name, if no other is."""
        found = self._names.get((server.name, folder))
        if found is None:
            plain = re.sub(r"[^A-Za-z0-9_.-]", "_", Path(folder).name) or "adapter"
            taken = {server.name} | {
                name for (of, _), name in self._names.items() if of == server.name
            }
            found, k = plain, 1
            while found in taken:
                k += 1
                found = f"{plain}-{k}"
            self._names[server.name, folder] = found
        return found


def server_tables(tables: Sequence[dict[str, Any]], file: Path) -> list[Server]:
    """The ``[[servers]]`` of a file, checked; messages name the server where it has a name.

    Raises:
        ConfigError: a key or value that is wrong.
    """
    servers = []
    for i, table in enumerate(tables):
        where = f"{file}: server {i + 1}"
        if isinstance(name := table.get("name"), str):
            where += f" ({name})"
        try:
            server = Server.model_validate(table)
        except ValidationError as error:
            raise settings_error(where, error, Server) from None
        if problem := _problem(server):
            raise ConfigError(f"`{where}`: {problem}")
        servers.append(server)
    return servers


def _problem(server: Server) -> str | None:
    """What is wrong between keys. Flags and variables may hold secrets: no value is shown."""
    for arg in server.args:
        name = arg.partition("=")[0].replace("_", "-")
        if name in OURS:
            return f"key `args`: `{name}` can't be given here: {OURS[name]}"
    if server.command and server.python:
        return "has a `python` and a `command`: give one of them"
    if server.by_itself and server.args:
        return "key `args` is for vLLM: put them into `command`"
    return None
