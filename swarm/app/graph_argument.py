"""What may be given as GRAPH: a JSON file, the id of a run, a topology such as `chain:a,b`, or the
folder of a policy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from swarm.agents.expert import Expert, Pool
from swarm.app.settings import LAST_RUN
from swarm.errors import GraphError, InputError, did_you_mean
from swarm.graphs import AgentGraph, chain, complete, debate, single, star, tree
from swarm.runtime.policy import Policy, load_policy, policy_from_document
from swarm.store import EvaluationView, RunView, Store

ROUNDS = 2
"""Of a `debate` that does not say."""


EACH = "each"
"""Not one graph, but one for every expert."""


@contextmanager
def naming(source: str) -> Iterator[None]:
    """Puts `source`, what the user gave, before the message of an error that does not name it."""
    try:
        yield
    except InputError as error:
        if source in str(error):
            raise
        raise type(error)(f"`{source}`: {error}") from None


def read_graph(path: Path) -> AgentGraph:
    """The graph in a file, as `AgentGraph.to_json` writes it; `GraphError` if there is none."""
    with naming(str(path)):
        try:
            return AgentGraph.from_json(path.read_bytes())
        except FileNotFoundError:
            siblings = path.parent.glob("*.json") if path.parent.is_dir() else []
            hint = did_you_mean(path.name, (sibling.name for sibling in siblings))
            raise GraphError(
                f"no such file{hint}: GRAPH is a JSON file, a policy's folder, the id of a run, or "
                f"a topology such as `chain:a,b` (of {_names()})"
            ) from None
        except OSError as error:
            raise GraphError(f"can't be read: {error.strerror}") from None


def run_id(argument: str) -> int | None:
    """The run that GRAPH names; None where it is a graph itself."""
    number = int(argument) if argument.isascii() and argument.isdigit() else None
    if number is not None and not 0 < number < LAST_RUN:
        raise InputError(f"`{argument}` can't be the id of a run: see `swarm runs`")
    return number


def best_evaluation(store: Store, run: int) -> EvaluationView:
    """The run's evaluation of the highest score, the first of several; `InputError` without any."""
    evaluations = store.evaluations(run)
    if not evaluations:
        raise InputError(f"run {run} has no evaluations, so no graph: see `swarm show {run}`")
    # One that was stopped early has a score, but of its first questions only.
    whole = [evaluation for evaluation in evaluations if not evaluation.info.get("partial")]
    evaluations = whole or evaluations
    return max(evaluations, key=lambda evaluation: evaluation.score)


def best_graph(store: Store, run: RunView) -> AgentGraph:
    """The graph that a job found, or the best that was evaluated so far."""
    found = (run.summary or {}).get("graph")
    return AgentGraph.model_validate(found) if found else best_evaluation(store, run.id).graph


def policy_of(store: Store, run: RunView) -> Policy | None:
    """The policy that a job has fitted, or that was evaluated; None where there was none.

    Raises:
        InputError: it was read from where it is not any more, or was never saved.
    """
    if run.kind == "job":
        document = (store.state(run.id) or {}).get("policy")
        return None if document is None else policy_from_document(document)
    if "policy" not in run.settings:
        return None
    folder, origin = run.settings.get("files", {}).get("policy"), run.settings.get("graph", "")
    if folder is not None:
        policy: Policy | None = load_policy(folder)
    elif (number := run_id(origin)) is not None:
        policy = policy_of(store, store.run(number))
    else:
        raise InputError(
            f"run {run.id} has scored a policy that is on no record: give the folder it is saved in"
        )
    if policy is None or policy.fingerprint.hex() != run.settings["policy"]["source"]:
        raise InputError(
            f"the policy in `{folder or f'run {origin}'}` is not the one that run {run.id} has "
            "scored: it was fitted again since"
        )
    return policy


def with_found_experts(store: Store, run: RunView, pool: Pool) -> Pool:
    """`pool`, which the job `run` searched, and the experts whose weights it moved or made."""
    from swarm.optimizers.role_step import Version, with_versions

    summary = run.summary or {}
    found = summary.get("experts") or (store.state(run.id) or {}).get("versions", {})
    made = [Expert.model_validate(each) for each in summary.get("made", {}).values()]
    if run.kind != "job" or not (found or made):
        return pool
    versions = {name: Version.from_json(each) for name, each in found.items() if name not in pool}
    moved = with_versions(pool, versions).values() if versions else ()
    experts = [*pool.values(), *moved, *made]
    return pool.of(experts)


def asks_each(argument: str) -> bool:
    """Whether it is ``each`` or ``each:a,b``."""
    return argument.partition(":")[0] == EACH and not Path(argument).exists()


def each_alone(argument: str, pool: Pool) -> list[AgentGraph]:
    """A graph of one agent for every expert of ``each:a,b``, or of the pool for ``each``.

    Raises:
        PoolError: an expert that the pool does not have.
    """
    _, colon, rest = argument.partition(":")
    names = [name for name in map(str.strip, rest.split(",")) if name] if colon else list(pool)
    if not names:
        raise GraphError(f"`{argument}`: no experts: name them after the colon, or write `{EACH}`")
    return [single(pool[name].name) for name in dict.fromkeys(names)]


def topology(spec: str) -> AgentGraph | None:
    """The graph of ``name:expert,expert,…``; None if `spec` names no topology.

    ``rounds=3`` among the experts of a debate, and ``branching=3`` among those of a tree, are
    options. The last expert of a debate is its judge.

    Raises:
        GraphError: no experts, or an option that is unknown or no number.
    """
    name, colon, rest = spec.partition(":")
    if not colon or Path(spec).exists():
        return None
    with naming(spec):
        if name not in _TOPOLOGIES:
            raise GraphError(
                f"`{name}` is no topology{did_you_mean(name, _TOPOLOGIES)}: use one of {_names()}"
            )
        experts, options = [], dict[str, int]()
        for word in filter(None, map(str.strip, rest.split(","))):
            key, equals, value = word.partition("=")
            if not equals:
                experts.append(word)
                continue
            known = _OPTIONS.get(name, ())
            if key not in known or not value.isdecimal():
                rule = " or ".join(f"`{k}=` with a number" for k in known) or "no options"
                raise GraphError(f"`{word}`: `{name}` takes {rule}{did_you_mean(key, known)}")
            options[key] = int(value)
        if not experts:
            raise GraphError(f"no experts: name them after the colon, as in `{name}:a,b`")
        return _TOPOLOGIES[name](experts, options)


def _single(experts: list[str], options: dict[str, int]) -> AgentGraph:
    if len(experts) > 1:
        raise GraphError(f"`single` has one expert, not {len(experts)}: use `chain` or `star`")
    return single(experts[0])


def _debate(experts: list[str], options: dict[str, int]) -> AgentGraph:
    *debaters, judge = experts
    return debate(debaters, options.get("rounds", ROUNDS), judge)


_TOPOLOGIES: dict[str, Callable[[list[str], dict[str, int]], AgentGraph]] = {
    "single": _single,
    "chain": lambda experts, _: chain(experts),
    "star": lambda experts, _: star(experts),
    "tree": lambda experts, options: tree(experts, branching=options.get("branching", 2)),
    "complete": lambda experts, _: complete(experts),
    "debate": _debate,
}
_OPTIONS = {"tree": ("branching",), "debate": ("rounds",)}


def _names() -> str:
    return ", ".join(f"`{name}`" for name in _TOPOLOGIES)
