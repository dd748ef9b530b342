"""What an agent is told to be: a name and instructions; and a small library of them."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from swarm.errors import PoolError, did_you_mean
from swarm.settings_file import read_settings


class Role(BaseModel):
    """A role that any expert can play."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    description: str = ""
    """One line for people, and for routers that choose roles by their meaning."""
    instructions: str = ""
    """The system message. Empty: none is sent."""

    @classmethod
    def load(cls, path: str | Path) -> Role:
        """A role from a TOML file with `name`, `description` and `instructions`."""
        return read_settings(Path(path), cls)


@functools.cache
def library() -> Mapping[str, Role]:
    """The roles that come with the package, by name (`agents/roles/*.toml`)."""
    folder = resources.files("swarm.agents.roles")
    files = sorted(f.name for f in folder.iterdir() if f.name.endswith(".toml"))
    roles = [Role.load(Path(str(folder / name))) for name in files]
    return {role.name: role for role in roles}


def find_role(name: str, extra: Mapping[str, Role] | None = None) -> Role:
    """The role called `name`: one of `extra`, else of the library.

    Raises:
        PoolError: there is no such role.
    """
    known = {**library(), **(extra or {})}
    if name not in known:
        raise PoolError(
            f"role `{name}` is not known{did_you_mean(name, known)}: "
            f"use one of {', '.join(f'`{n}`' for n in known)}, or give your own in `roles`"
        )
    return known[name]
