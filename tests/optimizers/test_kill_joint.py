"""The joint job never loses work, with real models whose weights are really merged.

It is killed at every kind of point there is in its code, and at random times, and each time begun
again. What is promised:

- What a store holds after a kill is the job as it was after some whole iterations, and the answers
  of whole batches, bit for bit those of a job that nothing ever happened to.
- An answer that is in the store is never asked for again. What may be asked for again is the batch
  that an engine was at, or had just answered, when the job was killed: one a kill.
- The job ends as one that nothing ever happened to: graph, weights, scores, all of its state, and
  the number of requests it has on record. (Only two of its figures tell: of the calls that were
  spared, how many wanted what was known and how many what another wanted at the same time.)
"""

from __future__ import annotations

import copy
import json
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from importlib.util import find_spec

import nonsense_job
import pytest

import swarm

pytestmark = pytest.mark.skipif(
    any(find_spec(package) is None for package in ("torch", "transformers", "peft")),
    reason="needs torch, transformers and peft",
)

DONE = {"error": None}


@pytest.fixture(scope="module")
def order(tmp_path_factory):
    """Has something done by `nonsense_job` in a process of its own; returns how that ended."""
    command = [sys.executable, nonsense_job.__file__, str(tmp_path_factory.mktemp("weights"))]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as server:

        def order(**what):
            server.stdin.write(json.dumps(what) + "\n")
            server.stdin.flush()
            return json.loads(server.stdout.readline())

        yield order
        server.stdin.close()


class Recorded:
    """A joint job's store: what is compared."""

    def __init__(self, path):
        self.path = path
        self.answers, self.requests, self.status = {}, 0, None
        self.state, self.evaluations, self.summary = None, [], None
        if not path.exists():
            return
        with swarm.Store.open(path) as store:
            for run in store.runs():  # one at most
                self.status = run.status
                self.requests = sum(view.batch.requests for view in store.batches(run.id))
                self.state = without_how(store.state(run.id))
                self.summary = without_time(run.summary) if run.status == "done" else None
                self.evaluations = [
                    (view.graph, view.score, view.size, view.info)
                    for view in store.evaluations(run.id)
                ]
        with closing(sqlite3.connect(path)) as raw:
            assert raw.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert raw.execute("PRAGMA foreign_key_check").fetchall() == []
            self.answers = dict(raw.execute("SELECT hex(key), text FROM answers"))

    @property
    def history(self):
        return [] if self.state is None else self.state["history"]

    def outcome(self):
        return (
            *(self.status, self.state, self.evaluations, self.summary),
            *(self.answers, self.requests),
        )

    def is_a_beginning_of(self, whole):
        """Some whole iterations of it, and some of its answers."""
        count = len(self.history)
        assert self.history == whole.history[:count]
        assert self.evaluations == [e for e in whole.evaluations if e[3]["iteration"] <= count]
        assert self.answers.items() <= whole.answers.items()
        assert self.requests == len(self.answers), "nothing on record was asked twice"


def without_how(state):
    state = copy.deepcopy(state)
    for entry in [] if state is None else state["history"]:
        del entry["spared"]["known"], entry["spared"]["shared"]
    return state


def without_time(summary):
    summary = copy.deepcopy(summary)
    del summary["seconds"], summary["spared"]["known"], summary["spared"]["shared"]
    return summary


def read_log(path):
    """The points that were reached, and the batches that were asked for."""
    if not path.exists():
        return [], []
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    batches = [[key.upper() for key in e] for e in entries if isinstance(e, list)]
    return [e for e in entries if isinstance(e, str)], batches


class Whole(Recorded):
    """A job that nothing happens to, and all points there are in it."""

    def __init__(self, order, folder, **settings):
        self.settings = settings
        ended = order(store=str(folder / "swarm.db"), log=str(folder / "log"), settings=settings)
        assert ended == DONE
        super().__init__(folder / "swarm.db")
        self.points, batches = read_log(folder / "log")
        assert sum(map(len, batches)) == self.requests == len(self.answers)


@pytest.fixture(scope="module")
def whole(order, tmp_path_factory):
    made = Whole(order, tmp_path_factory.mktemp("whole"))
    assert "weight_step: tensor merged" in made.points
    assert any("partial" in info for *_, info in made.evaluations), "evaluations are stopped"
    return made


class Job:
    """A joint job, session by session, with all that must be true after each."""

    def __init__(self, order, store, whole):
        self.order, self.store, self.whole = order, store, whole
        self.recorded = Recorded(store)
        self.sessions = 0

    def __call__(self, **how):
        """One session; returns how it ended."""
        self.sessions += 1
        log = self.store.with_name(f"{self.store.name}.{self.sessions}.log")
        before = self.recorded
        ended = self.order(store=str(self.store), log=str(log), settings=self.whole.settings, **how)
        self.recorded, (_, batches) = Recorded(self.store), read_log(log)
        after, asked = self.recorded, [key for batch in batches for key in batch]
        assert not before.answers.keys() & asked, "what is on record is not asked for again"
        assert len(asked) == len(set(asked))
        lost = set(asked) - after.answers.keys()
        assert lost <= set(batches[-1] if batches else ()), "a batch in flight is all that is lost"
        assert after.answers.keys() == before.answers.keys() | (set(asked) - lost)
        assert len(before.history) <= len(after.history)
        after.is_a_beginning_of(self.whole)
        if ended == DONE:
            assert not lost
            assert after.outcome() == self.whole.outcome()
            assert set(self.store.parent.glob("*.db*")) - set(self.store.parent.glob("*.log")) == {
                self.store
            }
        return ended


