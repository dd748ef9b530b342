"""The one line of a log that says why a server ended, or what it is doing."""

from __future__ import annotations

import pytest

from swarm.serving import logs

OUT_OF_MEMORY = """\
(APIServer pid=41) INFO 11-25 21:50:01 [api_server.py:1977] vLLM API server version 0.32.0
(EngineCore pid=57) ERROR 11-25 21:53:08 [core.py:1449] EngineCore failed to start.
(EngineCore pid=57) ERROR 11-25 21:53:08 [core.py:1449] Traceback (most recent call last):
(EngineCore pid=57) ERROR 11-25 21:53:08 [core.py:1449]   File "core.py", line 1436, in run
(EngineCore pid=57) ERROR 11-25 21:53:08 [core.py:1449] ValueError: Free memory is too little
(APIServer pid=41) Traceback (most recent call last):
(APIServer pid=41)   File "launch.py", line 9, in main
(APIServer pid=41)     raise RuntimeError(
(APIServer pid=41) RuntimeError: Engine core initialization failed. See root cause above. Failed: {}
"""


def written(tmp_path, text):
    log = tmp_path / "log"
    log.write_text(text)
    return log


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (
            OUT_OF_MEMORY,
            "ValueError: Free memory is too little",
        ),
        (
            "usage: api_server.py [-h]\napi_server.py: error: unrecognized arguments: --x\n",
            "api_server.py: error: unrecognized arguments: --x",
        ),
        (
            "/usr/bin/python: No module named vllm\n",
            "/usr/bin/python: No module named vllm",
        ),
        (
            "Traceback (most recent call last):\n  x\n\x1b[31mOSError: [Errno 98] in use\x1b[0m\n",
            "OSError: [Errno 98] in use",
        ),
        ("all was well\nand then it ended\n\n", "and then it ended"),
        ("", ""),
    ],
)
def test_cause(tmp_path, text, cause):
    assert logs.cause(written(tmp_path, text)) == cause


def test_what_was_said_before_this_start_does_not_count(tmp_path):
    log = written(tmp_path, "RuntimeError: of yesterday\n")
    start = logs.begin(log)
    with log.open("a") as file:
        file.write("INFO: loading\n")
    assert logs.cause(log, start) == "loading"


def test_what_it_is_doing(tmp_path):
    text = "INFO 11-25 21:50:01 [loader.py:12] Loading\rshards: 10%\rshards: 50%\n"
    assert logs.doing(written(tmp_path, text)) == "shards: 50%"
    assert logs.doing(tmp_path / "none") == ""


def test_a_long_log_is_begun_anew_and_the_one_before_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(logs, "LARGEST", 10)
    log = written(tmp_path, "x" * 11)
    assert logs.begin(log) == 0
    assert (tmp_path / "log.1").read_text() == "x" * 11
