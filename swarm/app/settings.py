"""Which setting counts, and where it came from: flag > environment variable > file > default."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import typer

from swarm.errors import StoreURLError

DEFAULTS: Mapping[str, Any] = {"store": "sqlite:///swarm.db"}

LAST_RUN = 2**31 - 1
"""No store counts further."""

FLAG = "flag"
ENVIRONMENT = "env"
DEFAULT = "default"


def flag(name: str) -> str:
    """The flag of a setting: ``--max-calls`` of `max_calls`."""
    return f"--{name.replace('_', '-')}"


class Setting(NamedTuple):
    """One setting as it was resolved."""

    value: Any
    origin: str
    """``flag``, ``env SWARM_POOL``, the name of a file, or ``default``."""


class Chosen(dict[str, Setting]):
    """All settings of one command, by the names of their flags."""

    def value(self, name: str) -> Any:
        """None where it was given nowhere and has no default."""
        return self[name].value if name in self else None

    def origins(self) -> dict[str, str]:
        """As it is kept with a run."""
        return {name: setting.origin for name, setting in self.items()}

    def given(self, name: str) -> bool:
        """Whether it came with the command, by flag or environment: not from a file."""
        return name in self and self[name].origin.split()[0] in (FLAG, ENVIRONMENT)

    def blame(self, name: str) -> str:
        """Where `name` was given, as an error about its value begins."""
        origin = self[name].origin
        if origin in (FLAG, DEFAULT):
            return f"`{flag(name)}`"
        return f"`SWARM_{name.upper()}`" if self.given(name) else f"`{origin}`: key `{name}`"

    def command(self, *words: str) -> str:
        """The command line that gives these settings again, wherever the same files are."""
        for name in self:
            if self.given(name):
                values = self.value(name)
                for value in values if isinstance(values, list) else [values]:
                    words = (*words, flag(name), str(value))
        return shlex.join(["swarm", *words])

    def store_flag(self) -> str:
        """What a suggested command needs to find the store again, with a blank before it.

        Nothing, where the next command finds it by itself.
        """
        found = self["store"].origin.split()[0] in (DEFAULT, ENVIRONMENT)
        return "" if found else f" --store {shlex.quote(self.value('store'))}"

    def lasting_store(self) -> str:
        """The store's URL, fit to be kept: without a password.

        Raises `StoreURLError` for a store that would be gone with the command.
        """
        from swarm.store.database import parse_url, sqlite_path

        url = parse_url(self.value("store"))
        if url.get_backend_name() == "sqlite" and sqlite_path(url) is None:
            raise StoreURLError(
                f"{self.blame('store')}: `{self.value('store')}` is in memory, and gone when the "
                "command ends: give a file, such as `swarm.db`"
            )
        return url.render_as_string()


def choose(
    context: typer.Context,
    names: Iterable[str],
    *,
    file: Mapping[str, Any] | None = None,
    file_name: str = "",
    defaults: Mapping[str, Any] = DEFAULTS,
) -> Chosen:
    """Resolves the settings `names`, which are parameters of the command.

    `file` holds what a file says of them, `file_name` is what it is called. Typer has already put
    flags before environment variables; each flag ``--a-name`` has the variable ``SWARM_A_NAME``.
    """
    chosen = Chosen()
    for name in names:
        # A parameter whose name Python has already taken ends in an underscore.
        parameter = name if name in context.params else f"{name}_"
        value = context.params.get(parameter)
        if isinstance(value, tuple):  # of an option that may be repeated, in some versions of typer
            value = list(value)
        if value is not None and value != []:
            source = context.get_parameter_source(parameter)
            by_flag = source is None or source.name == "COMMANDLINE"
            origin = FLAG if by_flag else f"{ENVIRONMENT} SWARM_{name.upper()}"
            chosen[name] = Setting(value, origin)
        elif file is not None and file.get(name) is not None:
            chosen[name] = Setting(file[name], file_name)
        elif name in defaults:
            chosen[name] = Setting(defaults[name], DEFAULT)
    return chosen
