"""How runs, traces and batches that were recorded look on a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from swarm.agents.memory import shown
from swarm.app import parts, tables
from swarm.app.documents import in_order, shortened
from swarm.app.terminal import one_line
from swarm.store.loads import Loads, loads, short_names

if TYPE_CHECKING:
    from swarm.app.page import Page
    from swarm.graphs import AgentGraph
    from swarm.store import BatchView, CallView, RunView, TraceView


def runs(console: Console, found: Sequence[tuple[RunView, str]]) -> None:
    """The table of `swarm runs`: each run with its status."""
    if not found:
        console.print("no runs yet: swarm run and swarm optimize record them")
        return
    table = tables.table("run:", "kind", "name", "status", "score:", "questions:", "calls:", "when")
    for run, status in found:
        summary = run.summary or {}
        table.add_row(
            str(run.id),
            run.kind,
            one_line(run.name, 40),
            tables.status(status),
            tables.score(summary.get("score")),
            tables.count(summary.get("questions")),
            tables.count(summary.get("calls", summary.get("asked", summary.get("prompts")))),
            tables.when(run.created_at),
        )
    console.print(table)


def page(console: Console, page: Page, store: str) -> None:
    """`swarm show RUN`. `store` is the flag that the suggested commands need, if any."""
    run = page.run
    heading = Text.assemble(
        (f"run {run.id}", "bold"), f" · {run.kind} · {one_line(run.name, 60)} · "
    )
    console.print(heading.append_text(tables.status(page.status)))
    seconds = (run.updated_at - run.created_at).total_seconds()
    started = f"{tables.when(run.created_at)} · {seconds:.1f} s · version {run.version}"
    console.print(Text(started, "dim"))
    if run.parent is not None:
        console.print(Text(f"{run.kind} of run {run.parent}", "dim"))
    if run.error:
        console.print(Text(f"error: {one_line(run.error)}", "red"))
    if run.summary:
        tables.heading(console, "summary")
        tables.pairs(console, parts.summary(run.summary))
    if page.policy is not None:
        tables.heading(console, "policy")
        tables.pairs(console, parts.policy(page.policy))
    if page.graph is not None:
        tables.heading(console, "graph" if len(page.evaluations) == 1 else "best graph")
        parts.graph(console, page.graph)
    if page.iterations:
        tables.heading(console, "iterations")
        table = tables.table("#:", "best:", "mean:", "best so far:")
        for iteration in page.iterations:
            scores = (iteration.best, iteration.mean, iteration.best_so_far)
            table.add_row(str(iteration.number), *map(tables.score, scores))
        console.print(table)
    if learning := (run.summary or {}).get("learning"):
        tables.heading(console, "learning")
        parts.rows(console, learning)
    if len(page.evaluations) > 1 or (page.evaluations and page.policy is not None):
        chosen = page.policy is not None and run.kind == "evaluation"
        count = f"{len(page.evaluations):,}"
        title = f"first of {count} graphs chosen" if chosen else f"best of {count} evaluations"
        tables.heading(console, title)
        table = tables.table("score:", "split", "questions:", "where", "graph")
        for evaluation in page.best:
            where = ", ".join(f"{key} {value}" for key, value in evaluation.info.items())
            drawn = one_line(parts.edges(evaluation.graph), 60)
            counted = tables.count(evaluation.size)
            score = tables.score(evaluation.score)
            table.add_row(score, evaluation.split, counted, one_line(where, 40), drawn)
        console.print(table)
    if page.failures:
        tables.heading(console, f"first of {page.failed:,} questions that failed or score 0")
        _failures(console, page.failures)
    tables.heading(console, "settings")
    _settings(console, run.settings)
    if page.evaluations:
        first = page.failures[0].number if page.failures else 0
        parts.look_further(console, run, store, first, here=True)


def trace(console: Console, trace: TraceView, asked: Sequence[CallView] = ()) -> None:
    """`swarm show RUN --trace N`: the graph, and every call; before that, what a policy asked."""
    example = one_line(trace.question.example_id, 40)
    console.print(
        Text.assemble((f"run {trace.run} · trace {trace.number}", "bold"), f" · question {example}")
    )
    pairs = {
        "question": trace.question.question,
        "expected": _gold(trace.question.gold),
        "answer": "–" if trace.answer is None else trace.answer,
        "score": f"{trace.score:g}",
    }
    if trace.error:
        pairs["error"] = trace.error
    tables.pairs(console, pairs)
    if asked:
        tables.heading(console, "asked by the policy")
        for number, call in enumerate(asked, start=1):
            console.print()
            _call(console, number, trace.graph, call)
    tables.heading(console, "graph")
    parts.graph(console, trace.graph)
    for number, call in enumerate(in_order(trace), start=1):
        console.print()
        _call(console, number, trace.graph, call)


def batches(console: Console, found: Sequence[BatchView]) -> None:
    """`swarm show RUN --batches`: every engine call."""
    if not found:
        console.print("no batches: every answer was known before")
        return
    bases = short_names(base for view in found for base in (view.batch.base, *view.batch.evicted))
    names = ("batch:", "wave:", "base", "experts", "requests:", "in:", "out:", "seconds:")
    any_load = any(view.batch.loaded or view.batch.evicted for view in found)
    table = tables.table(*names, *(("load s:", "loaded:", "evicted") if any_load else ()))
    for view in found:
        batch = view.batch
        cells = [
            str(view.id),
            str(batch.wave),
            one_line(bases[batch.base], 30),
            one_line(", ".join(batch.experts), 30),
            tables.count(batch.requests),
            tables.count(batch.prompt_tokens),
            tables.count(batch.completion_tokens),
            f"{batch.seconds:.2f}",
        ]
        if any_load:
            ahead = "*" if batch.prefetched else ""
            size = shown(batch.load_bytes) if batch.load_bytes else ("yes" if batch.loaded else "")
            cells += [
                f"{batch.load_seconds:.2f}{ahead}" if batch.loaded or batch.evicted else "",
                size,
                one_line(", ".join(bases[base] for base in batch.evicted), 30),
            ]
        table.add_row(*cells)
    console.print(table)
    taken = loads(found)
    tables.heading(console, "in all")
    tables.pairs(console, _loads(taken))
    if taken.prefetched:
        note = "  (*: its weights were read into host memory while the device worked on others)"
        console.print(Text(note, "dim"))


def _loads(taken: Loads) -> dict[str, str]:
    pairs = {
        "batches": f"{tables.count(taken.batches)} of {tables.count(taken.requests)} requests, "
        f"{taken.seconds:.2f} s",
        "loads": tables.count(taken.loads),
    }
    if taken.load_bytes:
        pairs["loads"] += f", {shown(taken.load_bytes)}"
    if taken.loads:
        pairs["loads"] += f", {taken.load_seconds:.2f} s ({taken.share:.0%} of the engines' time)"
    if taken.prefetched:
        pairs["read ahead"] = (
            f"{tables.count(taken.prefetched)} of {tables.count(taken.loads)} loads"
        )
    if taken.evictions:
        pairs["evictions"] = f"{tables.count(taken.evictions)}, {taken.evict_seconds:.2f} s of that"
    return pairs


def _call(console: Console, number: int, graph: AgentGraph, call: CallView) -> None:
    heading = Text(f"{number} ").append_text(
        parts.who(call.agent.name, call.agent.expert, call.agent.role)
    )
    if call.answer is None:
        why = call.error or "not asked, since a call before it failed"
        console.print(heading.append(f" · {one_line(why)}", "red"))
        return
    usage, seconds = call.answer.response.usage, call.answer.response.seconds
    known = "known before" if call.cached else f"asked in batch {call.answer.batch}"
    cut = " · cut at max_tokens" if call.answer.response.finish == "length" else ""
    figures = (
        f" · {usage.prompt_tokens} tokens in, {usage.completion_tokens} out · "
        f"{seconds * 1000:.1f} ms · {known}{cut}"
    )
    console.print(heading.append(figures, "dim"))
    for role, content in call.answer.messages:
        parts.said(console, role, content, "dim")
    if call.shortened is not None:
        parts.said(console, "shortened", _shortened(graph, call), tables.ATTENTION)
    parts.said(console, "response", call.answer.response.text or "(empty)")


def _shortened(graph: AgentGraph, call: CallView) -> str:
    """What is left in a prompt that was shortened, and whose it is."""
    found = shortened(graph, call)
    left = [parts.left(f"{cut['agent']}'s response", cut["kept"], cut["of"]) for cut in found]
    return f"to fit: {', '.join(left)}" if left else f"{call.shortened}"


def _failures(console: Console, failures: Iterable[TraceView]) -> None:
    table = tables.table("trace:", "question", "expected", "answer")
    for failure in failures:
        if failure.error:
            said = Text(one_line(failure.error, 60), "red")
        else:
            said = Text("–" if failure.answer is None else one_line(failure.answer, 60))
        question, gold = failure.question.question, _gold(failure.question.gold)
        table.add_row(str(failure.number), one_line(question, 60), one_line(gold, 20), said)
    console.print(table)


def _settings(console: Console, settings: Mapping[str, Any]) -> None:
    origins = settings.get("from", {})
    rows = {name: value for name, value in settings.items() if name not in _NESTED}
    if (experts := settings.get("experts")) is not None:
        rows["experts"] = ", ".join(experts)
    if instructions := settings.get("instructions"):
        rows["own roles"] = ", ".join(instructions)
    rows |= {f"{name} file": path for name, path in settings.get("files", {}).items()}
    table = Table.grid(padding=(0, 3))
    for name, value in rows.items():
        origin = origins.get(name.removesuffix(" file"), "")
        cells = (one_line(name, 30), one_line(tables.value(value), 80), one_line(origin, 30))
        table.add_row(Text(f"  {cells[0]}", "dim"), Text(cells[1]), Text(cells[2], "dim"))
    console.print(table)


_NESTED = ("experts", "files", "from", "instructions", "policy")


def _gold(gold: Any) -> str:
    return " | ".join(map(str, gold)) if isinstance(gold, list) else str(gold)
