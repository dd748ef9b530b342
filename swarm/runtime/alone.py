"""What a store holds of experts that were asked alone, as a `Recording`: routers learn from it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from swarm.agents.expert import Price
from swarm.agents.messages import Response
from swarm.agents.recording import Recording
from swarm.errors import InputError
from swarm.graphs.graph import DEFAULT_ROLE, AgentGraph
from swarm.store import EvaluationView, RunView, Store
from swarm.store.records import QuestionRecord
from swarm.tasks import Example, Task


class _Model(NamedTuple):
    """An expert in a role: what becomes a column."""

    expert: str
    role: str
    fingerprint: bytes
    """Empty where it never answered and the run does not say."""


@dataclass
class _Asked:
    """One question, and what each expert came to alone."""

    question: QuestionRecord
    split: str
    benchmark: str
    task: bytes
    scores: dict[_Model, float] = field(default_factory=dict)
    responses: dict[_Model, Response] = field(default_factory=dict)


def recording_of(
    store: Store, run: int, *, task: Task | None = None, everywhere: bool = False
) -> Recording:
    """Every question of a run, with what every expert that was asked it alone answered.

    That is: in an evaluation of a graph of one agent. A question that failed scores 0 and has no
    text. Costs are recorded tokens × price, where any of the experts has a price. An expert in
    another role than `solver` is a column of its own, ``NAME (ROLE)``; one whose weights or
    sampling were others in an earlier run is, too: ``NAME@abcdef12``.

    Args:
        task: the run's, where it is at hand: answers are read by its scorer, and choices and
            domains are its examples'.
        everywhere: experts that were asked these questions in any other run of the store count,
            too: of the same task, split by split.

    Raises:
        InputError: there is no such run, or no expert was asked alone.
    """
    view = store.run(run)
    asked: dict[tuple[bytes, str, bytes], _Asked] = {}
    runs = [view]
    if everywhere:
        for evaluation in store.evaluations(run):
            for question in store.recorded(evaluation.id).questions:
                key = (evaluation.task, evaluation.split, question.digest)
                asked.setdefault(key, _new(view, evaluation, question))
        runs = [each for each in reversed(store.runs()) if each.kind in ("evaluation", "job")]
    latest: dict[str, dict[_Model, None]] = {}
    for each in runs:
        for evaluation, expert, role in _alone(store, each):
            model = _add(store, each, evaluation, expert, role, asked, only=everywhere)
            if model is not None:
                known = latest.setdefault(_label(expert, role), {})
                known.pop(model, None)
                known[model] = None
    found = [each for each in asked.values() if each.scores]
    if not found:
        where = "in this store" if everywhere else f"in run {run}"
        raise InputError(
            f"run {run}: no expert was asked its questions alone {where}: have all of a pool asked "
            "with `swarm run each --pool POOL.toml --task TASK.toml --split NAME`, and export that "
            "run" + ("" if everywhere else "; `--all` looks in the store's other runs, too")
        )
    names = {
        model: label if model == list(models)[-1] else f"{label}@{model.fingerprint.hex()[:8]}"
        for label, models in latest.items()
        for model in models
    }
    prices = _prices(store, names)
    examples: dict[tuple[bytes, str, str], Example] = {}
    if task is not None:
        for split, several in task.splits.items():
            examples |= {(task.fingerprint, split, each.id): each for each in several}
    records = [_record(each, names, prices, task, examples) for each in found]
    for record, unique in zip(records, _ids(found), strict=True):
        record["id"] = unique
    return Recording.from_records(records, models="union")


def _new(run: RunView, evaluation: EvaluationView, question: QuestionRecord) -> _Asked:
    benchmark = str(run.settings.get("task") or run.name)
    return _Asked(question, evaluation.split, benchmark, evaluation.task)


def _alone(store: Store, run: RunView) -> Iterator[tuple[EvaluationView, str, str]]:
    """The run's evaluations of one agent: with its expert and role."""
    for evaluation in store.evaluations(run.id):
        graph: AgentGraph = evaluation.graph
        if len(graph.agents) == 1:
            yield evaluation, graph.agents[0].expert, graph.agents[0].role


def _add(
    store: Store,
    run: RunView,
    evaluation: EvaluationView,
    expert: str,
    role: str,
    asked: dict[tuple[bytes, str, bytes], _Asked],
    *,
    only: bool,
) -> _Model | None:
    """Adds an evaluation to what was asked, if it is of those questions; what was before goes."""
    if only and (evaluation.task, evaluation.split) not in {key[:2] for key in asked}:
        return None
    record = store.recorded(evaluation.id)
    answers = store.answers([key for key in record.keys[0] if key is not None])
    who = {answer.expert for answer in answers.values()}
    said = run.settings.get("experts", {}).get(expert, {}).get("fingerprint", "")
    model = _Model(expert, role, next(iter(who), bytes.fromhex(said)))
    added = False
    for i, question in enumerate(record.questions):
        at = (evaluation.task, evaluation.split, question.digest)
        if only and at not in asked:
            continue
        entry = asked.setdefault(at, _new(run, evaluation, question))
        entry.scores[model] = record.scores[i]
        entry.responses.pop(model, None)
        key = record.keys[0][i]
        if key is not None and key in answers:
            entry.responses[model] = answers[key].response
        added = True
    return model if added else None


def _label(expert: str, role: str) -> str:
    return expert if role == DEFAULT_ROLE else f"{expert} ({role})"


def _prices(store: Store, models: Mapping[_Model, str]) -> dict[_Model, Price]:
    """Of every model, if any of them costs anything."""
    known = store.experts([model.fingerprint for model in models if model.fingerprint])
    prices = {
        model: Price.model_validate(known[model.fingerprint].config.get("price", {}))
        for model in models
        if model.fingerprint in known
    }
    return prices if any(price != Price() for price in prices.values()) else {}


def _record(
    asked: _Asked,
    names: Mapping[_Model, str],
    prices: Mapping[_Model, Price],
    task: Task | None,
    examples: Mapping[tuple[bytes, str, str], Example],
) -> dict[str, Any]:
    """The line of a question, but for its id."""
    example = examples.get((asked.task, asked.split, asked.question.example_id))
    gold = asked.question.gold
    record: dict[str, Any] = {
        "benchmark": asked.benchmark,
        "split": asked.split,
        "question": asked.question.question,
        "gold": gold if isinstance(gold, str | list) and gold else None,
        "scores": {names[model]: score for model, score in asked.scores.items()},
        "responses": {names[model]: r.text for model, r in asked.responses.items()},
        "tokens": {names[model]: list(r.usage) for model, r in asked.responses.items()},
        "costs": {
            names[model]: prices[model].of(r.usage)
            for model, r in asked.responses.items()
            if model in prices
        },
    }
    if task is not None and example is not None:
        record["question"] = example.question
        record["choices"] = dict(example.choices) if example.choices else None
        for tag in ("domain", "skill"):
            if isinstance(domain := example.meta.get(tag), str):
                record.setdefault("domain", domain)
        record["answers"] = {
            names[model]: task.scorer.extract(example, r.text)
            for model, r in asked.responses.items()
        }
    return record


def _ids(found: list[_Asked]) -> Iterator[str]:
    """As the task has them, and with split and address where that is not enough."""
    plain = Counter(each.question.example_id for each in found)
    split = Counter((each.split, each.question.example_id) for each in found)
    for each in found:
        name = each.question.example_id
        if plain[name] == 1:
            yield name
        elif split[each.split, name] == 1:
            yield f"{each.split}.{name}"
        else:
            yield f"{each.split}.{name}.{each.question.digest.hex()[:8]}"
