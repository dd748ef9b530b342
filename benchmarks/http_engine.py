"""A graph of six agents over HTTP, against a bare client that has nothing to wait for.

    python benchmarks/http_engine.py --out benchmarks/results/http_engine.json

A local server, a process of its own, answers each request after 50 ± 50 ms (uniform). Ours asks it
1 000 questions through a graph of six agents, 64 requests in flight, as a user's evaluation does:
prompts, LangGraph, scheduling, limits, retries, scoring; with a store that records every call, and
without. The bare client sends the same requests with the same limit: 64 asyncio streams that are
kept open, each of which takes the next request when it has its answer. It knows all prompts before
and waits for no predecessor, which is the harder to beat: no graph would allow it. (`ordered` is
the same client when a request may leave only once its predecessors were answered.) The server
counts what it was asked. In turn in one process after a warm-up; medians. `litellm` is ours with
`client = "litellm"` on a sample of the questions, scaled.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import multiprocessing
import random
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any

from _table import arguments, report

import swarm
from swarm.agents.messages import Messages, Response
from swarm.runtime.evaluate import Evaluation

IN_FLIGHT = 64
SLOWEST = 0.1
"""Seconds; latencies are uniform from 0."""
EDGES = [
    ("reader", "solver"), ("reader", "doubter"), ("planner", "solver"), ("planner", "writer"),
    ("solver", "judge"), ("doubter", "judge"), ("writer", "judge"), ("planner", "judge"),
]  # fmt: skip
AGENTS = ("reader", "planner", "solver", "doubter", "writer", "judge")

Asked = list[list[tuple[str, Messages]]]
"""Question → agent by agent, in an order that the graph allows: its name, its prompt."""


class Answering(asyncio.Protocol):
    """A server in as few lines and as little time as can be."""

    asked = 0
    latency = random.Random(0)

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.data = b""

    def data_received(self, data: bytes) -> None:
        self.data += data
        while True:
            end = self.data.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self.data[:end].lower()
            at = head.find(b"content-length:") + 15
            size = int(head[at:].split(b"\r\n", 1)[0])
            body = self.data[end + 4 : end + 4 + size]
            if len(body) < size:
                return
            self.data = self.data[end + 4 + size :]
            if head.startswith(b"get"):  # how much it was asked
                self.answer(b"%d" % Answering.asked)
                continue
            Answering.asked += 1
            asyncio.get_running_loop().call_later(
                self.latency.uniform(0, SLOWEST), self.answer, completion(body)
            )

    def answer(self, body: bytes) -> None:
        self.transport.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
            % (len(body), body)
        )


def completion(body: bytes) -> bytes:
    """An answer of 20 words that is another for each prompt."""
    words = hashlib.blake2b(body, digest_size=40).hexdigest()
    text = " ".join(words[i : i + 4] for i in range(0, 80, 4))
    return (
        b'{"id":"x","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,'
        b'"message":{"role":"assistant","content":"%b"},"finish_reason":"stop"}],'
        b'"usage":{"prompt_tokens":100,"completion_tokens":20,"total_tokens":120}}' % text.encode()
    )


def serve(pipe: Connection) -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Answering, "127.0.0.1", 0, backlog=256)
        pipe.send(server.sockets[0].getsockname()[1])
        await loop.run_in_executor(None, pipe.recv)  # until it is told, or the other end is gone

    asyncio.run(run())


def experts(port: int, **options: Any) -> swarm.Pool:
    options = {"url": f"http://127.0.0.1:{port}/v1", "concurrency": IN_FLIGHT, **options}
    return swarm.Pool(
        swarm.Expert(
            name=name,
            engine="server",
            model="openai/m",
            # One model, so that there is one limit; and no two ask the same.
            sampling=swarm.Sampling(seed=seed),
            price=swarm.Price(input=1, output=2),
            options=options,
        )
        for seed, name in enumerate(AGENTS)
    )


def task_of(n: int) -> swarm.Task:
    records = [
        {"question": f"What comes of {i} when it is {'doubled ' * (i % 7)}?", "answer": "x"}
        for i in range(n)
    ]
    return swarm.Task.from_records("http", "exact", test=records)


GRAPH = swarm.AgentGraph(
    agents=tuple(swarm.graphs.Agent(name=name, expert=name) for name in AGENTS), edges=EDGES
)


def evaluate(pool: swarm.Pool, task: swarm.Task, store: str | None) -> Evaluation:
    """As a user would: a system, a task, a store."""
    system = swarm.System(GRAPH, pool, runtime=swarm.Runtime())
    return system.evaluate(task, store=store)


def prompts_of(evaluation: Evaluation) -> Asked:
    """What was asked; checks that all was answered."""
    asked: Asked = [[] for _ in evaluation.answers]
    for rows, run in evaluation.runs:
        for agent in evaluation.graph.order:
            entry = run.log[agent.name]
            for row, prompt, outcome in zip(rows, entry.prompts, entry.outcomes, strict=True):
                assert isinstance(outcome, Response), outcome
                asked[row].append((agent.name, prompt))
    return asked


async def send(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int, messages: Messages
) -> str:
    """One request of the bare client on a connection of its own."""
    body = json.dumps(
        {
            "model": "m",
            "messages": [{"role": role, "content": content} for role, content in messages],
            "temperature": 0.0,
            "max_tokens": 256,
        }
    ).encode()
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (port, len(body), body)
    )
    head = await reader.readuntil(b"\r\n\r\n")
    size = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
    answer = json.loads(await reader.readexactly(size))
    text: str = answer["choices"][0]["message"]["content"]
    return text


async def bare(port: int, asked: Asked) -> int:
    """As many connections as may be in flight; returns how many answers there were."""
    left = iter([prompt for of_question in asked for _, prompt in of_question])
    answers: list[str] = []

    async def work() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for messages in left:
            answers.append(await send(reader, writer, port, messages))
        writer.close()

    await asyncio.gather(*(work() for _ in range(IN_FLIGHT)))
    return len(answers)


async def ordered(port: int, asked: Asked) -> int:
    """The same, where each agent waits for those that it reads."""
    free: asyncio.Queue[Any] = asyncio.Queue()
    for _ in range(IN_FLIGHT):
        free.put_nowait(await asyncio.open_connection("127.0.0.1", port))
    answers: list[str] = []

    async def ask(messages: Messages, before: list[asyncio.Task[None]]) -> None:
        if before:
            await asyncio.wait(before)
        reader, writer = await free.get()
        answers.append(await send(reader, writer, port, messages))
        free.put_nowait((reader, writer))

    tasks: list[asyncio.Task[None]] = []
    for of_question in asked:
        named: dict[str, asyncio.Task[None]] = {}
        for name, messages in of_question:
            before = [named[u] for u, v in EDGES if v == name]
            named[name] = asyncio.create_task(ask(messages, before))
        tasks += named.values()
    await asyncio.gather(*tasks)
    while not free.empty():
        free.get_nowait()[1].close()
    return len(answers)


async def count(port: int) -> int:
    """How many requests the server has had."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\nContent-Length: 0\r\n\r\n")
    head = await reader.readuntil(b"\r\n\r\n")
    size = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
    total = int(await reader.readexactly(size))
    writer.close()
    return total


