"""What a question looks like, whatever it is about: script, digits, code, lettered choices, length.

A benchmark, or a kind of work, shows in the form of its questions more reliably than in their
subject: two exams on one subject differ in whether choices are listed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from swarm.optimizers.outcomes import Floats

SIZE = 12
LONGEST = 4000
"""Characters that are looked at, half from either end."""

_EAST_ASIAN = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_DIGIT = re.compile(r"\d")
_UPPER = re.compile(r"[A-Z]")
_CODE = re.compile(r"[{}\[\]()<>=_;]|\b(?:def|return|import|class)\b")
_TEX = re.compile(r"\\[a-zA-Z]+|\$")
_CHOICE = re.compile(r"^\s*\(?[A-J][).:]\s", re.MULTILINE)
_ASKS_FOR_CODE = re.compile(r"\bdef \w+\(|function|program|python|code", re.IGNORECASE)
_HEADED = re.compile(r"\s*(?:question|problem|q)\s*:", re.IGNORECASE)


def surface(texts: Sequence[str]) -> Floats:
    """(n, `SIZE`): each number between 0 and a few."""
    return np.array([_look(text) for text in texts], dtype=np.float64).reshape(len(texts), SIZE)


def _look(text: str) -> list[float]:
    if len(text) > LONGEST:
        text = text[: LONGEST // 2] + text[-LONGEST // 2 :]
    length = max(len(text), 1)

    def share(pattern: re.Pattern[str]) -> float:
        return len(pattern.findall(text)) / length

    return [
        3 * share(_EAST_ASIAN),
        min(10 * share(_DIGIT), 2.0),
        share(_UPPER),
        min(10 * share(_CODE), 3.0),
        min(20 * share(_TEX), 3.0),
        min(len(_CHOICE.findall(text)), 5) / 2,
        float(np.log(length)) / 2,
        min(text.count("\n"), 8) / 3,
        float("?" in text or "？" in text),
        float(text.rstrip().endswith((":", "："))),
        float(bool(_ASKS_FOR_CODE.search(text))),
        float(bool(_HEADED.match(text))),
    ]
