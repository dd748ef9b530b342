"""Pool files whose servers are processes of the tests' own, and are gone when a test ends."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from swarm.agents import standing
from swarm.serving import control
from swarm.serving.plan import Patience, with_free_ports
from swarm.serving.processes import has_ended, marked

ZOO = Path(__file__).parents[2] / "examples/zoo"
FAKE = Path(__file__).with_name("fake_vllm.py")
LETTERS = "abcdef"
QUICK = Patience(backoff=0.05, longest=0.2, starts=3, deaths=10, window=600, probe=0.1, grace=5)
PATIENCE = 60
"""Seconds after which a wait of a test is a failure."""


def until(true, what="it"):
    """Waits until `true()` is, and gives what it returned."""
    deadline = time.monotonic() + PATIENCE
    while not (found := true()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.02)
    return found


class World:
    """A folder with adapters called after letters, and a pool file that serves them."""

    def __init__(self, folder):
        self.folder = folder
        self.file = folder / "pool.toml"
        for letter in LETTERS:
            adapter = folder / "adapters" / letter
            adapter.mkdir(parents=True)
            for part in (ZOO / "adapters/mirror").iterdir():
                (adapter / part.name).write_bytes(part.read_bytes())
        (folder / "base").mkdir()
        for part in (ZOO / "base").iterdir():
            (folder / "base" / part.name).write_bytes(part.read_bytes())

    def write(self, servers=1, experts=None, table="", **fake):
        """`fake` is what `fake_vllm` is told; `table` more lines of the first server."""
        fake["parent"] = os.getpid()  # servers must not outlive tests that are killed
        args = [word for key, value in fake.items() for word in ("--fake", f"{key}={value}")]
        text = ['name = "letters"', "[defaults]", 'engine = "server"', 'prompt = "compact"']
        text += ["[defaults.options]", "concurrency = 4"]
        for k in range(servers):
            text += ["[[servers]]", f'name = "s{k}"', 'model = "base"']
            text += [f"command = {json.dumps([sys.executable, str(FAKE)])}"]
            text += [f"args = {json.dumps(args)}"] + ([table] if k == 0 else [])
        for letter in experts if experts is not None else LETTERS:
            text += ["[[experts]]", f'name = "{letter}"', f'adapter = "adapters/{letter}"']
            text += [f'options = {{ server = "s{LETTERS.index(letter) % servers}" }}']
        self.file.write_text("\n".join(text) + "\n")
        return self.file

    @property
    def place(self):
        return standing.place(self.file)

    @property
    def state(self):
        return standing.current(self.place)

    def plan(self, **patience):
        plan = with_free_ports(self.file)
        return plan.model_copy(update={"patience": QUICK.model_copy(update=patience)})

    def up(self, **patience):
        """Starts the servers with little patience, and leaves them running."""
        with control.start(self.plan(**patience)) as starting:
            until(lambda: (state := starting.look()) and state.healthy, "healthy servers")
            starting.detach()
        return self.state

    def pid(self, server="s0"):
        return self.state.server(server).pid


@pytest.fixture
def world(tmp_path, monkeypatch):
    monkeypatch.setenv("SWARM_STATE", str(tmp_path / "state"))
    world = World(tmp_path / "world")
    tokens = set()
    yield world
    if (last := standing.last(world.place)) is not None:
        tokens.add(last.token)
    state = world.state
    control.down(world.file)
    assert state is None or has_ended(state.pid)
    assert not any(marked(token) for token in tokens)


def kill(pid):
    os.kill(pid, signal.SIGKILL)
