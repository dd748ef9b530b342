"""One real vLLM server and one engine for all tests here; without vLLM they are skipped."""

from __future__ import annotations

import asyncio
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))  # for `real_server`
sys.path.append(str(Path(__file__).parents[1] / "agents"))  # for `engine_contract`

import swarm
from swarm.agents.engines import create_engine

ZOO = Path(__file__).parents[2] / "examples" / "zoo"
OPTIONS = {"max_model_len": 256, "kv_cache": 0.25, "max_loras": 9, "dtype": "float32"}


def pytest_collection_modifyitems(items):
    if find_spec("vllm") is not None:
        return
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.skip(reason="needs vLLM: `make test-vllm` installs it"))


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    from real_server import RealServer

    server = RealServer(tmp_path_factory.mktemp("server"))
    server.start()
    try:
        server.wait()
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="session")
def engine():
    """In this process; small, so that adapters have to make room for others."""
    engine = create_engine("vllm", adapters=10, batch=200)
    yield engine
    asyncio.run(engine.close())


@pytest.fixture(scope="session")
def transformers():
    engine = create_engine("transformers", device="cpu")
    yield engine
    asyncio.run(engine.close())


@pytest.fixture(scope="session")
def pool():
    """The zoo as it is, asked by transformers."""
    return swarm.Pool.load(ZOO / "pool.toml")


@pytest.fixture(scope="session")
def in_process(pool):
    """The zoo asked by vLLM in this process."""
    return swarm.Pool(
        expert.model_copy(update={"engine": "vllm", "options": OPTIONS}) for expert in pool.values()
    )


@pytest.fixture
def served(pool, server):
    """The zoo asked at the server."""
    from real_server import at

    return swarm.Pool(at(server, expert) for expert in pool.values())
