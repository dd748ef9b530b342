"""What `swarm run` does: a graph, or a policy, is asked one question, or scored and recorded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swarm.agents.expert import Pool
from swarm.app.doctor import require_engines
from swarm.app.documents import Document, answer_document, graph_document, run_document
from swarm.app.graph_argument import (
    best_graph,
    naming,
    policy_of,
    read_graph,
    run_id,
    topology,
    with_found_experts,
)
from swarm.app.jobs import check_split, load_pool, load_task, remembered
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
            system = System(self.what, self.pool, runtime=WatchedRuntime(watching))
            return Asked(system.invoke(self.text))


@dataclass(frozen=True)
class Scoring:
    """A graph or policy to score on a task, with everything checked that can be before."""

    what: AgentGraph | Policy
    pool: Pool
    task: Task
    chosen: Chosen
    settings: dict[str, Any]
    """Kept with the run."""

    def go(self, *, quiet: bool) -> Scored:
        """Runs and records the evaluation."""
        split, limit = self.chosen.value("split"), self.chosen.value("limit")
        agents = _agents(self.what)
        calls = None if agents is None else len(self.task.split(split)[:limit]) * agents
        evaluation: Evaluation | PolicyEvaluation
        with watch(f"{self.task.name} {split}", calls, quiet=quiet) as watching:
            how: dict[str, Any] = {
                "split": split,
                "limit": limit,
                "store": self.chosen.value("store"),
                "runtime": WatchedRuntime(watching),
                "name": self.chosen.value("name"),
                "settings": self.settings,
            }
            if isinstance(self.what, Policy):
                evaluation = evaluate_policy(self.what, self.task, self.pool, **how)
            else:
                [evaluation] = evaluate([self.what], self.task, self.pool, **how)
        assert evaluation.run is not None
        with Store.open(self.chosen.value("store"), create=False) as store:
            return Scored(evaluation, store.run(evaluation.run))


def load_run(argument: str, chosen: Chosen, *, drop: bool = False) -> Question | Scoring:
    """What the command asks for. `drop`: a policy goes on without experts that the pool lacks.

    Raises:
        InputError: something that was given is wrong. Nothing has been run, no model loaded.
        SwarmError: an engine that is needed can't be used here.
    """
    by_task = _by_task(chosen)
    what, pool, files = graph_and_pool(argument, chosen)
    source: dict[str, Any] = {}
    with naming(argument):
        if isinstance(what, Policy):
            source = {"source": what.fingerprint.hex()}
            what = what.fits(pool, drop=drop)
            source = {"policy": {**described_policy(what), **source}}
            experts = what.experts
        else:
            resolve(what, pool)
            experts = what.experts
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
    return Scoring(what, pool, task, chosen, settings)


def _agents(what: AgentGraph | Policy) -> int | None:
    """How many answer a question, where that is known before."""
    return None if isinstance(what, Policy) else len(what.agents)


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
