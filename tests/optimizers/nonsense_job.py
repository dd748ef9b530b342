"""A joint job of real, tiny models that talk nonsense; it can be killed at any point of its code.

Importing torch takes seconds, so this module runs as a program that imports it once and forks: it
reads what to do, one JSON object a line, and writes how that ended. Each is done by a process of
its own.

    {"store": url, "log": path}            a session of the job
    {..., "settings": {}}                  which has some settings of its own
    {"export": folder, "what": "expert", "log": path}    an expert with mixed weights is written
    {"export": folder, "what": "system", "log": path}    a system of such experts is written
    {..., "at": [point, k]}                killed from within, at the k-th `point`
    {..., "at": ..., "signal": 2}          the same, by another signal than SIGKILL
    {..., "after": seconds}                killed from without, after so long
    {..., "largest": bytes}                no file can grow beyond so much

The log has one JSON value a line: a point that was reached, or a list of keys that an engine was
asked for. What was written is there however the process ends.
"""

from __future__ import annotations

import functools
import inspect
import json
import os
import resource
import signal
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "agents"))  # for `tiny`

SETTINGS = {"particles": 3, "assignments": 2, "iterations": 3, "patience": 3, "seed": 2}
QUESTIONS = [f"w{k} w{2 * k + 1} w{3 * k}" for k in range(4, 12)]


def even_words(example, text):
    """The share of words with an even number."""
    words = [word for word in text.split() if word[1:].isdigit()]
    return sum(int(word[1:]) % 2 == 0 for word in words) / max(1, len(words))


def task():
    import swarm

    dev = [{"question": question, "answer": "even words"} for question in QUESTIONS]
    return swarm.Task.from_records("nonsense", even_words, dev=dev)


def pool(folder):
    import swarm

    sampling = {"max_tokens": 6}
    return swarm.Pool(
        swarm.Expert(
            name=adapter.name,
            model=str(folder / "base"),
            adapter=str(adapter),
            prompt="compact",
            sampling=sampling,
        )
        for adapter in sorted((folder / "adapters").iterdir())
    )


def make_weights(folder):
    import tiny

    tiny.make_base(folder / "base", seed=0)
    for seed, name in enumerate("abcd"):
        tiny.make_adapter(folder / "adapters" / name, seed)


class Session:
    """What one process does, and where it is."""

    def __init__(self, order):
        self._log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._end = order.get("at")
        self._signal = order.get("signal", signal.SIGKILL)
        self._reached = Counter()
        self._step = "outside"
        """Part of a point's name: an engine is asked in a role-step and in a weight-step."""

    def write(self, entry):
        os.write(self._log, json.dumps(entry).encode() + b"\n")

    def at(self, point):
        point = f"{self._step}: {point}"
        self.write(point)
        self._reached[point] += 1
        if [point, self._reached[point]] == self._end:
            os.kill(os.getpid(), self._signal)

    @contextmanager
    def during(self, step):
        self._step = step
        self.at("begins")
        yield
        self.at("ends")
        self._step = "outside"


def watch(session):
    """Marks all points at which a session may be killed."""
    import safetensors.torch

    from swarm.agents import merge
    from swarm.agents.engines import transformers
    from swarm.optimizers.hetero_swarm import JointSearch
    from swarm.optimizers.job import Job
    from swarm.runtime.recording import StoreRecorder
    from swarm.store import Store

    def patch(owner, name, make):
        function = getattr(owner, name)
        setattr(owner, name, functools.wraps(function)(make(function)))

    def around(owner, name, before=True):
        def make(function):
            def marked(*args, **kwargs):
                if before:
                    session.at(f"before {name}")
                result = function(*args, **kwargs)
                session.at(f"after {name}")
                return result

            return marked

        patch(owner, name, make)

    def step(owner, name):
        def make(function):
            async def marked(*args):
                with session.during(name):
                    return await function(*args)

            def marked_too(*args):
                with session.during(name):
                    return function(*args)

            return marked if inspect.iscoroutinefunction(function) else marked_too

        patch(owner, name, make)

    def logged(function):
        def marked(engine, requests):
            session.write([request.key().hex() for request in requests])
            return function(engine, requests)

        return marked

    def pieces(function):
        def marked(*args):
            for piece in function(*args):
                session.at("tensor merged")
                yield piece

        return marked

    step(JointSearch, "role_step")
    step(JointSearch, "weight_step")
    step(Job, "commit")
    around(transformers, "_Base")
    around(transformers.TransformersEngine, "_generate")
    patch(transformers.TransformersEngine, "_generate", logged)
    around(transformers, "merged")
    patch(merge, "_merge", pieces)
    around(merge.shutil, "copyfile")
    around(safetensors.torch, "save_file")
    around(merge.Path, "rename")
    around(StoreRecorder, "record_all")
    for name in (
        *("add_experts", "add_batches", "add_answers"),  # one transaction
        *("add_evaluations", "save_state"),  # one transaction
        *("start_run", "resume_run", "finish_run"),
    ):
        around(Store, name, before=False)


def fit(folder, store, settings):
    import swarm
    from swarm.runtime.progress import Silent

    job = swarm.HeterogeneousSwarm(**SETTINGS, **settings)
    job.fit(task(), pool(folder), store=store, progress=Silent())


def export(folder, to, what):
    import swarm
    from swarm.agents.mixing import Mixer, export_expert

    given = pool(folder)
    mixer = Mixer(given)
    mixed = [mixer.expert(k, [0.4, 0.3, 0.2, 0.1], f"{name}@3") for k, name in enumerate("ab")]
    if what == "expert":
        export_expert(mixed[0], to)
    else:
        experts = swarm.Pool([*mixed, given["c"]])
        swarm.chain(*experts, pool=experts).export(to)


def work(folder, order):
    """Does what was ordered; returns the error it was left with."""
    import torch

    torch.set_num_threads(1)
    watch(Session(order))
    if (largest := order.get("largest")) is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
    try:
        if "export" in order:
            export(folder, order["export"], order["what"])
        else:
            fit(folder, order["store"], order.get("settings", {}))
    except BaseException as error:
        return f"{type(error).__name__}: {error}"


def in_a_process(function, *args, after=None):
    """How it ended: the signal that killed it, or else what it returned."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writing, json.dumps({"error": function(*args)}).encode())
        finally:
            os._exit(0)
    os.close(writing)
    if after is not None:
        deadline = time.monotonic() + after
        how = os.WEXITED | os.WNOHANG | os.WNOWAIT
        while time.monotonic() < deadline and os.waitid(os.P_PID, child, how) is None:
            time.sleep(0.001)
        os.kill(child, signal.SIGKILL)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    return {"killed": os.WTERMSIG(status)} if os.WIFSIGNALED(status) else json.loads(said)


def import_all():
    """Everything that a session imports. No tensor may be worked on here: threads that torch may
    have started do not survive a fork."""
    import peft  # noqa: F401
    import relay_job
    import safetensors.torch  # noqa: F401
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast  # noqa: F401

    import swarm
    from swarm.runtime.progress import Silent

    job = swarm.HeterogeneousSwarm(particles=2, assignments=1, iterations=1)
    job.fit(relay_job.task(), relay_job.pool(), store="sqlite://", progress=Silent())
    assert threading.active_count() == 1


def serve(folder):
    import_all()
    in_a_process(make_weights, folder)
    for line in sys.stdin:
        order = json.loads(line)
        ended = in_a_process(work, folder, order, after=order.get("after"))
        print(json.dumps(ended), flush=True)  # noqa: T201


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
