"""The `vllm` engine answers as the transformers engine does, and gives back what it took."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from engine_contract import ask, greedy
from real_server import ZOO

import swarm
from swarm.agents.expert import Mixture
from swarm.agents.messages import Message, Request, Response
from swarm.agents.mixing import Mixer
from swarm.app.doctor import diagnose
from swarm.errors import EngineError


def generate(engine, requests):
    async def work():
        await engine.load(requests[0].expert.base, [request.expert for request in requests])
        return await engine.generate(requests)

    return asyncio.run(work())


def plain(answers):
    """All of them but how long they took."""
    return [answer._replace(seconds=0.0) for answer in answers]


def both(pool, in_process, prompts):
    """The same requests for the two engines."""
    return [
        [Request(expert, prompt) for prompt in prompts for expert in each.values()]
        for each in (pool, in_process)
    ]


def core_of(engine):
    [core] = engine._cores.values()
    return core


def processes(engine):
    """Of the one core that runs: itself, and its worker."""
    import psutil

    manager = core_of(engine)._engine.engine_core.resources.engine_manager
    [core] = [psutil.Process(process.pid) for process in manager.processes]
    return [core, *core.children(recursive=True)]


async def all_under_way(engine, requests):
    for _ in range(6000):
        if core_of(engine)._engine.get_num_unfinished_requests() == len(requests):
            return
        await asyncio.sleep(0.01)  # and the event loop is free
    raise AssertionError("they never were")


def questions(n):
    task = swarm.Task.load(ZOO / "relay.toml")
    return [ask(f"Question: {example.question}\nAnswer:") for example in task.dev[:n]]


def test_the_same_greedy_answers_as_the_transformers_engine(engine, transformers, pool, in_process):
    odd = [
        (Message("system", "times 07 16"), Message("user", "a plus 02 03 ?")),
        *map(ask, ("", "naïve ☃", "\ud800", "pass " * 200)),
    ]
    theirs, ours = both(pool, in_process, [*questions(20), *odd])
    expected, answers = generate(transformers, theirs), generate(engine, ours)
    pairs = zip(plain(expected), plain(answers), strict=True)
    assert [(ours[i], *pair) for i, pair in enumerate(pairs) if pair[0] != pair[1]] == []


def test_stop_strings_end_where_the_transformers_engine_ends(
    engine, transformers, pool, in_process
):
    def stopping(pool):
        sampling = greedy(stop=("= 0", " a ", ","))
        return swarm.Pool(e.model_copy(update={"sampling": sampling}) for e in pool.values())

    theirs, ours = both(stopping(pool), stopping(in_process), questions(8))
    assert plain(generate(engine, ours)) == plain(generate(transformers, theirs))


def test_mixtures_of_adapters_answer_as_they_do_in_the_transformers_engine(
    engine, transformers, pool, in_process
):
    def mixed(pool):
        mixer, rng = Mixer(pool), np.random.default_rng(3)
        return swarm.Pool(mixer.expert(k, rng.dirichlet(np.ones(9) / 3), f"m{k}") for k in range(6))

    theirs, ours = both(mixed(pool), mixed(in_process), questions(8))
    assert plain(generate(engine, ours)) == plain(generate(transformers, theirs))
    written = [path for path in Path(engine._folder.name).iterdir() if path.is_dir()]
    assert 0 < len(written) <= engine.adapters


def test_adapters_make_room_for_others(engine, in_process, tmp_path):
    expected = [answer.text for answer in generate(engine, [Request(in_process["gap"], ask("12"))])]
    for k in range(12):
        shutil.copytree(ZOO / "adapters" / "gap", tmp_path / str(k))
    copies = [
        in_process["gap"].model_copy(update={"name": str(k), "adapter": str(tmp_path / str(k))})
        for k in range(12)
    ]
    requests = [Request(copy, ask("12")) for copy in copies]
    assert {answer.text for answer in generate(engine, requests)} == set(expected)
    for request in requests:
        assert [answer.text for answer in generate(engine, [request])] == expected
    assert len(core_of(engine)._adapters) == engine.adapters == 10


def test_an_adapter_that_breaks_fails_its_own_requests(engine, in_process, tmp_path):
    shutil.copytree(ZOO / "adapters" / "gap", tmp_path / "torn")
    (tmp_path / "torn" / "adapter_model.safetensors").write_bytes(b"torn")
    gap = in_process["gap"]
    torn = gap.model_copy(update={"name": "torn", "adapter": str(tmp_path / "torn")})
    first, failed, last = generate(engine, [Request(e, ask("12")) for e in (gap, torn, gap)])
    assert first.text == last.text
    assert isinstance(failed, EngineError)
    assert f"adapter `{tmp_path / 'torn'}` can't be loaded on" in str(failed)
    assert "\n" not in str(failed)


def test_experts_of_one_base_must_have_the_same_options(engine, in_process):
    other = in_process["gap"].model_copy(update={"options": {"max_model_len": 128}})
    with pytest.raises(EngineError, match="of one base and have different `options`"):
        asyncio.run(engine.load(other.base, [in_process["mirror"], other]))


def test_a_cancelled_batch_is_aborted_inside_vllm(engine, in_process):
    long = {"sampling": swarm.Sampling(max_tokens=200, temperature=2.0)}
    requests = [
        Request(expert.model_copy(update=long), prompt, draw)
        for expert in in_process.values()
        for prompt in questions(4)
        for draw in range(3)
    ]
    expected = generate(engine, [Request(in_process["gap"], ask("12"))])

    async def cancel():
        task = asyncio.create_task(engine.generate(requests))
        await all_under_way(engine, requests)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return await engine.generate([Request(in_process["gap"], ask("12"))])

    answers = asyncio.run(cancel())
    assert plain(answers) == plain(expected)
    assert core_of(engine)._engine.get_num_unfinished_requests() == 0


def test_more_samples_at_once_than_fit_into_a_step(engine, in_process):
    sampled = {"sampling": swarm.Sampling(max_tokens=2, temperature=1.0)}
    gap = in_process["gap"].model_copy(update=sampled)
    requests = [Request(gap, ask("pass " * 230), draw) for draw in range(200)]
    answers = generate(engine, requests)
    assert all(isinstance(answer, Response) for answer in answers)
    assert sum(answer.usage.prompt_tokens for answer in answers) > 40_000
    assert len({answer.text for answer in answers}) > 1


def test_a_core_that_is_killed_fails_its_batch_and_is_started_again(engine, in_process):
    long = {"sampling": swarm.Sampling(max_tokens=200, temperature=2.0)}
    prompts = questions(20)
    requests = [Request(e.model_copy(update=long), p) for p in prompts for e in in_process.values()]
    expected = generate(engine, [Request(in_process["gap"], prompts[0])])

    async def kill():
        task = asyncio.create_task(engine.generate(requests))
        await all_under_way(engine, requests)
        processes(engine)[0].send_signal(signal.SIGKILL)
        return await task

    answers = asyncio.run(kill())
    failed = [answer for answer in answers if not isinstance(answer, Response)]
    assert failed
    assert all(isinstance(answer, EngineError) for answer in failed)
    assert "vLLM's process ended" in str(failed[0])
    again = generate(engine, [Request(in_process["gap"], prompts[0])])
    assert plain(again) == plain(expected)


def test_what_is_unloaded_takes_no_memory(engine, in_process):
    import psutil

    request = Request(in_process["gap"], ask("12"))
    expected = generate(engine, [request])
    running = processes(engine)
    assert sum(process.memory_info().rss for process in running) > 2**28
    asyncio.run(engine.unload(request.expert.base))
    assert psutil.wait_procs(running, timeout=30)[1] == []
    assert plain(generate(engine, [request])) == plain(expected)


def test_mixtures_of_models_are_bases_of_their_own(
    engine, transformers, pool, in_process, tmp_path
):
    from safetensors.torch import load_file, save_file

    shutil.copytree(ZOO / "base", tmp_path / "other")
    weights = load_file(tmp_path / "other" / "model.safetensors")
    moved = {name: tensor * 1.05 for name, tensor in weights.items()}
    save_file(moved, tmp_path / "other" / "model.safetensors", metadata={"format": "pt"})
    folders = (str(ZOO / "base"), str(tmp_path / "other"))
    mixture = Mixture(kind="model", folders=folders, coefficients=(0.5, 0.5))
    experts = [
        each["gap"].model_copy(update={"adapter": None, "mixture": mixture})
        for each in (in_process, pool)
    ]
    answers, expected = (
        generate(which, [Request(expert, prompt) for prompt in questions(5)])
        for which, expert in zip((engine, transformers), experts, strict=True)
    )
    assert plain(answers) == plain(expected)
    kept = [path.name for path in Path(engine._folder.name).iterdir()]
    assert mixture.digest.hex()[:32] not in kept  # it is in memory
    asyncio.run(engine.unload(experts[0].base))


def test_a_model_that_is_damaged_says_which(engine, tmp_path):
    shutil.copytree(ZOO / "base", tmp_path / "base")
    (tmp_path / "base" / "model.safetensors").write_bytes(b"{ damaged")
    expert = swarm.Expert(name="x", engine="vllm", model=str(tmp_path / "base"))
    with pytest.raises(EngineError, match=r"base` can't be loaded: \w+") as error:
        asyncio.run(engine.load(expert.base, [expert]))
    assert "\n" not in str(error.value)


def test_the_doctor_says_that_it_works_here():
    [finding] = [f for f in diagnose("sqlite:///none.db").engines if f.name == "vllm"]
    assert finding.works
    assert finding.detail.endswith("(here: cpu)")


PROGRAM = """
import sys
import swarm