def stores() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        for i in range(1000):
            yield f"{folder}/{i}.db"


def measure(port: int, questions: int, rounds: int, sample: int) -> dict[str, dict[str, float]]:
    task, pool, paths = task_of(questions), experts(port), stores()
    evaluate(pool, task_of(50), next(paths))  # imports, connections
    asked = prompts_of(evaluate(pool, task, None))
    found: dict[str, dict[str, list[float]]] = {}

    def note(name: str, work: Callable[[], Any], share: float = 1.0) -> None:
        before, cpu, clock = asyncio.run(count(port)), time.process_time(), time.perf_counter()
        work()
        seconds, cpu = time.perf_counter() - clock, time.process_time() - cpu
        requests = asyncio.run(count(port)) - before
        assert requests == round(share * questions) * len(AGENTS), requests
        row = found.setdefault(name, {"seconds": [], "cpu_us_per_request": [], "requests": []})
        row["seconds"].append(seconds / share)
        row["cpu_us_per_request"].append(1e6 * cpu / requests)
        row["requests"].append(requests)

    def run(work: Callable[[int, Asked], Awaitable[int]]) -> Callable[[], None]:
        return lambda: asyncio.run(work(port, asked))  # type: ignore[arg-type, return-value]

    for _ in range(rounds):
        note("bare client", run(bare))
        note("ours, recorded in a store", lambda: evaluate(pool, task, next(paths)))
        note("bare client, ordered", run(ordered))
        note("ours, no store", lambda: evaluate(pool, task, None))
    if sample:
        by_litellm = experts(port, client="litellm")
        evaluate(by_litellm, task_of(10), None)
        name = f"ours by LiteLLM, {sample} questions, scaled"
        note(name, lambda: evaluate(by_litellm, task_of(sample), None), sample / questions)
    return {
        name: {key: statistics.median(values) for key, values in row.items()}
        for name, row in found.items()
    }


def main() -> None:
    parser = arguments(__doc__.partition("\n")[0])
    parser.add_argument("--questions", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--litellm", type=int, default=100, help="questions that it is asked")
    options = parser.parse_args()
    here, there = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=serve, args=(there,), daemon=True)
    process.start()
    try:
        found = measure(here.recv(), options.questions, options.rounds, options.litellm)
    finally:
        here.send(None)
        process.join(5)
    seconds = {name: row["seconds"] for name, row in found.items()}
    requests = options.questions * len(AGENTS)
    report(
        {
            "of_bare": seconds["bare client"] / seconds["ours, recorded in a store"],
            "of_bare_no_store": seconds["bare client"] / seconds["ours, no store"],
            "requests": requests,
            "in_flight": IN_FLIGHT,
            "lower_bound_seconds": requests * SLOWEST / 2 / IN_FLIGHT,
        },
        [
            {"what": name, **row, "of_bare": seconds["bare client"] / row["seconds"]}
            for name, row in found.items()
        ],
        options,
    )


if __name__ == "__main__":
    main()
