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
    """The roles that come with the package, by name: those for any task (`agents/roles/*.toml`) and
    a domain's (`agents/roles/math/*.toml`), called `math/modeller`."""
    folder = Path(str(resources.files("swarm.agents.roles")))
    files = [*sorted(folder.glob("*.toml")), *sorted(folder.glob("*/*.toml"))]
    roles = [Role.load(file) for file in files]
    return {role.name: role for role in roles}


def domain_roles(domain: str | None = None) -> list[Role]:
    """The library's roles for a domain: `math`, `commonsense`, `code`; None: those for any task.

    Raises:
        PoolError: the library has no such domain.
    """
    domains = sorted({name.partition("/")[0] for name in library() if "/" in name})
    if domain is not None and domain not in domains:
        raise PoolError(
            f"domain `{domain}` has no roles{did_you_mean(domain, domains)}: "
            f"use one of {', '.join(f'`{each}`' for each in domains)}"
        )
    prefix = "" if domain is None else f"{domain}/"
    return [
        role
        for name, role in library().items()
        if name.startswith(prefix) and ("/" in name) == bool(prefix)
    ]


STEP_BY_STEP = " step by step"
"""Ends the name of a role that is another's, told to think aloud: chain of thought
(arXiv 2201.11903)."""


def find_role(name: str, extra: Mapping[str, Role] | None = None) -> Role:
    """The role called `name`: one of `extra`, else of the library; with ``step by step`` behind it,
    the same role told to think aloud.

    Raises:
        PoolError: there is no such role.
    """
    known = {**library(), **(extra or {})}
    if name not in known and name.endswith(STEP_BY_STEP):
        role = find_role(name.removesuffix(STEP_BY_STEP), extra)
        aloud = f"{role.instructions}Think step by step before you answer, and show each step.\n"
        return role.model_copy(update={"name": name, "instructions": aloud})
    if name not in known:
        raise PoolError(
            f"role `{name}` is not known{did_you_mean(name, known)}: "
            f"use one of {', '.join(f'`{n}`' for n in known)}, or give your own in `roles`"
        )
    return known[name]