def every_point(whole, rng, of=""):
    """A moment for each kind of point in the code, and some at any time, in any order."""
    kinds = sorted({point for point in whole.points if of in point})
    moments = [{"at": [kind, rng.randint(1, whole.points.count(kind))]} for kind in kinds]
    rng.shuffle(moments)
    # Only what begins with the first iteration is sure to come to any point, and only what does not
    # comes to this one.
    moments.insert(1, {"at": ["outside: after resume_run", 1]})
    for _ in range(len(moments) // 4):
        moments.insert(rng.randint(2, len(moments)), {"after": rng.uniform(0, 0.5)})
    return moments


def end_all(order, whole, folder, moments):
    """Has jobs ended at these moments, one a session, until all jobs are done and no moment is
    left; returns how often one was killed."""
    kills = 0
    for number in range(len(moments)):
        (folder / str(number)).mkdir()
        job = Job(order, folder / str(number) / "swarm.db", whole)
        while moments and (ended := job(**moments[0])) != DONE:
            assert ended == {"killed": signal.SIGKILL}
            assert job.recorded.status in (None, "running", "done")
            kills, moments = kills + 1, moments[1:]
        if not moments:
            assert job() == DONE
            return kills
        # The job was done before it came to that moment, which is for the next one.
        moments = moments["after" in moments[0] :]
    raise AssertionError(f"never came to {moments}")


@pytest.mark.parametrize("seed", [0])
def test_a_job_that_is_killed_at_every_point_ends_as_if_it_had_not_been(
    order, whole, tmp_path, seed
):
    moments = every_point(whole, random.Random(seed))
    steps = {moment["at"][0].split(":")[0] for moment in moments if "at" in moment}
    assert steps == {"role_step", "weight_step", "commit", "outside"}
    assert end_all(order, whole, tmp_path, moments) >= 20


def test_a_job_that_is_killed_while_weights_are_merged_for_a_role_step(order, tmp_path):
    whole = Whole(order, tmp_path, keep=0.0, role_experts="current")
    moments = every_point(whole, random.Random(0), of="role_step: tensor merged")
    assert end_all(order, whole, tmp_path, [*moments, *moments]) >= 3


def test_ctrl_c_at_any_point_is_no_worse(order, whole, tmp_path):
    job, rng = Job(order, tmp_path / "swarm.db", whole), random.Random(0)
    for _ in range(6):
        if (ended := job(at=[rng.choice(whole.points), 1], signal=signal.SIGINT)) == DONE:
            break
        assert ended == {"error": "KeyboardInterrupt: "}
        assert job.recorded.status in (None, "interrupted")
    assert job.sessions > 3
    assert job() == DONE


def test_a_job_whose_files_cannot_grow_goes_on_when_they_can(order, whole, tmp_path):
    """In the middle of a write, wherever that is: in the store or in its journal."""
    job, failures = Job(order, tmp_path / "swarm.db", whole), 0
    for largest in range(10_000, 1_000_000, 30_000):
        if (ended := job(largest=largest)) == DONE:
            break
        assert re.fullmatch(
            r"Store(URL)?Error: .*`sqlite:///.*swarm.db`.*: disk I/O error \(check the disk .*\)",
            ended["error"],
        )
        failures += 1
    assert failures > 3
    assert job(largest=largest) == DONE


@pytest.mark.parametrize("what", ["expert", "system"])
def test_what_is_exported_is_there_whole_or_not_at_all(order, tmp_path, what):
    def export(folder, **how):
        return order(export=str(folder), what=what, log=str(tmp_path / "log"), **how)

    assert export(tmp_path / "whole") == DONE
    points = read_log(tmp_path / "log")[0][:-1]  # at the last one it is there
    files = contents(tmp_path / "whole")
    assert "adapter_model.safetensors" in {path.name for path in files}
    for number, point in enumerate(dict.fromkeys(points)):
        folder = tmp_path / str(number)
        folder.mkdir()
        at = [point, points.count(point)]
        ended = export(folder / "found", at=at, signal=signal.SIGINT)
        assert ended == {"error": "KeyboardInterrupt: "}
        assert list(folder.iterdir()) == [], "nothing is left behind"
        assert export(folder / "found", at=at) == {"killed": signal.SIGKILL}
        assert not (folder / "found").exists()
        assert export(folder / "found") == DONE
        assert contents(folder / "found") == files


def contents(folder):
    """Relative path → bytes of all files."""
    return {
        path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


@pytest.mark.parametrize("what", ["expert", "system"])
@pytest.mark.parametrize("largest", [0, 100, 1_000, 5_000])
def test_what_there_is_no_room_for_leaves_nothing(order, tmp_path, what, largest):
    folder = tmp_path / "found"
    ended = order(export=str(folder), what=what, log="/dev/null", largest=largest)
    said = ended["error"]
    assert f"`{folder}`" in said
    assert "make room there or choose another folder; nothing was left behind" in said
    assert list(tmp_path.iterdir()) == []