expert = swarm.Expert(
    name="gap", engine="vllm", model=sys.argv[1], adapter=sys.argv[2], prompt="compact",
    sampling={"max_tokens": 24}, options={"max_model_len": 256, "kv_cache": 0.25},
)
system = swarm.chain("gap", pool=swarm.Pool([expert]))
print(system.invoke("a gap 02 09 ?").text, flush=True)
"""
SPY = """
import os, sys

def look(event, arguments):
    if event == "socket.getaddrinfo":
        host = arguments[0]
    elif event == "socket.connect" and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    else:
        return
    if str(host) not in {"127.0.0.1", "localhost", "::1", "None"}:
        with open(os.environ["SEEN"], "a") as file:
            file.write(f"{event} {host}\\n")

sys.addaudithook(look)
"""


def test_a_program_of_a_users_own(tmp_path):
    """It has no `__main__` guard and closes nothing. It ends, nothing is said but the answer, and
    no process reaches for the network."""
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "sitecustomize.py").write_text(SPY)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "SEEN": str(tmp_path / "seen")}
    program = subprocess.run(
        [sys.executable, tmp_path / "program.py", ZOO / "base", ZOO / "adapters" / "gap"],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
        timeout=600,
    )
    assert program.stderr == ""
    assert program.stdout == "a gap 02 09 = 07 , a 07\n"
    assert program.returncode == 0
    assert not (tmp_path / "seen").exists(), (tmp_path / "seen").read_text()
