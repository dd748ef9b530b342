"""What pages and results have in common on a terminal: a graph, a summary, who said what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from swarm.app import tables
from swarm.app.settings import flag
from swarm.app.terminal import one_line, plain

if TYPE_CHECKING:
    from swarm.graphs import AgentGraph
    from swarm.store import RunView


def graph(console: Console, drawn: AgentGraph) -> None:
    """A tree, the end node on top."""
    text = drawn.to_text(ascii_only=not console.encoding.startswith("utf")).rstrip("\n")
    for line in text.splitlines():
        console.print(Text(f"  {plain(line)}"), soft_wrap=True)


def edges(graph: AgentGraph) -> str:
    """A graph on one line: a chain as it flows, anything else as who reads whom."""
    if len(graph.edges) == graph.depth - 1:
        return " → ".join(agent.name for agent in graph.order)
    readers = [agent for agent in graph.order if graph.predecessors(agent.name)]
    return "; ".join(
        f"{agent.name} ← {', '.join(p.name for p in graph.predecessors(agent.name))}"
        for agent in readers
    )


def summary(figures: Mapping[str, Any]) -> dict[str, str]:
    """Figures of an evaluation or a job as they are read best."""
    shown: dict[str, str] = {}
    if (score := figures.get("score")) is not None:
        shown["score"] = f"{score:.3f}"
        if "low" in figures:
            shown["score"] += f"  (95 % between {figures['low']:.3f} and {figures['high']:.3f})"
    if (alone := figures.get("best_single")) is not None:
        shown["best single"] = f"{alone:.3f}"
    for name in _COUNTED:
        if figures.get(name) is not None:
            shown[name] = tables.count(figures[name])
    if "calls" in figures:
        answered, asked = tables.count(figures["calls"]), tables.count(figures["asked"])
        shown["calls"] = f"{answered} answered, {asked} asked of engines"
        if own := figures.get("policy_calls"):
            shown["calls"] += f"; {tables.count(own)} of them by the policy, to choose"
    elif "asked" in figures:
        shown["calls"] = tables.count(figures["asked"])
    if "tokens" in figures:
        shown["tokens"] = tables.count(figures["tokens"])
    if figures.get("shortened"):
        shown["shortened"] = f"{tables.count(figures['shortened'])} prompts"
    if figures.get("cost"):
        shown["cost"] = f"${figures['cost']:.4f}"
    if "seconds" in figures:
        shown["time"] = f"{figures['seconds']:.1f} s"
    if "determinism" in figures:
        shown["determinism"] = str(figures["determinism"])
    if "stopped" in figures:
        shown["stopped by"] = flag(figures["stopped"])
    return shown


_COUNTED = ("questions", "graphs", "iterations", "failures", "evaluations", "traces", "prompts")


def rows(console: Console, found: Sequence[Mapping[str, Any]]) -> None:
    """Figures that all have the same names; what is not true is left empty."""
    table = tables.table(*(f"{name}:" for name in found[0]))
    for row in found:
        table.add_row(*map(_figure, row.values()))
    console.print(table)


def _figure(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else ""
    return f"{value:.3g}" if isinstance(value, float) else tables.value(value)


def policy(described: Mapping[str, Any]) -> dict[str, str]:
    """A policy's name and settings."""
    settings = {key: one_line(tables.value(of), 80) for key, of in described["settings"].items()}
    return {"name": described["name"], **settings, "fingerprint": described["fingerprint"][:16]}


def who(agent: str, expert: str, role: str) -> Text:
    """An agent, and its expert where it is called otherwise."""
    played = f" {plain(expert)} as" if expert != agent else ""
    return Text.assemble((plain(agent), "bold"), f"{played} {plain(role)}")


def said(console: Console, label: str, text: str, style: str = "") -> None:
    """A labelled text, wrapped beside its label."""
    text = plain(text).rstrip("\n")
    room = max(20, console.width - _LABEL - 2)
    lines = Text(text, style).wrap(console, room)
    for number, line in enumerate(lines):
        head = label if number == 0 else ""
        console.print(Text.assemble((f"  {head:<{_LABEL}}", "dim italic"), line), no_wrap=True)


_LABEL = 10
"""Columns of a label."""


def left(what: str, kept: int, of: int) -> str:
    """How much of a response a shortened prompt still holds, in characters."""
    return f"of {what} {f'the last {kept:,}' if kept else 'none'} of {of:,} characters"


def look_further(
    console: Console, run: RunView, store: str, trace: int = 0, *, here: bool = False
) -> None:
    """The commands that show more of `run`; `here` if its page is what is being shown."""
    tables.heading(console, "look further")
    page = {} if here else {f"swarm show {run.id}": "graphs, iterations, failures, settings"}
    commands = {
        **page,
        f"swarm show {run.id} --trace {trace}": "one question, call by call",
        f"swarm show {run.id} --batches": "what the engines were asked",
        f"swarm run {run.id} --question …": "ask the best graph, or the policy, something",
        f"swarm replay {run.id}": "check that all comes out as recorded",
    }
    table = Table.grid(padding=(0, 3))
    for command, purpose in commands.items():
        # Commands are there to be copied: they are never cut.
        table.add_row(Text(f"  {command}{store}", no_wrap=True), Text(purpose, "dim"))
    console.print(table)
