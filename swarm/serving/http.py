"""GET from a server of this machine: no proxy, no redirect, no package."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import NamedTuple

LARGEST = 1 << 24


class Answer(NamedTuple):
    """What a server answered."""

    status: int
    body: bytes


async def get(port: int, path: str, seconds: float, key: str | None = None) -> Answer | None:
    """None: there was no answer in so many seconds, or none that is HTTP."""
    writer = None
    try:
        async with asyncio.timeout(seconds):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=LARGEST)
            authorised = f"Authorization: Bearer {key}\r\n" if key else ""
            writer.write(
                f"GET {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\n{authorised}\r\n".encode()
            )
            data = await reader.read(-1)
    except (OSError, TimeoutError, ValueError):
        return None
    finally:
        if writer is not None:
            writer.close()
    head, _, body = data.partition(b"\r\n\r\n")
    words = head.split(maxsplit=2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
        return None
    return Answer(int(words[1]), body)


async def models(
    port: int, key: str | None = None, seconds: float = 5.0
) -> list[dict[str, object]]:
    """What ``/v1/models`` lists; empty where it can't be asked."""
    answer = await get(port, "/v1/models", seconds, key)
    with suppress(ValueError, KeyError, TypeError):
        if answer is not None and answer.status == 200:
            return [model for model in json.loads(answer.body)["data"] if isinstance(model, dict)]
    return []


async def served_names(port: int, key: str | None = None) -> list[str]:
    """The names of what a server serves."""
    return [str(model.get("id")) for model in await models(port, key)]


async def metrics(port: int, seconds: float = 2.0) -> dict[str, float]:
    """Name → sum over labels, of what ``/metrics`` says in Prometheus' text format."""
    answer = await get(port, "/metrics", seconds)
    sums: dict[str, float] = {}
    if answer is None or answer.status != 200:
        return sums
    for line in answer.body.decode("utf-8", "replace").splitlines():
        if line.startswith("#") or not line.strip():
            continue
        head, _, value = line.rpartition(" ")
        with suppress(ValueError):
            name = head.partition("{")[0].strip()
            sums[name] = sums.get(name, 0.0) + float(value)
    return sums
