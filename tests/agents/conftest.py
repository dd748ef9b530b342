"""A tiny model with three adapters, made anew for every session."""

from __future__ import annotations

import asyncio
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))  # for `engine_contract` and `tiny`, which are no tests


@pytest.fixture(scope="session")
def zoo(tmp_path_factory):
    """A folder with `base` and the adapters `double`, `half` and `train`."""
    if any(find_spec(package) is None for package in ("torch", "transformers", "peft")):
        pytest.skip("needs torch, transformers and peft")
    import tiny
    import torch

    torch.set_num_threads(
        1
    )  # so small a model gains nothing from more, and loses on a busy machine
    return tiny.make(tmp_path_factory.mktemp("zoo"))


@pytest.fixture(scope="session")
def warm_litellm():
    """Its first request waits for what it imports and builds: no test's timeouts shall."""
    from engine_contract import ask
    from http_server import Server

    from swarm.agents.engines.server import ServerEngine
    from swarm.agents.expert import Expert
    from swarm.agents.messages import Request

    server = Server()
    expert = Expert(
        name="e",
        engine="server",
        model="openai/x",
        options={"url": server.url, "client": "litellm"},
    )

    async def work():
        engine, request = ServerEngine(), Request(expert, ask("hello"))
        await engine.generate([request])
        return [step async for step in engine.stream(request)]

    asyncio.run(work())
    server.close()
