"""How what a command has just come to looks on a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from swarm.app.page import FIRST
from swarm.app.parts import edges, graph, left, policy, said, summary, who
from swarm.app.settings import flag
from swarm.app.tables import ATTENTION, count, heading, pairs, score, status, table, when
from swarm.app.terminal import one_line, plain
from swarm.runtime.policy import described_policy
from swarm.runtime.routing import PolicyEvaluation

if TYPE_CHECKING:
    from swarm.app.optimize import Foreseen
    from swarm.app.run import Scored, ScoredEach
    from swarm.optimizers.estimate import Estimate, Plan
    from swarm.optimizers.sweep import Swept
    from swarm.replay import ReplayReport
    from swarm.runtime.system import System, Trace
    from swarm.store import RunView


def answer(console: Console, trace: Trace, *, verbose: bool) -> None:
    """One question's answer; with every agent's response if `verbose`."""
    if verbose:
        for call in (*trace.routing, *trace.calls):
            console.print(who(call.agent.name, call.agent.expert, call.agent.role))
            said(console, "response", call.response.text if call.response else f"{call.error}")
            if call.shortened:
                cuts = [
                    left(f"response {cut.response}", cut.kept, cut.of) for cut in call.shortened
                ]
                said(console, "shortened", f"to fit: {', '.join(cuts)}", ATTENTION)
        console.print()
    console.print(plain(trace.text or ""), soft_wrap=True)


def result(console: Console, done: Scored, *, verbose: bool) -> None:
    """What an evaluation came to, with the graph, or those that were chosen most, if `verbose`."""
    if verbose and not isinstance(done.evaluation, PolicyEvaluation):
        graph(console, done.evaluation.graph)
        console.print()
    elif verbose and isinstance(done.evaluation, PolicyEvaluation):
        parts = sorted(done.evaluation.parts, key=lambda part: -len(part.rows))
        chosen = table("questions:", "score:", "graph")
        for part in parts[:FIRST]:
            drawn = one_line(edges(part.graph), 60)
            chosen.add_row(count(len(part.rows)), score(part.score), drawn)
        console.print(chosen)
        console.print()
    pairs(console, {**summary(done.evaluation.summary().as_dict()), "run": str(done.run.id)})


def each(console: Console, done: ScoredEach, store: str) -> None:
    """What every expert came to alone."""
    experts = table("expert", "score:", "95 %", "failed:", "tokens:", "USD:")
    for evaluation in done.evaluations:
        alone = evaluation.summary()
        experts.add_row(
            one_line(evaluation.graph.agents[0].expert, 40),
            score(alone.score),
            f"{alone.low:.2f} – {alone.high:.2f}",
            count(alone.failures),
            count(alone.tokens),
            f"{alone.cost:.4g}",
        )
    console.print(experts)
    asked = count(len(done.evaluations[0].scores))
    pairs(console, {"questions": asked, "run": str(done.run.id)})
    heading(console, "look further")
    for command, purpose in {
        f"swarm export {done.run.id} --pool": "a recorded pool, for routers to learn from",
        f"swarm show {done.run.id}": "settings, failures",
    }.items():
        text = Text.assemble(f"  {command}{store}   ", (purpose, "dim"))
        console.print(text, soft_wrap=True)


def found(console: Console, system: System, run: RunView, *, known: bool) -> None:
    """What a job came to; `known` if it had been done before."""
    if known:
        console.print(Text(f"this job was done before, {when(run.updated_at)}", "dim"))
    if system.fixed:
        graph(console, system.graph)
    else:
        pairs(console, policy(described_policy(system.policy)))
    console.print()
    named = {**summary(run.summary or {}), "run": str(run.id)}
    split = run.settings.get("split", "")
    pairs(console, {f"{split} {k}" if k == "score" else k: text for k, text in named.items()})


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
    jobs = f"{count(most.jobs)} jobs of " if most.jobs > 1 else ""
    pairs(
        console,
        {
            "work": f"{jobs}{count(most.iterations)} iterations × {count(most.graphs)} graphs × "
            f"{count(most.agents)} agents × {count(most.questions)} questions",
            **_amounts(most),
        },
    )
    console.print(
        Text("  (a token a byte of prompt, and `max_tokens` for every response, also read)", "dim")
    )
    if estimate is None:
        return
    took = f"{count(estimate.sampled_calls)} calls, ${estimate.sampled_cost:.4f}"
    heading(console, "estimated")
    pairs(console, {**_amounts(estimate, "about "), "time": f"about {_time(estimate.seconds)}"})
    console.print(
        Text(
            f"  (from {count(estimate.sampled_questions)} questions through "
            f"{count(estimate.sampled_graphs)} random graphs: {took}; a search that comes back to "
            "graphs it knows takes less)",
            "dim",
        )
    )


def _amounts(of: Plan | Estimate, about: str = "") -> dict[str, str]:
    return {
        "calls": f"{about}{count(of.calls)}",
        "tokens": f"{about}{count(of.prompt_tokens)} read, {count(of.completion_tokens)} written",
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
    rows = table("run:", "score:", *(f"{name}:" for name in drawn), "calls:", "status")
    for swept in jobs:
        rows.add_row(
            str(swept.run.id),
            score(swept.score),
            *(f"{swept.settings[name]:g}" for name in drawn),
            count((swept.run.summary or {}).get("asked")),
            status(swept.run.status),
        )
    console.print(rows)
    console.print(Text("  (calls: asked of engines; what one job was answered, all know)", "dim"))


def report(console: Console, report: ReplayReport) -> None:
    """What a replay has checked, and what it has not."""
    console.print(Text("everything comes out as recorded", "green"))
    checked = {
        "evaluations": count(report.evaluations),
        "traces": count(report.traces),
        "prompts": f"{count(report.prompts)} the same",
        "scores": f"{count(report.scores)} the same" if report.scores else "not checked",
        "determinism": report.determinism,
    }
    if report.shortened:
        checked["prompts"] += f", {count(report.shortened)} of them shortened"
    pairs(console, checked)
    for note in report.notes:
        console.print(Text(f"note: {plain(note)}", ATTENTION))
