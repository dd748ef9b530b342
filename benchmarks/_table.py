"""How every benchmark is called and how it reports: one table, or the same as one JSON object.

A benchmark measures and hands over a headline (the few figures it is run for) and rows (what they
are made of). Nothing else may be written to stdout.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


def arguments(description: str) -> argparse.ArgumentParser:
    """A parser with the options all benchmarks have: `--json` and `--out`."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", action="store_true", help="print one JSON object, no table")
    parser.add_argument("--out", type=Path, metavar="PATH", help="write the JSON to a file, too")
    return parser


def report(
    headline: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    options: argparse.Namespace,
    *,
    by: str | None = None,
) -> None:
    """Print what was measured, as `options` (from `arguments`) ask for it.

    Values are JSON values; floats are shown with four significant digits in the table.

    Args:
        by: a key of the rows: those that differ in it get tables of their own.
    """
    result = {"headline": dict(headline), "rows": [dict(row) for row in rows], "machine": machine()}
    text = json.dumps(result, indent=2, ensure_ascii=False)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text + "\n", encoding="utf-8")
    if options.json:
        print(text)
        return
    parts: dict[Any, list[Mapping[str, Any]]] = {}
    for row in rows:
        parts.setdefault(row[by] if by else None, []).append(row)
    for i, part in enumerate(parts.values(), 1):
        _print_table(headline if i == len(parts) else {}, part)


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "platform": platform.platform(),
    }


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _print_table(headline: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    caption = ", ".join(f"{name} {_shown(value)}" for name, value in headline.items())
    table = Table(caption=caption, caption_justify="left")
    for name in columns:
        numeric = all(isinstance(row.get(name, 0), int | float) for row in rows)
        table.add_column(name, justify="right" if numeric else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(_shown(row.get(name, "")) for name in columns))
    # Piped, there is no terminal whose width would matter: nothing is cut or wrapped.
    console = Console()
    if not console.is_terminal:
        console = Console(width=1000)
    console.print(table)


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
