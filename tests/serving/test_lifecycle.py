"""Servers come up together or not at all, are started again when they die, and leave nothing."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest

from swarm.agents import standing
from swarm.errors import ConfigError, EngineError, PoolError
from swarm.serving import control
from swarm.serving.processes import has_ended, marked

from .conftest import kill, until


def children(log):
    """The processes that servers have started, as their log says."""
    lines = Path(log).read_text().splitlines()
    return [int(line.split()[1]) for line in lines if line.startswith("child ")]


def everything(state):
    """All processes of a supervisor, itself among them."""
    return {state.pid, *marked(state.token)}


def refused(world, **patience):
    """How `up` fails."""
    with pytest.raises(EngineError) as error, control.start(world.plan(**patience)) as starting:
        until(lambda: starting.look() and False, "the end")
    return str(error.value)


class TestUp:
    def test_all_servers_of_a_pool_with_their_adapters(self, world):
        world.write(servers=2)
        state = world.up()
        assert [server.phase for server in state.servers] == ["healthy", "healthy"]
        assert [list(server.adapters) for server in state.servers] == [["a", "c", "e"], [*"bdf"]]
        assert len({server.port for server in state.servers}) == 2
        assert control.status(state) == {"s0": (0, 0, 0), "s1": (0, 0, 0)}

    def test_servers_of_one_device_start_one_after_the_other(self, world):
        world.write(servers=3, start=0.3)
        state = world.up()
        times = sorted((server.started_at, server.healthy_since) for server in state.servers)
        assert all(healthy <= started for (_, healthy), (started, _) in pairwise(times))

    def test_it_lives_on_and_its_port_stays(self, world):
        world.write()
        port = world.up().servers[0].port
        control.down(world.file)
        assert world.state is None
        assert world.up().servers[0].port == port

    def test_a_port_that_is_taken(self, world):
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            port = other.getsockname()[1]
            world.write(table=f"port = {port}")
            with pytest.raises(ConfigError, match=f"`s0`: key `port`: {port} is taken by another"):
                world.plan()

    def test_a_chosen_port_that_is_taken_is_chosen_anew(self, world):
        world.write()
        first = world.plan().servers[0].port
        with socket.socket() as other:
            other.bind(("127.0.0.1", first))
            other.listen()
            moved = world.plan().servers[0].port
            assert moved != first
            world.up()
            assert world.state.servers[0].port == moved
            assert standing.port_of(world.file, "s0") == moved

    def test_a_server_that_cannot_start(self, world):
        world.write(servers=2, broken="no room for the weights", mended=world.folder / "never")
        said = refused(world)
        assert "server `s0`: exit code 1: RuntimeError: no room for the weights; see `" in said
        assert said.endswith("s0.log`; all servers have been stopped again")
        assert world.state is None

    def test_wrong_flags(self, world):
        world.write(table="")
        text = world.file.read_text().replace("args = [", 'args = ["--wrong-flag", ')
        world.file.write_text(text)
        assert "error: unrecognized arguments: --wrong-flag" in refused(world)

    def test_a_program_that_is_not_there(self, world):
        world.write()
        world.file.write_text(world.file.read_text().replace(sys.executable, "./gone/python"))
        said = refused(world)
        assert "gone/python` can't be started: No such file or directory" in said

    def test_no_vllm(self, world):
        world.write()
        lines = world.file.read_text().splitlines()
        text = "\n".join(line for line in lines if not line.startswith("command"))
        world.file.write_text(text)
        if (said := refused(world)) and "vllm" in said:
            assert "No module named 'vllm" in said
            assert "install vLLM for `" in said

    def test_one_that_takes_too_long(self, world):
        world.write(table="start_timeout = 0.5", forever=1)
        assert "not healthy within `start_timeout` 0.5 s; its last line: loading" in refused(world)

    def test_one_that_forgets_an_adapter(self, world):
        world.write(forget="c")
        assert "but not `c`" in refused(world)

    def test_the_second_of_two(self, world):
        world.write()
        world.up()
        assert "another `swarm pool up` has just started" in refused(world)
        assert world.state.healthy


class TestDeath:
    def test_a_killed_server_is_started_again_and_its_children_are_not_left(self, world):
        world.write(child=1)
        state = world.up()
        [child] = until(lambda: children(state.servers[0].log))
        first = world.pid()
        kill(first)
        until(lambda: world.state.healthy and world.pid() != first, "the next server")
        assert has_ended(child)
        [server] = world.state.servers
        assert server.restarts == 1
        assert server.note == "killed by SIGKILL"

    def test_one_that_ends_by_itself_says_why(self, world):
        world.write(die=1.5, once=world.folder / "once")
        world.up()
        server = until(lambda: (s := world.state.servers[0]).phase == "failed" and s, "giving up")
        assert (
            "3 starts in a row have failed: exit code 1: RuntimeError: it has been" in server.note
        )
        assert world.state.pid, "the supervisor is still there to say so"

    def test_one_that_dies_again_and_again(self, world):
        world.write()
        world.up(deaths=3)
        for k in range(3):
            kill(until(world.pid))
            want = "failed" if k == 2 else "healthy"
            until(
                lambda k=k, want=want: (
                    (s := world.state.servers[0]).phase == want and (k == 2 or s.restarts == k + 1)
                )
            )
        assert "3 deaths within 600 s: killed by SIGKILL" in world.state.servers[0].note

    def test_one_that_stops_answering(self, world):
        world.write(table="health_timeout = 0.6")
        world.up()
        first = world.pid()
        os.kill(first, signal.SIGSTOP)
        until(lambda: world.state.healthy and world.pid() != first, "the next server")
        assert has_ended(first)
        assert world.state.servers[0].note == "no healthy answer for 0.6 s"

    def test_one_that_says_it_is_sick(self, world):
        sick = world.folder / "sick"
        world.write(table="health_timeout = 0.3", sick=sick)
        world.up()
        first = world.pid()
        sick.touch()
        until(lambda: world.state.servers[0].phase == "restarting")
        sick.unlink()
        until(lambda: world.state.healthy and world.pid() != first, "the next server")

    def test_it_is_not_started_again_with_other_weights(self, world):
        world.write()
        world.up()
        config = world.folder / "adapters/a/adapter_config.json"
        config.write_text(config.read_text() + "\n")
        kill(world.pid())
        until(lambda: world.state.servers[0].phase == "failed", "giving up")
        assert "adapters/a` have changed meanwhile" in world.state.servers[0].note


class TestEnd:
    def test_down(self, world):
        world.write(servers=2, child=1)
        state = world.up()
        until(lambda: all(children(server.log) for server in state.servers))
        left = everything(state)
        assert len(left) == 5
        ended = control.down(world.file)
        assert ended == (True, ("s0", "s1"), False, 0)
        assert all(map(has_ended, left))
        assert control.down(world.file) == (False, (), False, 0)

    def test_a_killed_supervisor_takes_its_servers_along(self, world):
        world.write(child=1)
        state = world.up()
        until(lambda: children(state.servers[0].log))
        left = everything(state)
        kill(state.pid)
        until(lambda: all(map(has_ended, left)), "their end")
        assert world.state is None
        assert world.up().healthy

    def test_even_if_its_watchdog_was_killed_before(self, world):
        world.write(child=1)
        state = world.up()
        until(lambda: children(state.servers[0].log))
        for child in _children_of(state.pid) - set(marked(state.token)):
            kill(child)
            until(lambda child=child: _children_of(state.pid) - set(marked(state.token)) - {child})
        left = everything(state)
        kill(state.pid)
        until(lambda: all(map(has_ended, left)), "their end")

    def test_what_both_have_left_is_swept_by_down(self, world):
        world.write(child=1)
        state = world.up()
        [child] = until(lambda: children(state.servers[0].log))
        dogs = _children_of(state.pid) - set(marked(state.token))
        os.kill(state.pid, signal.SIGSTOP)  # it can't replace its watchdog
        for pid in (*dogs, state.pid):
            kill(pid)
        until(lambda: world.state is None)
        until(lambda: has_ended(state.servers[0].pid), "the server, which dies with its parent")
        assert not has_ended(child)
        ended = control.down(world.file)
        assert ended == (False, (), False, 1)
        assert has_ended(child)

    def test_leaving_before_they_are_up_stops_them(self, world):
        world.write(forever=1)
        with control.start(world.plan()) as starting:
            state = until(lambda: (s := starting.look()) and s.servers[0].pid and s)
        assert world.state is None
        assert all(map(has_ended, [state.pid, state.servers[0].pid]))

    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
    def test_a_killed_up_leaves_nothing(self, world, number):
        world.write(forever=1)
        up = subprocess.Popen(
            [sys.executable, "-c", _UP, str(world.file)],
            stderr=subprocess.PIPE,
        )
        state = until(lambda: (s := world.state) and s.servers[0].pid and s)
        left = everything(state)
        up.send_signal(number)
        up.wait(60)
        until(lambda: all(map(has_ended, left)), "their end")
        assert world.state is None

    def test_no_secret_is_written(self, world, monkeypatch):
        monkeypatch.setenv("VLLM_API_KEY", "sk-from-outside-123")
        world.write(table='env = { HF_TOKEN = "hf-very-secret-123" }')
        state = world.up()
        environ = Path(f"/proc/{state.servers[0].pid}/environ").read_bytes()
        assert b"HF_TOKEN=hf-very-secret-123" in environ
        for path in world.place.rglob("*"):
            if path.is_file():
                assert b"secret-123" not in path.read_bytes()
                assert b"sk-from-outside" not in path.read_bytes()
        assert world.place.stat().st_mode & 0o077 == 0


_UP = "import sys; from swarm.app.cli import main; main(['pool', 'up', sys.argv[1]])"


def _children_of(pid):
    return {
        int(child)
        for task in Path(f"/proc/{pid}/task").iterdir()
        for child in (task / "children").read_text().split()
    }


def test_what_an_expert_says_of_a_server_that_is_not_as_it_should_be(world):
    import swarm
    from swarm.agents.engines.server import ServerEngine

    world.write()
    expert = swarm.Pool.load(world.file)["a"]
    with pytest.raises(PoolError, match=r"its server `s0` is not up: `swarm pool up \S+pool.toml`"):
        ServerEngine.require(expert)
    world.up()
    ServerEngine.require(expert)
    config = world.folder / "adapters/a/adapter_config.json"
    config.write_text(config.read_text() + "\n")
    time.sleep(0.6)
    with pytest.raises(PoolError, match="was started before its weights or the pool file were"):
        ServerEngine.require(expert)
    ServerEngine.require(swarm.Pool.load(world.file)["b"])
    kill(world.pid())
    until(lambda: world.state.servers[0].phase == "failed")
    time.sleep(0.6)
    with pytest.raises(PoolError, match="has given up"):
        ServerEngine.require(swarm.Pool.load(world.file)["b"])


def test_state_is_read_whole_while_it_is_written(world):
    """Those who look never see half of it, nor keep a supervisor from its place."""
    world.write()
    world.up()
    for _ in range(300):
        assert standing.current(world.place) is not None
    json.loads((world.place / "state.json").read_text())
