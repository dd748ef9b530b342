"""A recorded run is run again from its recorded responses alone, and must come out the same.

It takes the path it took when it was recorded: LangGraph program, prompts, scheduler, scorer. Only
engines are missing: the answer to a call is looked up under the address of its prompt, which is
built anew from the graph, the question and the recorded responses before it. So a prompt that is
worded otherwise than it was shows, and so does a record that was changed.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from pydantic import PrivateAttr

from swarm.agents import shortening
from swarm.agents.engines import Engine
from swarm.agents.engines.determinism import Determinism
from swarm.agents.expert import Expert, Pool, Sampling
from swarm.agents.messages import Messages, Request, Response, request_key
from swarm.agents.role import Role
from swarm.agents.shortening import Cuts
from swarm.errors import DivergenceError, InputError, RequestError
from swarm.runtime.cache import Recorder
from swarm.runtime.evaluate import Evaluation, Evaluator
from swarm.runtime.progress import Progress, Silent
from swarm.runtime.recording import finishing
from swarm.runtime.runtime import Runtime, run_sync
from swarm.store import (
    AnswerRecord,
    BatchRecord,
    EvaluationRecord,
    EvaluationView,
    RunView,
    Store,
)
from swarm.tasks import Example, Scorer, Task

ENGINE = "recorded"
"""The engine of the experts in a replay. It is not one of `ENGINES`: no pool can name it."""


@dataclass(frozen=True)
class ReplayReport:
    """What a replay that came out as recorded has checked."""

    run: int
    """The id of the replay, which is a run itself."""
    replayed: int
    """The run that was run again."""
    evaluations: int
    traces: int
    prompts: int
    """Prompts that were built anew and are, with their experts and draws, the recorded ones."""
    failed: int
    """Calls that were recorded as failed, and failed again. Their prompts are not recorded."""
    scores: int
    """Scores of traces that were calculated anew and are the recorded ones."""
    notes: tuple[str, ...]
    """What was not checked, and why."""
    shortened: int = 0
    """Of the prompts, those that were shortened as recorded."""
    determinism: str = Determinism.BITWISE.value
    """Nothing was asked."""


def replay(
    store: str | Store,
    run: int,
    *,
    task: Task | None = None,
    progress: Progress | None = None,
) -> ReplayReport:
    """Runs all evaluations of `run` again and compares every prompt and score with the record.

    No engine is made and no model loaded. The replay is recorded as a run of kind ``replay``.

    Args:
        task: the task that was evaluated on. Without it, scores are not calculated anew: only their
            means are.
        progress: is told of every evaluation.

    Raises:
        DivergenceError: something comes out otherwise than recorded; says what comes first.
        InputError: there is no such run, it has nothing to replay, or the task lacks a split.
    """
    with ExitStack() as stack:
        if isinstance(store, str):
            store = stack.enter_context(Store.open(store, create=False))
        view = store.run(run)
        if view.kind == "replay":
            raise InputError(f"run {run} is itself a replay: replay run {view.parent}")
        evaluations = store.evaluations(run)
        if not evaluations:
            raise InputError(f"run {run} has no evaluations: there is nothing to replay")
        for split in {evaluation.split for evaluation in evaluations} if task else ():
            assert task is not None
            task.split(split)
        described = {"run": run, "task": task.name if task else None}
        number = store.start_run("replay", f"replay of run {run}", described, parent=run)
        stack.enter_context(store.lock_run(number))
        work = _Replay(store, view, evaluations, task, stack.enter_context(progress or Silent()))
        with finishing(store, number) as summary:
            report = run_sync(work.run(number))
            summary.update(asdict(report))
        return report


class _NoEngine(Engine):
    """Stands where an engine would. It is asked only for what was not recorded."""

    async def generate(self, requests: Sequence[Request]) -> Sequence[Response | RequestError]:
        return [RequestError("the recording has no answer to this prompt")] * len(requests)


class _Recording(Recorder):
    """Knows the answers of one recorded evaluation, and no others."""

    def __init__(self, answers: Mapping[bytes, AnswerRecord]) -> None:
        self._known = {key: answer.response for key, answer in answers.items()}

    def known(self, keys: Collection[bytes]) -> Mapping[bytes, Response]:
        return {key: self._known[key] for key in keys if key in self._known}

    def record(
        self, batch: BatchRecord, experts: Sequence[Expert], answers: Sequence[AnswerRecord]
    ) -> None:
        """Nothing was answered, so there is nothing to keep."""


class _RecordedExpert(Expert):
    """An expert of which only the address of its answers is needed, and its prompts' style."""

    _fingerprint: bytes = PrivateAttr(bytes(32))

    @functools.cached_property
    def fingerprint(self) -> bytes:
        return self._fingerprint


