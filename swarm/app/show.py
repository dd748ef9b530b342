"""How runs, traces and results look on a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from swarm.agents.memory import shown
from swarm.app.documents import in_order, shortened
from swarm.app.page import FIRST
from swarm.app.settings import flag
from swarm.app.terminal import one_line, plain
from swarm.runtime.policy import described_policy
from swarm.runtime.routing import PolicyEvaluation
from swarm.store.loads import Loads, loads, short_names

if TYPE_CHECKING:
    from swarm.app.optimize import Foreseen
    from swarm.app.page import Page
    from swarm.app.run import Scored, ScoredEach
    from swarm.graphs import AgentGraph
    from swarm.optimizers.estimate import Estimate, Plan
    from swarm.optimizers.sweep import Swept
    from swarm.replay import ReplayReport
    from swarm.runtime.system import System, Trace
    from swarm.store import BatchView, CallView, RunView, TraceView

_COLOURS = {"done": "green", "failed": "red", "running": "cyan"}
_ATTENTION = "yellow"


def runs(console: Console, found: Sequence[tuple[RunView, str]]) -> None:
    """The table of `swarm runs`: each run with its status."""
    if not found:
        console.print("no runs yet: swarm run and swarm optimize record them")
        return
    table = _table("run:", "kind", "name", "status", "score:", "questions:", "calls:", "when")
    for run, status in found:
        summary = run.summary or {}
        table.add_row(
            str(run.id),
            run.kind,
            one_line(run.name, 40),
            _status(status),
            _score(summary.get("score")),
            _count(summary.get("questions")),
            _count(summary.get("calls", summary.get("asked", summary.get("prompts")))),
            _when(run.created_at),
        )
    console.print(table)


def page(console: Console, page: Page, store: str) -> None:
    """`swarm show RUN`. `store` is the flag that the suggested commands need, if any."""
    run = page.run
    heading = Text.assemble(
        (f"run {run.id}", "bold"), f" · {run.kind} · {one_line(run.name, 60)} · "
    )
    console.print(heading.append_text(_status(page.status)))
    seconds = (run.updated_at - run.created_at).total_seconds()
    started = f"{_when(run.created_at)} · {seconds:.1f} s · version {run.version}"
    console.print(Text(started, "dim"))
    if run.parent is not None:
        console.print(Text(f"{run.kind} of run {run.parent}", "dim"))
    if run.error:
        console.print(Text(f"error: {one_line(run.error)}", "red"))
    if run.summary:
        _heading(console, "summary")
        _pairs(console, _summary(run.summary))
    if page.policy is not None:
        _heading(console, "policy")
        _pairs(console, _policy(page.policy))
    if page.graph is not None:
        _heading(console, "graph" if len(page.evaluations) == 1 else "best graph")
        graph(console, page.graph)
    if page.iterations:
        _heading(console, "iterations")
        table = _table("#:", "best:", "mean:", "best so far:")
        for iteration in page.iterations:
            scores = (iteration.best, iteration.mean, iteration.best_so_far)
            table.add_row(str(iteration.number), *map(_score, scores))
        console.print(table)
    if len(page.evaluations) > 1 or (page.evaluations and page.policy is not None):
        chosen = page.policy is not None and run.kind == "evaluation"
        count = f"{len(page.evaluations):,}"
        title = f"first of {count} graphs chosen" if chosen else f"best of {count} evaluations"
        _heading(console, title)
        table = _table("score:", "split", "questions:", "where", "graph")
        for evaluation in page.best:
            where = ", ".join(f"{key} {value}" for key, value in evaluation.info.items())
            drawn = one_line(_edges(evaluation.graph), 60)
            counted = _count(evaluation.size)
            score = _score(evaluation.score)
            table.add_row(score, evaluation.split, counted, one_line(where, 40), drawn)
        console.print(table)
    if page.failures:
        _heading(console, f"first of {page.failed:,} questions that failed or score 0")
        _failures(console, page.failures)
    _heading(console, "settings")
    _settings(console, run.settings)
    if page.evaluations:
        first = page.failures[0].number if page.failures else 0
        look_further(console, run, store, first, here=True)


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
    _pairs(console, pairs)
    if asked:
        _heading(console, "asked by the policy")
        for number, call in enumerate(asked, start=1):
            console.print()
            _call(console, number, trace.graph, call)
    _heading(console, "graph")
    graph(console, trace.graph)
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
    table = _table(*names, *(("load s:", "loaded:", "evicted") if any_load else ()))
    for view in found:
        batch = view.batch
        cells = [
            str(view.id),
            str(batch.wave),
            one_line(bases[batch.base], 30),
            one_line(", ".join(batch.experts), 30),
            _count(batch.requests),
            _count(batch.prompt_tokens),
            _count(batch.completion_tokens),
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
    _heading(console, "in all")
    _pairs(console, _loads(taken))
    if taken.prefetched:
        note = "  (*: its weights were read into host memory while the device worked on others)"
        console.print(Text(note, "dim"))


def _loads(taken: Loads) -> dict[str, str]:
    pairs = {
        "batches": f"{_count(taken.batches)} of {_count(taken.requests)} requests, "
        f"{taken.seconds:.2f} s",
        "loads": _count(taken.loads),
    }
    if taken.load_bytes:
        pairs["loads"] += f", {shown(taken.load_bytes)}"
    if taken.loads:
        pairs["loads"] += f", {taken.load_seconds:.2f} s ({taken.share:.0%} of the engines' time)"
    if taken.prefetched:
        pairs["read ahead"] = f"{_count(taken.prefetched)} of {_count(taken.loads)} loads"
    if taken.evictions:
        pairs["evictions"] = f"{_count(taken.evictions)}, {taken.evict_seconds:.2f} s of that"
    return pairs


def answer(console: Console, trace: Trace, *, verbose: bool) -> None:
    """One question's answer; with every agent's response if `verbose`."""
    if verbose:
        for call in (*trace.routing, *trace.calls):
            console.print(_who(call.agent.name, call.agent.expert, call.agent.role))
            _said(console, "response", call.response.text if call.response else f"{call.error}")
            if call.shortened:
                left = [
                    _left(f"response {cut.response}", cut.kept, cut.of) for cut in call.shortened
                ]
                _said(console, "shortened", f"to fit: {', '.join(left)}", _ATTENTION)
        console.print()
    console.print(plain(trace.text or ""), soft_wrap=True)


def result(console: Console, done: Scored, *, verbose: bool) -> None:
    """What an evaluation came to, with the graph, or those that were chosen most, if `verbose`."""
    if verbose and not isinstance(done.evaluation, PolicyEvaluation):
        graph(console, done.evaluation.graph)
        console.print()
    elif verbose and isinstance(done.evaluation, PolicyEvaluation):
        parts = sorted(done.evaluation.parts, key=lambda part: -len(part.rows))
        table = _table("questions:", "score:", "graph")
        for part in parts[:FIRST]:
            drawn = one_line(_edges(part.graph), 60)
            table.add_row(_count(len(part.rows)), _score(part.score), drawn)
        console.print(table)
        console.print()
    _pairs(console, {**_summary(done.evaluation.summary().as_dict()), "run": str(done.run.id)})


def each(console: Console, done: ScoredEach, store: str) -> None:
    """What every expert came to alone."""
    table = _table("expert", "score:", "95 %", "failed:", "tokens:", "USD:")
    for evaluation in done.evaluations:
        summary = evaluation.summary()
        table.add_row(
            one_line(evaluation.graph.agents[0].expert, 40),
            _score(summary.score),
            f"{summary.low:.2f} – {summary.high:.2f}",
            _count(summary.failures),
            _count(summary.tokens),
            f"{summary.cost:.4g}",
        )
    console.print(table)
    _pairs(console, {"questions": _count(len(done.evaluations[0].scores)), "run": str(done.run.id)})
    _heading(console, "look further")
    for command, purpose in {
        f"swarm export {done.run.id} --pool": "a recorded pool, for routers to learn from",
        f"swarm show {done.run.id}": "settings, failures",
    }.items():
        text = Text.assemble(f"  {command}{store}   ", (purpose, "dim"))
        console.print(text, soft_wrap=True)


def found(console: Console, system: System, run: RunView, *, known: bool) -> None:
    """What a job came to; `known` if it had been done before."""
    if known:
        console.print(Text(f"this job was done before, {_when(run.updated_at)}", "dim"))
    if system.fixed:
        graph(console, system.graph)
    else:
        _pairs(console, _policy(described_policy(system.policy)))
    console.print()
    pairs = {**_summary(run.summary or {}), "run": str(run.id)}
    split = run.settings.get("split", "")
    _pairs(console, {f"{split} {k}" if k == "score" else k: text for k, text in pairs.items()})


def go_on(console: Console, stopped: Iterable[RunView], command: str) -> None:
    """How to go on with runs that a limit has stopped."""
    limits = {(run.summary or {}).get("stopped", "") for run in stopped if run.status == "stopped"}
    names = ", ".join(flag(name) for name in sorted(limits))
    console.print()
    console.print(Text(f"stopped by {names}: the best so far is kept; to go on, raise it:", "bold"))
    console.print(Text(f"  {command}", no_wrap=True))


def foreseen(console: Console, foreseen: Foreseen) -> None:
    """What a job will take: at most, and as estimated."""
    most, estimate = foreseen.at_most, foreseen.estimate
    console.print(Text("at most", "bold"))
    jobs = f"{_count(most.jobs)} jobs of " if most.jobs > 1 else ""
    _pairs(
        console,
        {
            "work": f"{jobs}{_count(most.iterations)} iterations × {_count(most.graphs)} graphs × "
            f"{_count(most.agents)} agents × {_count(most.questions)} questions",
            **_amounts(most),
        },
    )
    console.print(
        Text("  (a token a byte of prompt, and `max_tokens` for every response, also read)", "dim")
    )
    if estimate is None:
        return
    took = f"{_count(estimate.sampled_calls)} calls, ${estimate.sampled_cost:.4f}"
    _heading(console, "estimated")
    _pairs(console, {**_amounts(estimate, "about "), "time": f"about {_time(estimate.seconds)}"})
    console.print(
        Text(
            f"  (from {_count(estimate.sampled_questions)} questions through "
            f"{_count(estimate.sampled_graphs)} random graphs: {took}; a search that comes back to "
            "graphs it knows takes less)",
            "dim",
        )
    )


def _amounts(of: Plan | Estimate, about: str = "") -> dict[str, str]:
    return {
        "calls": f"{about}{_count(of.calls)}",
        "tokens": f"{about}{_count(of.prompt_tokens)} read, {_count(of.completion_tokens)} written",
        "cost": f"{about}${of.cost:.4f}" if of.cost else "none: no expert has a price",
    }


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def sweep(console: Console, jobs: Sequence[Swept]) -> None:
    """The table of a sweep, the best job first."""
    drawn = list(jobs[0].settings)
    table = _table("run:", "score:", *(f"{name}:" for name in drawn), "calls:", "status")
    for swept in jobs:
        table.add_row(
            str(swept.run.id),
            _score(swept.score),
            *(f"{swept.settings[name]:g}" for name in drawn),
            _count((swept.run.summary or {}).get("asked")),
            _status(swept.run.status),
        )
    console.print(table)
    console.print(Text("  (calls: asked of engines; what one job was answered, all know)", "dim"))


def report(console: Console, report: ReplayReport) -> None:
    """What a replay has checked, and what it has not."""
    console.print(Text("everything comes out as recorded", "green"))
    pairs = {
        "evaluations": _count(report.evaluations),
        "traces": _count(report.traces),
        "prompts": f"{_count(report.prompts)} the same",
        "scores": f"{_count(report.scores)} the same" if report.scores else "not checked",
        "determinism": report.determinism,
    }
    if report.shortened:
        pairs["prompts"] += f", {_count(report.shortened)} of them shortened"
    _pairs(console, pairs)
    for note in report.notes:
        console.print(Text(f"note: {plain(note)}", _ATTENTION))


def look_further(
    console: Console, run: RunView, store: str, trace: int = 0, *, here: bool = False
) -> None:
    """The commands that show more of `run`; `here` if its page is what is being shown."""
    _heading(console, "look further")
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


def graph(console: Console, graph: AgentGraph) -> None:
    """A tree, the end node on top."""
    drawn = graph.to_text(ascii_only=not console.encoding.startswith("utf")).rstrip("\n")
    for line in drawn.splitlines():
        console.print(Text(f"  {plain(line)}"), soft_wrap=True)


def _call(console: Console, number: int, graph: AgentGraph, call: CallView) -> None:
    heading = Text(f"{number} ").append_text(
        _who(call.agent.name, call.agent.expert, call.agent.role)
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
        _said(console, role, content, "dim")
    if call.shortened is not None:
        _said(console, "shortened", _shortened(graph, call), _ATTENTION)
    _said(console, "response", call.answer.response.text or "(empty)")


def _shortened(graph: AgentGraph, call: CallView) -> str:
    """What is left in a prompt that was shortened, and whose it is."""
    found = shortened(graph, call)
    left = [_left(f"{cut['agent']}'s response", cut["kept"], cut["of"]) for cut in found]
    return f"to fit: {', '.join(left)}" if left else f"{call.shortened}"


def _left(what: str, kept: int, of: int) -> str:
    return f"of {what} {f'the last {kept:,}' if kept else 'none'} of {of:,} characters"


def _who(agent: str, expert: str, role: str) -> Text:
    played = f" {plain(expert)} as" if expert != agent else ""
    return Text.assemble((plain(agent), "bold"), f"{played} {plain(role)}")


def _said(console: Console, label: str, text: str, style: str = "") -> None:
    """A labelled text, wrapped beside its label."""
    text = plain(text).rstrip("\n")
    room = max(20, console.width - _LABEL - 2)
    lines = Text(text, style).wrap(console, room)
    for number, line in enumerate(lines):
        head = label if number == 0 else ""
        console.print(Text.assemble((f"  {head:<{_LABEL}}", "dim italic"), line), no_wrap=True)


_LABEL = 10
"""Columns of a label."""


def _failures(console: Console, failures: Iterable[TraceView]) -> None:
    table = _table("trace:", "question", "expected", "answer")
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
        cells = (one_line(name, 30), one_line(_value(value), 80), one_line(origin, 30))
        table.add_row(Text(f"  {cells[0]}", "dim"), Text(cells[1]), Text(cells[2], "dim"))
    console.print(table)


_NESTED = ("experts", "files", "from", "instructions", "policy")


def _policy(policy: Mapping[str, Any]) -> dict[str, str]:
    """A policy's name and settings."""
    settings = {key: one_line(_value(value), 80) for key, value in policy["settings"].items()}
    return {"name": policy["name"], **settings, "fingerprint": policy["fingerprint"][:16]}


