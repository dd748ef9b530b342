"""How much of SQLite's own writing speed is left to who records an evaluation in a store.

Both write the same rows (graph, questions, evaluation, traces, calls) to a file database with the
same tables and pragmas, in one transaction an evaluation: `Store.add_evaluation`, and bare
`sqlite3` from rows that lie ready. They take turns, so that both meet the same machine.
"""

from __future__ import annotations

import hashlib
import sqlite3
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from _table import arguments, report

from swarm.graphs import Agent, AgentGraph
from swarm.store import EvaluationRecord, QuestionRecord, Store

TABLES = ("graphs", "questions", "evaluations", "traces", "calls")


def evaluation(number: int, questions: list[QuestionRecord], agents: int) -> EvaluationRecord:
    """A graph not seen before, on questions that were; every call has a key of its own."""
    names = [f"a{number}-{i}" for i in range(agents)]
    n = len(questions)
    return EvaluationRecord(
        graph=AgentGraph(
            agents=tuple(Agent(name=name, expert=f"expert-{name}") for name in names),
            edges=tuple((name, names[-1]) for name in names[:-1]),
        ),
        split="dev",
        task=bytes(32),
        score=0.5,
        positions=range(n),
        questions=questions,
        scores=[float(i % 2) for i in range(n)],
        keys=[
            [hashlib.blake2b(f"{name} {i}".encode(), digest_size=32).digest() for i in range(n)]
            for name in names
        ],
        cached=[[i % 3 == 0 for i in range(n)] for _ in names],
        info={"iteration": number // 10, "particle": number % 10},
    )


def rows_of(path: Path) -> dict[int, dict[str, list[tuple[Any, ...]]]]:
    """Evaluation → table → the rows that the store wrote for it, to be written again."""
    with sqlite3.connect(path) as raw:
        rows = {
            evaluation: {
                table: raw.execute(f"SELECT * FROM {table} WHERE {where}", (evaluation,)).fetchall()
                for table, where in {
                    "graphs": "digest = (SELECT graph FROM evaluations WHERE id = ?)",
                    "evaluations": "id = ?",
                    "traces": "evaluation_id = ? ORDER BY evaluation_id, number",
                    "calls": "evaluation_id = ? ORDER BY evaluation_id, number, agent",
                }.items()
            }
            for (evaluation,) in raw.execute("SELECT id FROM evaluations ORDER BY id").fetchall()
        }
        rows[1]["questions"] = raw.execute("SELECT * FROM questions").fetchall()
    return rows


def raw_writer(path: Path) -> tuple[sqlite3.Connection, Callable[[dict[str, Any]], None]]:
    raw = sqlite3.connect(path, isolation_level=None)
    raw.execute("PRAGMA foreign_keys = ON")
    raw.execute("PRAGMA synchronous = NORMAL")
    inserts = {}
    for table in TABLES:
        columns = raw.execute(f"SELECT * FROM {table} LIMIT 0").description
        inserts[table] = f"INSERT INTO {table} VALUES ({', '.join('?' * len(columns))})"

    def write(tables: dict[str, Any]) -> None:
        raw.execute("BEGIN IMMEDIATE")
        for table in TABLES:
            if table in tables:
                raw.executemany(inserts[table], tables[table])
        raw.execute("COMMIT")

    return raw, write


def timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def measure(folder: Path, records: list[EvaluationRecord]) -> Iterator[tuple[float, float]]:
    """Seconds for each evaluation: through the store, and bare."""
    prepared, through, bare = (folder / f"{name}.db" for name in ("prepared", "store", "raw"))
    for path in (prepared, through, bare):
        with Store.open(str(path)) as store:
            run = store.start_run("job", "benchmark", {})
            if path == prepared:
                for record in records:
                    store.add_evaluation(run, record)
    rows = rows_of(prepared)
    with Store.open(str(through)) as store:
        raw, write = raw_writer(bare)
        for i, record in enumerate(records):
            work = [lambda r=record: store.add_evaluation(run, r), lambda i=i: write(rows[i + 1])]
            if i % 2:
                second, first = timed(work[1]), timed(work[0])
            else:
                first, second = timed(work[0]), timed(work[1])
            yield first, second
        raw.close()
    assert contents(through) == contents(bare), "the two databases differ"


def contents(path: Path) -> list[tuple[Any, ...]]:
    """How many rows each table has, and every call."""
    with sqlite3.connect(path) as raw:
        counts = [raw.execute(f"SELECT count(*) FROM {table}").fetchone() for table in TABLES]
        return counts + raw.execute("SELECT * FROM calls").fetchall()


def main() -> None:
    parser = arguments(__doc__.partition("\n")[0])
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--agents", type=int, default=10)
    parser.add_argument("--evaluations", type=int, default=100)
    options = parser.parse_args()
    questions = [
        QuestionRecord(f"example-{i}", f"What is {i} + {i}?", [str(2 * i)])
        for i in range(options.questions)
    ]
    records = [evaluation(i, questions, options.agents) for i in range(options.evaluations)]
    for record in records:
        record.graph.digest  # noqa: B018 -- whoever evaluates a graph has asked for it before
    with TemporaryDirectory() as folder:
        # The first evaluation also compiles statements and stores the questions.
        times = list(measure(Path(folder), records))[1:]
    calls = options.questions * options.agents
    store, raw = (statistics.median(column) for column in zip(*times, strict=True))
    report(
        {
            "of_raw": statistics.median(bare / through for through, bare in times),
            "calls_per_second": calls / store,
            "target_of_raw": 0.25,
        },
        [
            {
                "writer": writer,
                "calls": calls,
                "evaluations": len(times),
                "ms_per_evaluation": 1e3 * seconds,
                "us_per_call": 1e6 * seconds / calls,
                "calls_per_second": calls / seconds,
            }
            for writer, seconds in (("Store.add_evaluation", store), ("sqlite3", raw))
        ],
        options,
    )


if __name__ == "__main__":
    main()
