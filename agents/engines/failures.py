"""What an attempt came to, if not to an answer: what to say of it, and whether to try again."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Collection, Mapping
from email.utils import parsedate_to_datetime
from typing import NamedTuple

from swarm.settings_file import shorten

_NOT_TAKEN = re.compile(
    r"unknown|un-?supported|unrecogni[sz]ed|unexpected|extra_forbidden|"
    r"(not|n't) (be )?(a )?(support|permit|allow|recogni[sz]|accept|known|valid)|"
    r"invalid (field|parameter|argument)",
    re.IGNORECASE,
)


class MalformedError(Exception):
    """An answer that is none."""


class Failure(NamedTuple):
    """What one attempt came to, if not to an answer."""

    told: str
    passing: bool
    """Whether another attempt may do better."""
    status: int | None = None
    """HTTP's; None: there was no HTTP answer."""
    wait: float | None = None
    """Seconds that the server asks to wait."""

    @classmethod
    def malformed(cls, what: object) -> Failure:
        return cls(f"malformed answer: {what}", passing=False)

    @classmethod
    def late(cls, seconds: float) -> Failure:
        return cls(f"no answer in `timeout` {seconds:g} s", passing=True)

    @classmethod
    def lost(cls) -> Failure:
        return cls("connection lost or refused", passing=True)

    @classmethod
    def refused(
        cls, status: int | None, said: str, headers: Mapping[str, str], key: str | None
    ) -> Failure:
        """The server answered with an error. `key` names the variable of the API key."""
        passing = status is not None and (status in {408, 429} or status >= 500)
        told = f"{status or 'error'}: {shorten(without_keys(said, key), 200)}"
        return cls(told, passing, status, retry_after(headers))

    def not_taken(self, names: Collection[str]) -> set[str]:
        """Those parameters that the server says it does not know."""
        if self.status not in {400, 422} or not _NOT_TAKEN.search(self.told):
            return set()
        return {name for name in names if re.search(rf"\b{name}\b", self.told)}


def without_keys(text: str, key: str | None) -> str:
    """`text` without the API keys that a server may repeat."""
    for name, value in os.environ.items():
        likely = len(value) >= 8 and re.search("(KEY|TOKEN|SECRET|PASSWORD)$", name.upper())
        if value and (name == key or likely):
            text = text.replace(value, f"${name}")
    return text


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The header `Retry-After`, in seconds: it may also be a date (RFC 9110, section 10.2.3)."""
    value = headers.get("retry-after")
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return None
    return max(0.0, seconds) if seconds < float("inf") else None
