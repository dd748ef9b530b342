r"""`number`: the response's number is the gold number, however the two are written.

The response's number is the first in what it last states as the answer ("answer is", ``####``,
``\boxed{}``; after the last ``=`` there), or else the last in the response. Understood are signs,
thousands' separators, currencies, decimals, ``1/2``, ``1 1/2``, ``\frac{1}{2}``, ``%``, ``2^10``,
``1.5e6`` and ``1.5 × 10^6``.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, NamedTuple

from swarm.errors import TaskError
from swarm.tasks.example import Example
from swarm.tasks.scorers.base import Scorer
from swarm.tasks.scorers.text import DASHES, answer_part, statements


class _Number(NamedTuple):
    value: int | float
    percent: bool = False


_NUMBER = re.compile(
    r"""
    (?<![\w^])(?<!\w\.)(?<![\^_]\{)(?<!\^-)(?<!\^\{-)  # not within H2O, v1.5, cm^2, a_{1}, s^{-1}
    (?<!√)(?<!sqrt\{)
    (?P<sign>(?<![\w)\]}])-)? (?:[$€£¥]\ ?)? (?P<inner>-)?
    (?>
      (?: (?P<whole>\d+) \ )? (?P<top>\d+) \ ?/\ ? (?P<bottom>\d+) (?![/\d])
    | (?P<decimal> (?: \d{1,3}(?:,\d{3})+(?!\d) | \d+ )? (?:\.\d+)? (?<=\d) )
      (?: e(?P<exponent>[+-]?\d{1,3})\b
        | \ ?[x*×]\ ?10\ ?\^\ ?\{?(?P<scale>-?\d{1,3})\}?
        | \^\{?(?P<power>-?\d{1,3})\}?
      )?
    )
    (?! \s*(?: \\?(?:sqrt|pi)\b | [√π] ) )
    (?P<percent> \ ?% | \ percent\b )?
    """,
    re.VERBOSE | re.IGNORECASE,
)

_LATEX = (
    (re.compile(r"(?<=\d)(?:\\[,!;: ]|\{,\})(?=\d{3})"), ""),
    (re.compile(r"(?<=\d)\s*\\[dt]?frac(?=\s*\{)"), r" \\frac"),
    (re.compile(r"\\[dt]?frac\s*\{\s*(-?\d+)\s*\}\s*\{\s*(\d+)\s*\}"), r"\1/\2"),
    (re.compile(r"\s*\\(?:times|cdot)\b\s*"), "×"),
    (re.compile(r"\\(?=[$%])"), ""),
)
_UNICODE = (
    (re.compile(r"(?<=\d)(?=[¼-¾⅐-⅞])"), " "),
    (re.compile(r"(?<![⁰¹²³⁴-⁹⁻])(?=[⁰¹²³⁴-⁹⁻])"), "^"),
    (re.compile("(?<=\\d)[\u00a0\u2009\u202f](?=\\d{3})"), ""),
)
_UNIT = re.compile(r"\\(?:text|mathrm)\s*\{[^{}]*\}")
_FORMULA = re.compile(r"[\\^_+*<>≤≥√π{}\[\]\d]")
_CLAUSE = re.compile(r"[,;]\s|\s\(|\s(?:which|because|since|as)\b")


@dataclass(frozen=True)
class Number(Scorer):
    """1 if the response's number is a gold number, else 0.

    Whole numbers must be equal; others may differ by `tolerance`, relative to the gold number.
    Where only one side has a ``%``, both 45 and 0.45 are 45 %.
    """

    name: ClassVar[str] = "number"
    tolerance: float = 1e-6

    def __post_init__(self) -> None:
        if not isinstance(self.tolerance, int | float) or not 0 <= self.tolerance < 1:
            raise TaskError(f"`tolerance`: `{self.tolerance!r}` must be at least 0 and below 1")

    def __call__(self, example: Example, text: str) -> float:
        number = _stated(answer_part(text))
        if number is None:
            return 0.0
        golds = map(_gold, example.golds)
        return float(any(gold and _same(number, gold, self.tolerance) for gold in golds))

    def extract(self, example: Example, text: str) -> str | None:
        number = _stated(answer_part(text))
        if number is None:
            return None
        value = number.value
        whole = int(value) if value == int(value) else f"{value:.12g}"
        return f"{whole}%" if number.percent else str(whole)

    def check(self, example: Example) -> None:
        for gold in example.golds:
            if _gold(gold) is None:
                raise TaskError(
                    f"the gold answer `{gold}` is not one number, as the scorer `number` needs; "
                    "use `exact`, or give several accepted answers as a list"
                )


@lru_cache(maxsize=65536)
def _gold(gold: str) -> _Number | None:
    """The number that `gold` is, or states: None if it holds several, or is a formula."""
    plain = _plain(_UNIT.sub("", next(statements(gold), gold)))
    numbers = list(_numbers(plain))
    rest = _NUMBER.sub("", plain, count=1)
    return numbers[0] if len(numbers) == 1 and not _FORMULA.search(rest) else None


def _stated(text: str) -> _Number | None:
    for statement in statements(text):
        number = _first(statement)
        if number is not None:
            return number
    return next(reversed(list(_numbers(text))), None)


def _first(statement: str) -> _Number | None:
    """The first number after the last ``=`` of the first clause that has one, or else of all."""
    for part in (_CLAUSE.split(statement, maxsplit=1)[0].rpartition("=")[2], statement):
        for number in _numbers(part):
            return number
    return None


def _numbers(text: str) -> Iterator[_Number]:
    for found in _NUMBER.finditer(_plain(text)):
        value = _value(found)
        if value is not None:
            negative = (found["sign"] or found["inner"]) is not None
            yield _Number(-value if negative else value, found["percent"] is not None)


def _value(found: re.Match[str]) -> int | float | None:
    """The absolute value; None where it is none, or beyond a float's range."""
    try:
        if found["top"]:
            part = int(found["top"]) / int(found["bottom"])
            # "step 2 5/4" is no mixed number
            return part + int(found["whole"]) if found["whole"] and part < 1 else part
        digits = found["decimal"].replace(",", "")
        if found["exponent"] or found["scale"]:
            value = float(f"{digits}e{found['exponent'] or found['scale']}")
        elif found["power"]:
            value = float(digits) ** int(found["power"])
        else:
            value = float(digits)
            if "." not in digits and math.isfinite(value):
                return int(digits)
    except (ZeroDivisionError, OverflowError, ValueError):
        return None
    return value if math.isfinite(value) else None


def _same(number: _Number, gold: _Number, tolerance: float) -> bool:
    if _close(number.value, gold.value, tolerance):
        return True
    if number.percent == gold.percent:
        return False
    percent, other = (number, gold) if number.percent else (gold, number)
    return _close(percent.value / 100, other.value, tolerance)


def _close(value: float, gold: float, tolerance: float) -> bool:
    if isinstance(value, int) and isinstance(gold, int):
        return value == gold
    return abs(value - gold) <= tolerance * abs(gold)


def _plain(text: str) -> str:
    """`text` with LaTeX and Unicode numbers spelt in ASCII."""
    if "\\" in text or "{" in text:
        for pattern, replacement in _LATEX:
            text = pattern.sub(replacement, text)
    if not text.isascii():
        for pattern, replacement in _UNICODE:
            text = pattern.sub(replacement, text)
        text = unicodedata.normalize("NFKC", text).translate(DASHES).replace("⁄", "/")
    return text
