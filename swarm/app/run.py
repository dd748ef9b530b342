"""What `swarm run` does: a graph, or a policy, is asked one question, or scored and recorded."""

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
    policy_of,
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
from swarm.runtime.export import GRAPH, POOL
from swarm.runtime.policy import Policy, described_policy, load_policy
from swarm.runtime.routing import PolicyEvaluation
from swarm.runtime.system import System, Trace, evaluate, evaluate_policy
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

    evaluation: Evaluation | PolicyEvaluation
    run: RunView

    def document(self) -> Document:
        if isinstance(self.evaluation, PolicyEvaluation):
            return run_document(self.run)
        return {**run_document(self.run), "graph": graph_document(self.evaluation.graph)}

    @property
    def lowest(self) -> int:
        """The first of the traces with the lowest score."""
        evaluation = self.evaluation
        parts = evaluation.parts if isinstance(evaluation, PolicyEvaluation) else [evaluation]
        scores = [score for part in parts for score in part.scores]
        return min(range(len(scores)), key=scores.__getitem__)

    def refuse_if_all_failed(self) -> None:
        """One question may fail; if all did, so has the run."""
        if len(self.evaluation.errors) == len(self.evaluation.scores):
            first = next(iter(self.evaluation.errors.values()))
            raise EngineError(f"every question of run {self.run.id} failed; the first: {first}")


@dataclass(frozen=True)
class Question:
    """A question to ask, with everything checked that can be without asking it."""

    what: AgentGraph | Policy
    pool: Pool
    text: str

    def go(self, *, quiet: bool) -> Asked:
        """Asks it; `EngineError` if a call fails."""
        with watch("asking", _agents(self.what), quiet=quiet) as watching:
            runtime = WatchedRuntime(watching, self.pool.memory)
            system = System(self.what, self.pool, runtime=runtime)
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
        self, what: Sequence[AgentGraph | Policy], *, quiet: bool
    ) -> tuple[Sequence[Evaluation | PolicyEvaluation], RunView]:
        split, limit = self.chosen.value("split"), self.chosen.value("limit")
        questions = len(self.task.split(split)[:limit])
        agents = [_agents(each) for each in what]
        calls = None if None in agents else questions * sum(n for n in agents if n is not None)
        with watch(f"{self.task.name} {split}", calls, quiet=quiet) as watching:
            how: dict[str, Any] = {
                "split": split,
                "limit": limit,
                "store": self.chosen.value("store"),
                "runtime": WatchedRuntime(watching, self.pool.memory),
                "name": self.chosen.value("name"),
                "settings": self.settings,
            }
            graphs = [each for each in what if isinstance(each, AgentGraph)]
            evaluations: Sequence[Evaluation | PolicyEvaluation]
            if graphs:
                evaluations = evaluate(graphs, self.task, self.pool, **how)
            else:
                [policy] = (each for each in what if isinstance(each, Policy))
                evaluations = [evaluate_policy(policy, self.task, self.pool, **how)]
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
    """A graph or policy to score on a task, with everything checked that can be before."""

    what: AgentGraph | Policy

    def go(self, *, quiet: bool) -> Scored:
        """Runs and records the evaluation."""
        [evaluation], run = self._measure([self.what], quiet=quiet)
        return Scored(evaluation, run)


@dataclass(frozen=True)
class ScoringEach(_Measuring):
    """Experts to score alone on a task, with everything checked that can be before."""

    graphs: Sequence[AgentGraph]

    def go(self, *, quiet: bool) -> ScoredEach:
        """Runs and records the evaluations."""
        evaluations, run = self._measure(list(self.graphs), quiet=quiet)
        return ScoredEach([one for one in evaluations if isinstance(one, Evaluation)], run)


def load_run(
    argument: str, chosen: Chosen, *, drop: bool = False
) -> Question | Scoring | ScoringEach:
    """What the command asks for. `drop`: a policy goes on without experts that the pool lacks.

    Raises:
        InputError: something that was given is wrong. Nothing has been run, no model loaded.
        SwarmError: an engine that is needed can't be used here.
    """
    by_task = _by_task(chosen)
    each = _each(argument, chosen, by_task=by_task)
    what: AgentGraph | Policy
    if each is not None:
        graphs, pool, files = each
        what = graphs[0]
    else:
        what, pool, files = graph_and_pool(argument, chosen)
        graphs = [what] if isinstance(what, AgentGraph) else []
    within(pool, chosen)
    source: dict[str, Any] = {}
    with naming(argument):
        if isinstance(what, Policy):
            source = {"source": what.fingerprint.hex()}
            what = what.fits(pool, drop=drop)
            source = {"policy": {**described_policy(what), **source}}
            experts = list(what.experts)
        else:
            for graph in graphs:
                resolve(graph, pool)
            experts = [expert for graph in graphs for expert in graph.experts]
    require_engines(pool[expert] for expert in experts)
    if not by_task:
        return Question(what, pool, chosen.value("question"))
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
        **source,
    }
    if each is not None:
        return ScoringEach(pool, task, chosen, settings, graphs)
    return Scoring(pool, task, chosen, settings, what)


def _agents(what: AgentGraph | Policy) -> int | None:
    """How many answer a question, where that is known before."""
    return None if isinstance(what, Policy) else len(what.agents)


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


def graph_and_pool(
    argument: str, chosen: Chosen
) -> tuple[AgentGraph | Policy, Pool, dict[str, str]]:
    """What GRAPH and `--pool` mean, and the files they were read from.

    A graph that comes from a run brings the run's pool along, and a system's folder its own.
    """
    files: dict[str, str] = {}
    number, folder = run_id(argument), Path(argument)
    view: RunView | None = None
    what: AgentGraph | Policy
    if number is not None:
        with Store.open(chosen.value("store"), create=False) as store:
            view = store.run(number)
            what = policy_of(store, view) or best_graph(store, view)
        files = {key: view.settings["files"][key] for key in view.settings.get("files", {})}
        files.pop("policy", None)
    elif folder.is_dir():
        if (folder / GRAPH).is_file():
            what = read_graph(folder / GRAPH)
        else:
            what = load_policy(folder)
            files["policy"] = str(folder.resolve())
        if (folder / POOL).is_file():
            files["pool"] = str((folder / POOL).resolve())
    else:
        found = topology(argument)
        what = read_graph(folder) if found is None else found
    path = chosen.value("pool")
    if path is not None:
        pool, files = load_pool(path), {**files, "pool": str(Path(path).resolve())}
    else:
        pool = remembered(files, "pool")
    if pool is None:
        raise InputError("`--pool` is missing: give the TOML file of the pool to run the graph on")
    if view is not None:
        with Store.open(chosen.value("store"), create=False) as store:
            pool = with_found_experts(store, view, pool)
    return what, pool, files
