"""What the `vllm` engine does before vLLM is asked; `tests/vllm` asks a real one."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from engine_contract import ask, greedy

from swarm.agents import weights
from swarm.agents.engines import create_engine, vllm
from swarm.agents.engines.vllm import VllmEngine
from swarm.agents.engines.vllm_core import Plan, VllmOptions, plan_core
from swarm.agents.expert import Expert, Pool
from swarm.agents.messages import Request
from swarm.errors import ConfigError, EngineError, MissingPackageError

ZOO = Path(__file__).parents[2] / "examples" / "zoo"


@pytest.fixture
def engine(monkeypatch):
    monkeypatch.setattr(VllmEngine, "unavailable", classmethod(lambda cls: None))
    return create_engine("vllm", batch=50, adapters=4, host_memory=10)


def expert(name="e", **fields):
    return Expert(**{"name": name, "engine": "vllm", "model": "org/base", **fields})


def test_without_vllm_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(VllmEngine, "unavailable", classmethod(lambda cls: "vllm"))
    with pytest.raises(MissingPackageError, match=r"pip install 'agent-swarm\[vllm\]'"):
        create_engine("vllm")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"max_lora": 3}, r"options.max_lora`: unknown \(did you mean `max_loras`\?\)"),
        ({"gpu_memory_utilization": 1.5}, "options.gpu_memory_utilization`: `1.5` must be less"),
        ({"kv_cache": 0}, "options.kv_cache`: `0` must be greater than 0"),
        ({"dtype": "int8"}, "options.dtype`: `'int8'` must be"),
        ({"args": {"trust_remote_code": True}}, "`trust_remote_code` is decided by this engine"),
    ],
)
def test_options_are_checked_before_anything_is_loaded(options, told):
    with pytest.raises(ConfigError, match=told) as error:
        Pool([expert(options=options)])
    assert "\n" not in str(error.value)
    assert "expert e" in str(error.value)


def test_what_only_says_how_it_runs_changes_no_fingerprint():
    plain = expert()
    for same in ({"gpu_memory_utilization": 0.5}, {"kv_cache": 2}, {"max_loras": 3}):
        assert expert(options=same).fingerprint == plain.fingerprint
    for other in ({"dtype": "float16"}, {"tensor_parallel": 2}):
        assert expert(options=other).fingerprint != plain.fingerprint


def test_batches_are_bounded_and_want_few_adapters(engine):
    rng = random.Random(0)
    experts = [expert(f"e{k}", adapter=f"/a/{k}" if k else None) for k in range(11)]
    requests = [Request(rng.choice(experts), ask(str(i))) for i in range(300)]
    batches = asyncio.run(engine.plan(requests))
    assert sorted(i for batch in batches for i in batch) == list(range(300))
    wanted = [{requests[i].expert.overlay for i in batch} for batch in batches]
    assert max(map(len, batches)) <= 50
    assert max(map(len, wanted)) <= 4
    assert sum(map(len, wanted)) <= 11 + len(batches)  # an adapter is wanted by neighbours only


def test_experts_of_one_base_share_one_core(tmp_path):
    for name, config in (("a", '{"r": 4}'), ("b", '{"r": 8, "rank_pattern": {"q": 24}}')):
        (tmp_path / name).mkdir()
        (tmp_path / name / "adapter_config.json").write_text(config)
    experts = [expert(), expert(adapter=str(tmp_path / "a")), expert(adapter=str(tmp_path / "b"))]
    assert plan_core(experts) == Plan(VllmOptions(), 24)
    assert plan_core(experts).covers(plan_core(experts[:2]))
    assert not plan_core(experts[:1]).covers(plan_core(experts[:2]))
    with pytest.raises(EngineError, match="experts `e` and `f` are of one base"):
        plan_core([expert(), expert("f", options={"max_loras": 2})])


GIB = 1 << 30


class Sleeper:
    """A core of 4 GiB on a device where cores can sleep."""

    def __init__(self, expert, plan, adapters, folder):
        self.expert, self.plan, self.size, self.done = expert, plan, 4 * GIB, []

    async def sleep(self):
        self.done.append("sleep")
        return True

    async def wake(self):
        self.done.append("wake")
        return True

    def end(self):
        self.done.append("end")


def test_as_many_sleep_as_host_memory_can_hold(engine, monkeypatch):
    monkeypatch.setattr(vllm, "Core", Sleeper)
    a, b, c = (expert(name, model=f"org/{name}") for name in "abc")
    cores = {}

    async def work():
        for each in (a, b, c):
            await engine.load(each.base, [each])
            cores[each.name] = engine._cores[each.base]
            await engine.unload(each.base)
            await engine.unload(each.base)
        assert {name: core.done for name, core in cores.items()} == {
            "a": ["sleep", "end"],  # 10 GiB hold two of them: the first had to go
            "b": ["sleep"],
            "c": ["sleep"],
        }
        await engine.load(b.base, [b])
        assert engine._cores[b.base] is cores["b"]
        await engine.load(a.base, [a])
        assert engine._cores[a.base] is not cores["a"]
        await engine.close()

    asyncio.run(work())
    assert cores["b"].done == ["sleep", "wake", "end"]
    assert cores["c"].done == ["sleep", "end"]


def test_none_sleeps_where_there_is_no_room(monkeypatch, engine):
    monkeypatch.setattr(vllm, "Core", Sleeper)
    engine.host_memory = 3 * GIB
    only = expert(sampling=greedy())

    async def work():
        await engine.load(only.base, [only])
        core = engine._cores[only.base]
        await engine.unload(only.base)
        return core

    assert asyncio.run(work()).done == ["end"]


def test_what_a_base_takes(engine, monkeypatch):
    monkeypatch.setattr(vllm, "device_memory", lambda: 80 * GIB)
    half = expert(options={"gpu_memory_utilization": 0.5})
    assert engine.size(half.base, [half]) == 40 * GIB
    assert engine.size("vllm:org/base", [expert()]) == int(0.92 * 80 * GIB)
    options = {"kv_cache": 2, "max_loras": 3, "dtype": "float32"}
    base = expert(model=str(ZOO / "base"), options=options)
    gap = expert(model=str(ZOO / "base"), adapter=str(ZOO / "adapters" / "gap"), options=options)
    alone, together = (engine.size(base.base, experts) for experts in ([base], [base, gap]))
    numbers = (ZOO / "base" / "model.safetensors").stat().st_size
    assert 2 * GIB + numbers < alone < 2 * GIB + 1.2 * numbers
    assert together - alone == 3 * weights.size(ZOO / "adapters" / "gap")
    assert engine.size("vllm:org/base", [expert(options={"kv_cache": 2})]) is None  # not here yet


def test_files_are_read_ahead_of_bases_that_are_neither_loaded_nor_asleep(engine, monkeypatch):
    monkeypatch.setattr(vllm, "Core", Sleeper)
    base = expert(model=str(ZOO / "base"))

    async def work():
        fresh = await engine.prefetch(base.base, [base])
        await engine.load(base.base, [base])
        loaded = await engine.prefetch(base.base, [base])
        await engine.unload(base.base)
        asleep = await engine.prefetch(base.base, [base])
        await engine.close()
        return fresh, loaded, asleep

    assert asyncio.run(work()) == (True, False, True)


CORE = """
import sys, time
from multiprocessing import get_context
from pathlib import Path
from swarm.agents.engines.vllm_process import starting

print("began", flush=True)
with starting(Path(sys.argv[1]), offline=True):
    process = get_context("spawn").Process(target=time.sleep, args=(600,))
    process.start()
print(process.pid, flush=True)
sys.stdin.readline()
"""


def test_what_is_started_ends_with_the_process_even_if_it_is_killed(tmp_path):
    """And the main file, which has no guard, is not run again."""
    (tmp_path / "program.py").write_text(CORE)
    command = [sys.executable, tmp_path / "program.py", tmp_path]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as program:
        assert program.stdout.readline() == "began\n"
        core = Path("/proc") / program.stdout.readline().strip() / "stat"
        assert core.read_text().split()[2] != "Z"
        program.kill()
    for _ in range(3000):
        try:
            if core.read_text().split()[2] == "Z":  # dead, and nobody has asked how it ended
                return
        except (FileNotFoundError, ProcessLookupError):
            return
        time.sleep(0.01)
    raise AssertionError("it is still there")