class _Cast(Pool):
    """The experts of one recorded evaluation. Nothing is checked: weights may be long gone."""

    def __init__(self, experts: Mapping[str, Expert]) -> None:
        self.name = "recording"
        self.roles = {}
        self._experts = dict(experts)


class _Unscored(Scorer):
    """Where there is no task there is no scorer."""

    name: ClassVar[str] = "unscored"

    def __call__(self, example: Example, text: str) -> float:
        return 0.0

    def extract(self, example: Example, text: str) -> str | None:
        return None


class _Replay:
    """One replay: its evaluations one after the other, and what has been found to be the same."""

    def __init__(
        self,
        store: Store,
        run: RunView,
        evaluations: Sequence[EvaluationView],
        task: Task | None,
        progress: Progress,
    ) -> None:
        self._store = store
        self._run = run
        self._evaluations = evaluations
        self._task = task
        self._progress = progress
        self._runtime = Runtime({ENGINE: _NoEngine()})
        self._roles = {
            name: Role(name=name, instructions=instructions)
            for name, instructions in run.settings.get("instructions", {}).items()
        }
        self._examples = {
            split: {example.id: example for example in examples}
            for split, examples in (task.splits.items() if task else ())
        }
        self._scores: list[float] = []
        self._traces = 0
        self._prompts = 0
        self._shortened = 0
        self._failed = 0

    async def run(self, number: int) -> ReplayReport:
        best = -math.inf
        self._progress.start(f"replay of run {self._run.id}", len(self._evaluations), 0)
        for k, view in enumerate(self._evaluations, start=1):
            record = self._store.recorded(view.id)
            await self._replay(view, record)
            best = max(best, record.score)
            self._progress.calls(self._prompts)
            self._progress.iteration(k, best, record.score)
        summary = self._run.summary or {}
        if "policy" in self._run.settings:
            self._check_asked()
            best = math.fsum(self._scores) / len(self._scores)
        # (A job's summary may be about other questions than those that it searched on.)
        if self._run.kind == "evaluation" and summary.get("score", best) != best:
            raise _divergence("the run's score", None, None, summary["score"], best)
        return ReplayReport(
            run=number,
            replayed=self._run.id,
            evaluations=len(self._evaluations),
            traces=self._traces,
            prompts=self._prompts,
            failed=self._failed,
            scores=self._traces if self._task else 0,
            notes=tuple(self._notes()),
            shortened=self._shortened,
        )

    async def _replay(self, view: EvaluationView, record: EvaluationRecord) -> None:
        answers = self._store.answers({k for column in record.keys for k in column if k})
        examples = [self._example(record, i) for i in range(len(record.questions))]
        scorer = self._task.scorer if self._task else _Unscored()
        task = Task("recording", {record.split: tuple(examples)}, scorer)
        scheduler = self._runtime.scheduler(_Recording(answers))
        cast = self._cast(record, answers)
        evaluator = Evaluator(task, record.split, cast, scheduler, roles=self._roles)
        [again] = await evaluator([record.graph], cuts=self._cuts(record))
        scores = self._compare(record, answers, again)
        mean = math.fsum(scores) / len(scores)
        if mean != record.score:
            what = f"the score of evaluation {view.id}"
            raise _divergence(what, None, None, record.score, mean)
        self._scores += scores
        self._traces += len(scores)

    def _check_asked(self) -> None:
        """What the policy asked is there, and under its own address."""
        asked = (self._store.state(self._run.id) or {}).get("asked", ())
        wanted = []
        for each in asked:
            failed = {(i, draw) for i, draw, _ in each["errors"]}
            wanted += [
                (bytes.fromhex(key), each["expert"])
                for i, row in enumerate(each["keys"])
                for draw, key in enumerate(row)
                if (i, draw) not in failed
            ]
        answers = self._store.answers([key for key, _ in wanted])
        for key, expert in wanted:
            answer = answers.get(key)
            address = answer and request_key(answer.expert, answer.messages, answer.draw)
            if address != key:
                got = "an answer that is not in the store" if address is None else address.hex()
                raise _divergence("what the policy asked", None, expert, key.hex(), got)
        self._prompts += len(wanted)

    def _example(self, record: EvaluationRecord, i: int) -> Example:
        """The i-th question of an evaluation: the task's, where there is one, if it is the same."""
        question = record.questions[i]
        if self._task is None:
            return Example(question=question.question, answer="unknown", id=str(i))
        found = self._examples[record.split].get(question.example_id)
        here = self._traces + i
        if found is None:
            expected, got = question.example_id, f"no such question in `{record.split}`"
            raise _divergence("the question's id", here, None, expected, got)
        if found.prompt != question.question:
            raise _divergence("the question", here, None, question.question, found.prompt)
        if list(found.golds) != question.gold:
            raise _divergence("the gold answer", here, None, question.gold, list(found.golds))
        return found

    def _cuts(self, record: EvaluationRecord) -> dict[tuple[int, int], Cuts]:
        """How prompts were shortened, as recorded: it takes no tokenizer to do that again."""
        found = {}
        for (position, i), text in record.shortened.items():
            try:
                found[position, i] = shortening.read(text)
            except ValueError as error:
                agent = record.graph.agents[position].name
                what = "how the prompt was shortened"
                raise _divergence(what, self._traces + i, agent, str(error), text) from None
        return found

    def _cast(self, record: EvaluationRecord, answers: Mapping[bytes, AnswerRecord]) -> Pool:
        """Who answered, according to the answers; a style is the expert's in this run."""
        given = self._run.settings.get("experts")
        styles = given if isinstance(given, Mapping) else {}
        kept = self._store.experts({answer.expert for answer in answers.values()})
        cast: dict[str, Expert] = {}
        for agent, column in zip(record.graph.agents, record.keys, strict=True):
            answer = next((answers[key] for key in column if key and key in answers), None)
            if answer is None:  # whatever was asked of it failed, or is missing
                cast.setdefault(agent.expert, _recorded(agent.expert, bytes(32), {}))
                continue
            config = kept[answer.expert].config
            config = {**config, **styles.get(agent.expert, {})}
            cast[agent.expert] = _recorded(agent.expert, answer.expert, config)
        return _Cast(cast)

    def _compare(
        self, record: EvaluationRecord, answers: Mapping[bytes, AnswerRecord], again: Evaluation
    ) -> list[float]:
        """The scores that come out; raises for the first trace that is not as it was."""
        built = _Built(again)
        scores = []
        for i, recorded in enumerate(record.scores):
            here = self._traces + i
            down = self._compare_calls(record, answers, built, i)
            text = record.answers[i] if record.answers and not down else None
            if text is not None and text != again.answers[i]:
                raise _divergence("the answer", here, None, text, again.answers[i])
            score = 0.0 if down else again.scores[i] if self._task else recorded
            if score != recorded:
                raise _divergence("the score", here, None, recorded, score)
            scores.append(score)
        return scores

    def _compare_calls(
        self,
        record: EvaluationRecord,
        answers: Mapping[bytes, AnswerRecord],
        built: _Built,
        i: int,
    ) -> set[str]:
        """The agents of trace i that failed, or could not be asked since another had failed."""
        here = self._traces + i
        down: set[str] = set()
        for agent in record.graph.order:
            position = record.graph.position(agent.name)
            key = record.keys[position][i]
            if (position, i) in record.call_errors:
                down.add(agent.name)
                self._failed += 1
                continue
            if key is None and any(p.name in down for p in record.graph.predecessors(agent.name)):
                down.add(agent.name)
                continue
            prompt, address = built.call(agent.name, i)
            if key is None or key not in answers:
                missing = "no answer" if key is None else "an answer that is not in the store"
                raise _divergence("the call", here, agent.name, missing, _text(prompt))
            if prompt != answers[key].messages:
                expected = _text(answers[key].messages)
                raise _divergence("the prompt", here, agent.name, expected, _text(prompt))
            if address != key:
                what = "the address (expert, prompt, draw)"
                raise _divergence(what, here, agent.name, key.hex(), address.hex())
            self._prompts += 1
            self._shortened += (position, i) in record.shortened
        return down

    def _notes(self) -> Iterator[str]:
        if self._task is None:
            yield "scores were not calculated anew, only their means: no task was given"
        elif any(view.task != self._task.fingerprint for view in self._evaluations):
            yield f"the task `{self._task.name}` has changed since, but not in what was compared"
        if "policy" in self._run.settings:
            yield "how the policy chose was not checked: the graphs that it chose are on record"
        if self._failed:
            yield f"prompts of failed calls are not recorded: {self._failed} not checked"


