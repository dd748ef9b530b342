"""A small world for the command line: scripted experts that count, a task, a job."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from swarm.app.cli import main

SCRIPT = '''
import re

def number(messages):
    """The number that was handed on, or else the question's."""
    text = messages[-1].content
    said = re.findall(r"^Previous response \\d+: (\\d+)", text, re.MULTILINE)
    return int(said[-1] if said else re.search(r"start (\\d+)", text)[1])

def more(messages):
    return str(number(messages) + 1)

def twice(messages):
    return str(number(messages) * 2)

def same(messages):
    return str(number(messages))

def broken(messages):
    raise ValueError("no answer today")
'''

POOL = """
name = "counters"

[defaults]
engine = "scripted"

[[experts]]
name = "more"
model = "script.py:more"

[[experts]]
name = "twice"
model = "script.py:twice"

[[experts]]
name = "same"
model = "script.py:same"
"""

TASK = """
name = "grow"
scorer = "number"

[splits]
dev = "dev.jsonl"
test = "test.jsonl"
"""

JOB = """
optimizer = "role_step"
pool = "pool.toml"
task = "task.toml"

[settings]
particles = 3
iterations = 2
"""


class Result(NamedTuple):
    """What a command came to."""

    code: int
    out: str
    err: str


Cli = Callable[..., Result]


def records(path: Path, numbers: range) -> None:
    """Questions that are answered by one more, and that doubled."""
    lines = [{"question": f"start {n}", "answer": str((n + 1) * 2)} for n in numbers]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with `pool.toml`, `task.toml`, `job.toml` and what they name."""
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "pool.toml").write_text(POOL)
    (tmp_path / "task.toml").write_text(TASK)
    (tmp_path / "job.toml").write_text(JOB)
    records(tmp_path / "dev.jsonl", range(1, 7))
    records(tmp_path / "test.jsonl", range(11, 15))
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("SWARM_")]:
        monkeypatch.delenv(name)
    return tmp_path


@pytest.fixture
def cli(world: Path, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Runs a command in this process."""

    def run(*arguments: str) -> Result:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        out, err = capsys.readouterr()
        return Result(int(ended.value.code or 0), out, err)

    return run
