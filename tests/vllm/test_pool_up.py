"""`swarm pool up` with a real vLLM: the zoo is served, and a job survives the server's death.

The rest of swarm runs in this process, which is the environment that has vLLM.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import threading
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

import swarm
from swarm.agents import standing
from swarm.app.cli import main
from swarm.runtime.progress import Silent
from swarm.serving.processes import has_ended, marked

pytestmark = pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed here")

ZOO = Path(__file__).parents[2] / "examples" / "zoo"
NAMES = ("times_lo", "plus_hi", "minus_lo", "double", "mirror")
KILLS = 2
ARGS = [
    *("--dtype", "float32", "--max-model-len", "256", "--enforce-eager"),
    *("--generation-config", "vllm", "--max-loras", "5", "--no-enable-chunked-prefill"),
]


def wait_for(true, seconds=400):
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end
        time.sleep(0.1)
    return found


def fit(pool, url):
    job = swarm.RoleStep(particles=4, iterations=2, patience=2, seed=1)
    task, runtime = swarm.Task.load(ZOO / "relay.toml"), swarm.Runtime()
    found = job.fit(task, pool, limit=20, store=url, runtime=runtime, progress=Silent())
    runtime.close()
    return found


def outcome(url):
    """What a job comes to, however it came about."""
    with swarm.Store.open(url) as store:
        [run] = store.runs()
        state = store.state(run.id)
        scores = [entry["role"]["scores"] for entry in state["history"]]
        asked = sum(view.batch.requests for view in store.batches(run.id))
        return run.status, state["search"], state["best"], scores, asked


@pytest.fixture(scope="module")
def pool_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pool")
    lines = ['name = "zoo"', "[defaults]", 'engine = "server"', 'prompt = "compact"']
    lines += ["[defaults.sampling]", "max_tokens = 24"]
    lines += ["[[servers]]", 'name = "base"', f"model = {json.dumps(str(ZOO / 'base'))}"]
    lines += ['memory = "256MiB"', f"args = {json.dumps(ARGS)}", "health_timeout = 120"]
    lines += ['env = { VLLM_NO_USAGE_STATS = "1", HF_HUB_OFFLINE = "1" }']
    for name in NAMES:
        adapter = json.dumps(str(ZOO / "adapters" / name))
        lines += ["[[experts]]", f'name = "{name}"', f"adapter = {adapter}"]
    file = folder / "pool.toml"
    file.write_text("\n".join(lines) + "\n")
    before = os.environ.get("SWARM_STATE")
    os.environ["SWARM_STATE"] = str(folder / "state")
    try:
        with pytest.raises(SystemExit) as ended:
            main(["pool", "up", str(file)])
        assert ended.value.code == 0
        yield file
    finally:
        with pytest.raises(SystemExit):
            main(["pool", "down", str(file)])
        if before is None:
            del os.environ["SWARM_STATE"]
        else:
            os.environ["SWARM_STATE"] = before


def state(file):
    return standing.current(standing.place(file))


def answered(file):
    """How many requests the server says to have answered whole, in all its lives."""
    log = Path(state(file).servers[0].log).read_text(errors="replace")
    return len(re.findall(r'"POST /v1/chat/completions HTTP/1\.1" 200', log))


def in_session(leader):
    """The processes that a server has started, itself included."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        if int(fields[3]) == leader:
            found.add(int(entry.parent.name))
    return found


def command(capsys, *arguments):
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--json"])
    return ended.value.code, json.loads(capsys.readouterr().out)


def test_every_expert_answers(pool_file, capsys):
    question = ("--question", "a plus 16 10 ?")
    code, checked = command(capsys, "pool", "check", str(pool_file), *question)
    assert code == 0
    assert [expert["expert"] for expert in checked["experts"]] == [*NAMES]
    for expert in checked["experts"]:
        assert expert["context"] == 256
        assert expert["same_twice"] is True
        assert expert["completion_tokens"] > 0
    assert len({expert["answers"][0] for expert in checked["experts"]}) > 1
    code, up = command(capsys, "pool", "status", str(pool_file))
    assert code == 0
    assert up["servers"][0]["requests"]["done"] >= 2 * len(NAMES)


def test_a_job_survives_a_killed_server(pool_file, tmp_path):
    urls = [f"sqlite:///{tmp_path / name}.db" for name in ("calm", "killed")]
    pool = swarm.Pool.load(pool_file)
    before = answered(pool_file)
    fit(pool, urls[0])
    calm = outcome(urls[0])
    assert answered(pool_file) - before == calm[-1]

    before, restarts, seconds = answered(pool_file), state(pool_file).servers[0].restarts, []
    job = threading.Thread(target=fit, args=(swarm.Pool.load(pool_file), urls[1]))
    job.start()
    for k in range(KILLS):
        goal = before + (k + 1) * calm[-1] // (KILLS + 2)
        wait_for(lambda goal=goal: answered(pool_file) >= goal or not job.is_alive())
        assert job.is_alive()
        started, left = time.monotonic(), marked(state(pool_file).token)
        # All of the server's are among them, whatever they call themselves.
        assert in_session(state(pool_file).servers[0].pid) <= set(left)
        os.kill(state(pool_file).servers[0].pid, signal.SIGKILL)
        wait_for(
            lambda k=k: (s := state(pool_file)).healthy and s.servers[0].restarts > restarts + k
        )
        seconds.append(time.monotonic() - started)
        assert len(left) > 1, "vLLM has processes of its own"
        assert all(map(has_ended, left))
    job.join()
    assert outcome(urls[1]) == calm
    # The server logs that an answer begins before it has left: one more may be lost a death.
    delivered = answered(pool_file) - before
    sys.stderr.write(f"restarts took {[round(s, 1) for s in seconds]} s; {delivered} answers\n")
    assert calm[-1] <= delivered <= calm[-1] + KILLS * 16 * len(NAMES)
