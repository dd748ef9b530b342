"""What works here and what does not, and why: packages, engines, the device, the store."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from swarm.agents.engines import ENGINES
from swarm.agents.expert import Expert
from swarm.errors import EngineError, SwarmError
from swarm.store import Store
from swarm.store.database import parse_url, sqlite_path

if TYPE_CHECKING:
    from rich.console import Console

PACKAGES = {
    "core": ("agent-swarm", "langgraph", "numpy", "pydantic", "pyswarms", "sqlalchemy", "alembic"),
    "local": ("torch", "transformers", "peft", "safetensors"),
    "vllm": ("vllm",),
    "hosted": ("litellm",),
    "plot": ("matplotlib",),
    "data": ("datasets",),
    "postgres": ("psycopg",),
}
"""By what they are for."""
EXTRAS = ("local", "vllm", "plot", "data", "postgres")
"""Those of them that are only installed when asked for."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    name: str
    works: bool
    detail: str

    def document(self) -> dict[str, Any]:
        return {"name": self.name, "works": self.works, "detail": self.detail}


@dataclass(frozen=True)
class Diagnosis:
    """All that was looked at."""

    python: str
    packages: dict[str, str | None]
    """Name → version, None where it is not installed."""
    engines: list[Finding]
    device: Finding
    store: Finding

    @property
    def well(self) -> bool:
        """Whether runs can be recorded here. (A missing engine may not be wanted.)"""
        return self.store.works

    def document(self) -> dict[str, Any]:
        return {
            "python": self.python,
            "packages": self.packages,
            "engines": [finding.document() for finding in self.engines],
            "device": self.device.document(),
            "store": self.store.document(),
        }


def diagnose(store: str) -> Diagnosis:
    """Looks at everything. Nothing is made: not even a store."""
    return Diagnosis(
        python=platform.python_version(),
        packages={name: _version(name) for names in PACKAGES.values() for name in names},
        engines=[_engine(name) for name in ENGINES],
        device=_device(),
        store=_store(store),
    )


def require_engines(experts: Iterable[Expert]) -> None:
    """Raises `SwarmError` where an engine of `experts` can't be used here, or lacks what it needs
    to ask them."""
    experts = list(experts)
    for name in dict.fromkeys(expert.engine for expert in experts):
        finding = _engine(name)
        if not finding.works:
            raise SwarmError(f"the engine `{name}` {finding.detail}")
    for expert in experts:
        ENGINES[expert.engine].load().require(expert)


def _version(package: str) -> str | None:
    for name in (package, f"{package}-cpu"):  # vLLM is built under another name for each device
        with suppress(PackageNotFoundError):
            return version(name)
    return None


def _engine(name: str) -> Finding:
    entry = ENGINES[name]
    try:
        missing = entry.load().unavailable()
    except ImportError as error:
        return Finding(name, False, f"can't be imported: {error}")
    if missing is None:
        try:
            device = entry.load().runs_on()
        except EngineError as error:
            return Finding(name, False, str(error))
        return Finding(name, True, f"{entry.summary} (here: {device})" if device else entry.summary)
    extras = [extra for extra, names in PACKAGES.items() if missing in names and extra in EXTRAS]
    install = f"'agent-swarm[{extras[0]}]'" if extras else missing
    return Finding(name, False, f"needs the package `{missing}`: pip install {install}")


def _device() -> Finding:
    """The one that local models run on."""
    try:
        import torch
    except (ImportError, OSError) as error:  # OSError: a library of a broken installation
        reason = "torch is not installed" if _version("torch") is None else str(error)
        return Finding("none", False, f"no local models: {reason}")
    if torch.cuda.is_available():
        found = torch.cuda.get_device_properties(0)
        count = torch.cuda.device_count()
        more = f" (the first of {count})" if count > 1 else ""
        return Finding("cuda", True, f"{found.name}, {found.total_memory / 2**30:.0f} GiB{more}")
    if torch.backends.mps.is_available():
        return Finding("mps", True, "Apple GPU")
    return Finding("cpu", True, f"no accelerator; {torch.get_num_threads()} threads")


def _store(url: str) -> Finding:
    try:
        path = sqlite_path(parse_url(url))
        if path is not None and not path.exists() and path.parent.is_dir():
            return Finding(url, True, "not there yet: the first run makes it")
        with Store.open(url, create=False, timeout=2) as store:
            latest = store.runs(1)
            return Finding(
                store.url, True, f"opens; the latest run is {latest[0].id}" if latest else "empty"
            )
    except SwarmError as error:
        return Finding(url.partition("://")[0] if "@" in url else url, False, str(error))


def show(console: Console, diagnosis: Diagnosis) -> None:
    """The report of `swarm doctor`."""
    from rich.table import Table
    from rich.text import Text

    from swarm.app.terminal import plain

    def mark(works: bool) -> Text:
        return Text("ok", "green") if works else Text("no", "yellow")

    table = Table.grid(padding=(0, 2))

    def section(title: str) -> None:
        table.add_row("")
        table.add_row(Text(title, "bold"))

    table.add_row(Text("packages", "bold"))
    table.add_row("  python", mark(True), diagnosis.python)
    for purpose, names in PACKAGES.items():
        for name in names:
            found = diagnosis.packages[name]
            missing = Text(f"not installed ({purpose})", "dim")
            table.add_row(f"  {name}", mark(found is not None), found or missing)
    section("engines")
    for engine in diagnosis.engines:
        table.add_row(f"  {engine.name}", mark(engine.works), plain(engine.detail))
    for title, finding in (("device", diagnosis.device), ("store", diagnosis.store)):
        section(title)
        table.add_row(f"  {plain(finding.name)}", mark(finding.works), plain(finding.detail))
    console.print(table)
