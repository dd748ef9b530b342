"""What `swarm run` does: a graph is asked one question, or scored on a task and recorded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swarm.agents.expert import Pool
from swarm.app.doctor import require_engines
from swarm.app.documents import Document, answer_document, graph_document, run_document
from swarm.app.graph_argument import (
    asks_each,
    best_graph,
    each_alone,
    naming,
    read_graph,
    run_id,
    topology,
    with_found_experts,
)
from swarm.app.jobs import check_split, load_pool, load_task, remembered, within
from swarm.app.settings import Chosen
from swarm.app.watch import WatchedRuntime, watch
from swarm.errors import EngineError, InputError
from swarm.graphs import AgentGraph
from swarm.runtime.compile import resolve
from swarm.runtime.evaluate import Evaluation
from swarm.runtime.system import System, Trace, evaluate
from swarm.store import RunView, Store
from swarm.tasks import Task


@dataclass(frozen=True)
class Asked:
    """A question that was answered."""

    trace: Trace

    def document(self) -> Document:
        return answer_document(self.trace)


@dataclass(frozen=True)
class Scored:
    """An evaluation that was recorded."""

    evaluation: Evaluation
    run: RunView

    def document(self) -> Document:
        return {**run_document(self.run), "graph": graph_document(self.evaluation.graph)}

    @property
    def lowest(self) -> int:
        """The first of the questions with the lowest score."""
        scores = self.evaluation.scores
        return min(range(len(scores)), key=scores.__getitem__)

    def refuse_if_all_failed(self) -> None:
        """One question may fail; if all did, so has the run."""
        if len(self.evaluation.errors) == len(self.evaluation.scores):
            first = self.evaluation.errors[0]
            raise EngineError(f"every question of run {self.run.id} failed; the first: {first}")


@dataclass(frozen=True)
class Question:
    """A question to ask, with everything checked that can be without asking it."""

    graph: AgentGraph
    pool: Pool
    text: str

    def go(self, *, quiet: bool) -> Asked:
        """Asks it; `EngineError` if a call fails."""
        with watch("asking", len(self.graph.agents), quiet=quiet) as watching:
            runtime = WatchedRuntime(watching, self.pool.memory)
            system = System(self.graph, self.pool, runtime=runtime)
            return Asked(system.invoke(self.text))


@dataclass(frozen=True)
class _Measuring:
    """What is scored on a task."""

    pool: Pool
    task: Task
    chosen: Chosen
    settings: dict[str, Any]
    """Kept with the run."""

    def _measure(
        self, graphs: Sequence[AgentGraph], *, quiet: bool
    ) -> tuple[list[Evaluation], RunView]:
        split, limit = self.chosen.value("split"), self.chosen.value("limit")
        calls = len(self.task.split(split)[:limit]) * sum(len(graph.agents) for graph in graphs)
        with watch(f"{self.task.name} {split}", calls, quiet=quiet) as watching:
            evaluations = evaluate(
                graphs,
                self.task,
                self.pool,
                split=split,
                limit=limit,
                store=self.chosen.value("store"),
                runtime=WatchedRuntime(watching, self.pool.memory),
                name=self.chosen.value("name"),
                settings=self.settings,
            )
        assert evaluations[0].run is not None
        with Store.open(self.chosen.value("store"), create=False) as store:
            return evaluations, store.run(evaluations[0].run)


@dataclass(frozen=True)
class ScoredEach:
    """Experts that were scored alone, and recorded as one run."""

    evaluations: Sequence[Evaluation]
    run: RunView

    def document(self) -> Document:
        return {
            **run_document(self.run),
            "experts": {
                one.graph.agents[0].expert: one.summary().as_dict() for one in self.evaluations
            },
        }

    def refuse_if_all_failed(self) -> None:
        """One expert may fail; if all did, so has the run."""
        if all(len(one.errors) == len(one.scores) for one in self.evaluations):
            first = self.evaluations[0].errors[0]
            raise EngineError(f"every question of run {self.run.id} failed; the first: {first}")


@dataclass(frozen=True)
class Scoring(_Measuring):
    """A graph to score on a task, with everything checked that can be before."""

    graph: AgentGraph

    def go(self, *, quiet: bool) -> Scored:
        """Runs and records the evaluation."""
        [evaluation], run = self._measure([self.graph], quiet=quiet)
        return Scored(evaluation, run)


@dataclass(frozen=True)
class ScoringEach(_Measuring):
    """Experts to score alone on a task, with everything checked that can be before."""

    graphs: Sequence[AgentGraph]

    def go(self, *, quiet: bool) -> ScoredEach:
        """Runs and records the evaluations."""
        return ScoredEach(*self._measure(self.graphs, quiet=quiet))


def load_run(argument: str, chosen: Chosen) -> Question | Scoring | ScoringEach:
    """What the command asks for.

    Raises:
        InputError: something that was given is wrong. Nothing has been run, no model loaded.
        SwarmError: an engine that is needed can't be used here.
    """
    by_task = _by_task(chosen)
    each = _each(argument, chosen, by_task=by_task)
    graphs: Sequence[AgentGraph]
    if each is not None:
        graphs, pool, files = each
    else:
        graph, pool, files = graph_and_pool(argument, chosen)
        graphs = [graph]
    within(pool, chosen)
    with naming(argument):
        for graph in graphs:
            resolve(graph, pool)
    require_engines(pool[expert] for graph in graphs for expert in graph.experts)
    if not by_task:
        return Question(graphs[0], pool, chosen.value("question"))
    path = chosen.value("task")
    task = load_task(path)
    check_split(task, chosen)
    files["task"] = str(Path(path).resolve())
    # A pool that was not given is that of the run which the graph comes from.
    origins = {"graph": "argument", "pool": f"run {argument}", **chosen.origins()}
    settings = {
        "graph": argument,
        "store": chosen.lasting_store(),
        "files": files,
        "from": origins,
    }
    if each is not None:
        return ScoringEach(pool, task, chosen, settings, graphs)
    return Scoring(pool, task, chosen, settings, graphs[0])


def _each(
    argument: str, chosen: Chosen, *, by_task: bool
) -> tuple[list[AgentGraph], Pool, dict[str, str]] | None:
    """The graphs, pool and files of ``each``; None where that is not what is asked for."""
    if not asks_each(argument):
        return None
    path = chosen.value("pool")
    if path is None:
        raise InputError("`--pool` is missing: give the TOML file of the pool whose experts to ask")
    if not by_task:
        raise InputError(f"`{argument}` scores experts: give `--task`, not `--question`")
    pool = load_pool(path)
    with naming(argument):
        graphs = each_alone(argument, pool)
    return graphs, pool, {"pool": str(Path(path).resolve())}


def _by_task(chosen: Chosen) -> bool:
    """Whether it is the task that counts, not a question; a flag counts more than a variable."""
    question, task = chosen.get("question"), chosen.get("task")
    if question is None and task is None:
        raise InputError("nothing to do: give `--question` or `--task`")
    if question is None or task is None:
        return task is not None
    if (question.origin == "flag") == (task.origin == "flag"):
        raise InputError("`--question` and `--task` exclude each other: give one of them")
    return task.origin == "flag"


def graph_and_pool(argument: str, chosen: Chosen) -> tuple[AgentGraph, Pool, dict[str, str]]:
    """What GRAPH and `--pool` mean, and the files they were read from.

    A graph that comes from a run brings the run's pool along.
    """
    files: dict[str, str] = {}
    number = run_id(argument)
    if number is not None:
        with Store.open(chosen.value("store"), create=False) as store:
            view = store.run(number)
            graph = best_graph(store, view)
        files = {key: view.settings["files"][key] for key in view.settings.get("files", {})}
    else:
        found = topology(argument)
        graph = read_graph(Path(argument)) if found is None else found
    path = chosen.value("pool")
    if path is not None:
        pool, files = load_pool(path), {**files, "pool": str(Path(path).resolve())}
    else:
        pool = remembered(files, "pool")
    if pool is None:
        raise InputError("`--pool` is missing: give the TOML file of the pool to run the graph on")
    if number is not None:
        with Store.open(chosen.value("store"), create=False) as store:
            pool = with_found_experts(store, view, pool)
    return graph, pool, files