class _Built:
    """The prompts that were built anew, by agent and question."""

    def __init__(self, again: Evaluation) -> None:
        [(_, run)] = again.runs
        self._log = run.log
        self._rows = {
            name: None if entry.rows is None else {row: k for k, row in enumerate(entry.rows)}
            for name, entry in run.log.items()
        }

    def call(self, agent: str, i: int) -> tuple[Messages, bytes]:
        """Prompt and address; (), b"" where the agent was not asked."""
        entry, rows = self._log[agent], self._rows[agent]
        k = i if rows is None else rows.get(i)
        if k is None:
            return (), b""
        assert entry.keys is not None
        return entry.prompts[k], entry.keys[k]


def _recorded(name: str, fingerprint: bytes, config: Mapping[str, Any]) -> Expert:
    expert = _RecordedExpert(
        name=name,
        engine=ENGINE,
        model=ENGINE,
        prompt=config.get("prompt", "chat"),
        # An expert that samples draws anew for each agent that it plays: see `resolve`.
        sampling=Sampling.model_validate(config.get("sampling", {})),
    )
    expert._fingerprint = fingerprint
    return expert


def _text(messages: Messages) -> str:
    return "\n".join(f"{role}: {content}" for role, content in messages) or "nobody was asked"


def _divergence(
    what: str, trace: int | None, agent: str | None, expected: Any, got: Any
) -> DivergenceError:
    where = [] if trace is None else [f"trace {trace}"]
    where += [] if agent is None else [f"agent `{agent}`"]
    before, after = _around_difference(str(expected), str(got))
    prefix = f"{', '.join(where)}: " if where else ""
    return DivergenceError(
        f"{prefix}{what} is not as recorded: expected `{before}`, got `{after}`",
        trace=trace,
        agent=agent,
        expected=str(expected),
        got=str(got),
    )


def _around_difference(expected: str, got: str, room: int = 60) -> tuple[str, str]:
    """Both texts, cut to `room` characters around the first place where they differ."""
    same = next(
        (i for i, (a, b) in enumerate(zip(expected, got, strict=False)) if a != b),
        min(len(expected), len(got)),
    )
    start = max(0, same - room // 2) if max(len(expected), len(got)) > room else 0

    def cut(text: str) -> str:
        piece = text[start : start + room]
        return f"{'…' if start else ''}{piece}{'…' if start + room < len(text) else ''}"

    return cut(expected), cut(got)