def _summary(summary: Mapping[str, Any]) -> dict[str, str]:
    """Figures of an evaluation or a job as they are read best."""
    shown: dict[str, str] = {}
    if (score := summary.get("score")) is not None:
        shown["score"] = f"{score:.3f}"
        if "low" in summary:
            shown["score"] += f"  (95 % between {summary['low']:.3f} and {summary['high']:.3f})"
    if (alone := summary.get("best_single")) is not None:
        shown["best single"] = f"{alone:.3f}"
    for name in (
        "questions",
        "graphs",
        "iterations",
        "failures",
        "evaluations",
        "traces",
        "prompts",
    ):
        if summary.get(name) is not None:
            shown[name] = _count(summary[name])
    if "calls" in summary:
        answered, asked = _count(summary["calls"]), _count(summary["asked"])
        shown["calls"] = f"{answered} answered, {asked} asked of engines"
        if own := summary.get("policy_calls"):
            shown["calls"] += f"; {_count(own)} of them by the policy, to choose"
    elif "asked" in summary:
        shown["calls"] = _count(summary["asked"])
    if "tokens" in summary:
        shown["tokens"] = _count(summary["tokens"])
    if summary.get("shortened"):
        shown["shortened"] = f"{_count(summary['shortened'])} prompts"
    if summary.get("cost"):
        shown["cost"] = f"${summary['cost']:.4f}"
    if "seconds" in summary:
        shown["time"] = f"{summary['seconds']:.1f} s"
    if "determinism" in summary:
        shown["determinism"] = str(summary["determinism"])
    if "stopped" in summary:
        shown["stopped by"] = flag(summary["stopped"])
    return shown


def _edges(graph: AgentGraph) -> str:
    """A graph on one line: a chain as it flows, anything else as who reads whom."""
    if len(graph.edges) == graph.depth - 1:
        return " → ".join(agent.name for agent in graph.order)
    readers = [agent for agent in graph.order if graph.predecessors(agent.name)]
    return "; ".join(
        f"{agent.name} ← {', '.join(p.name for p in graph.predecessors(agent.name))}"
        for agent in readers
    )


def _heading(console: Console, title: str) -> None:
    console.print()
    console.print(Text(title, "bold"))


def _pairs(console: Console, pairs: Mapping[str, str]) -> None:
    table = Table.grid(padding=(0, 3))
    for name, value in pairs.items():
        table.add_row(Text(f"  {name}", "dim"), Text(plain(value)))
    console.print(table)


def _table(*columns: str) -> Table:
    """Columns whose name ends in a colon hold numbers."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=True, header_style="dim")
    for column in columns:
        number = column.endswith(":")
        table.add_column(column.rstrip(":"), justify="right" if number else "left", no_wrap=number)
    return table


def _status(status: str) -> Text:
    return Text(status, _COLOURS.get(status, _ATTENTION))


def _score(score: float | None) -> str:
    return "–" if score is None else f"{score:.3f}"


def _count(count: int | None) -> str:
    return "–" if count is None else f"{count:,}"


def _when(moment: datetime) -> str:
    return f"{moment.astimezone():%Y-%m-%d %H:%M}"


def _gold(gold: Any) -> str:
    return " | ".join(map(str, gold)) if isinstance(gold, list) else str(gold)


def _value(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "–" if value is None else str(value)
