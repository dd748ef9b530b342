"""`choice`: the response picks the gold choice, by its letter or by its text.

Read, after ``</think>``, in this order, until something is found:

1. what is stated as the answer ("the answer is (B)", "Answer: B", ``\\boxed{B}``), the last
   statement first: its letter, or the text of a choice;
2. the whole response, if it is a choice's letter or text;
3. the letter or text that the response, or a line of it, begins with ("B. Longevity", "No, …");
4. a letter called correct ("B is correct"), the last one;
5. the last letter in brackets or bold, or after "option" or "choose";
6. the one choice whose text is in the response.

A letter is a capital, or has a bracket or full stop after it; "A" and "I" before a word are words.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

from swarm.errors import TaskError
from swarm.tasks.example import Example
from swarm.tasks.scorers.base import Scorer
from swarm.tasks.scorers.text import answer_part, normalise, statements


@dataclass(frozen=True)
class Choice(Scorer):
    """1 if the choice that the response picks is a gold choice, else 0; several picked are none."""

    name: ClassVar[str] = "choice"

    def __call__(self, example: Example, text: str) -> float:
        options = _options(example)
        picked = options.read(answer_part(text).strip())
        return float(picked is not None and picked in map(options.exactly, example.golds))

    def extract(self, example: Example, text: str) -> str | None:
        return _options(example).read(answer_part(text).strip())

    def check(self, example: Example) -> None:
        if not example.choices:
            raise TaskError(
                "no choices, as the scorer `choice` needs them; say where in `fields.choices`"
            )
        for gold in example.golds:
            if _options(example).exactly(gold) is None:
                letters = ", ".join(example.choices)
                raise TaskError(f"the gold answer `{gold}` is none of the choices {letters}")


def _options(example: Example) -> _Options:
    return _cached(tuple((example.choices or {}).items()))


@lru_cache(maxsize=65536)
def _cached(choices: tuple[tuple[str, str], ...]) -> _Options:
    return _Options(dict(choices))


class _Options:
    """The choices of one example, ready to be found in responses."""

    def __init__(self, choices: Mapping[str, str]) -> None:
        self.letters = {key: letter for letter in choices for key in (letter.lower(), letter)}
        self.patterns = _patterns(tuple(choices))
        # Formulas may differ in nothing but what `normalise` takes away.
        self.literal = _unique((_literal(text), letter) for letter, text in choices.items())
        self.texts = _unique((normalise(text), letter) for letter, text in choices.items())

    def read(self, text: str) -> str | None:
        """The letter that `text` picks."""
        for statement in statements(text):
            if self.patterns.several.match(statement):
                return None
            picked = self.exactly(statement) or self._led(statement) or self._named(statement)
            if picked:
                return picked
        return (
            self.exactly(text)
            or self._begun(text)
            or self._last(self.patterns.correct, text)
            or self._last(self.patterns.marked, text)
            or self._named(text)
        )

    def exactly(self, text: str) -> str | None:
        """`text` is nothing but a letter or the text of a choice."""
        found = self.patterns.alone.fullmatch(text)
        if found:
            return self._letter(found)
        return self.literal.get(_literal(text)) or self.texts.get(normalise(text))

    def _led(self, statement: str) -> str | None:
        found = self.patterns.lead.match(statement)
        return self._letter(found) if found else self._first_clause(statement)

    def _begun(self, text: str) -> str | None:
        # Several letters that begin lines are a discussion of the choices.
        letters = {self._letter(found) for found in self.patterns.lines.finditer(text)}
        return letters.pop() if len(letters) == 1 else self._first_clause(text)

    def _first_clause(self, text: str) -> str | None:
        return self.texts.get(normalise(_CLAUSE.split(text, maxsplit=1)[0]))

    def _last(self, pattern: re.Pattern[str], text: str) -> str | None:
        found = list(pattern.finditer(text))
        return self._letter(found[-1]) if found else None

    def _named(self, text: str) -> str | None:
        words = f" {normalise(text)} "
        picked = set()
        # Longest first, and taken out where found: "no light" does not name "light".
        for choice, letter in self.texts.items():
            if f" {choice} " in words:
                picked.add(letter)
                words = words.replace(f" {choice} ", " | ")
        return picked.pop() if len(picked) == 1 else None

    def _letter(self, found: re.Match[str]) -> str:
        return self.letters[next(group for group in found.groups() if group)]


def _literal(text: str) -> str:
    return " ".join(text.split()).rstrip(".")


def _unique(texts: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Text to letter, the longest first, without those that are the text of several choices."""
    letters: dict[str, list[str]] = {}
    for text, letter in sorted(texts, key=lambda item: -len(item[0])):
        letters.setdefault(text, []).append(letter)
    return {text: of_text[0] for text, of_text in letters.items() if text and len(of_text) == 1}


_CLAUSE = re.compile(r"[,.;:!?\n]|\s[-–—]\s")


class _Patterns:
    """Where letters are found; every pattern has the letter in a group."""

    def __init__(self, letters: tuple[str, ...]) -> None:
        longest_first = sorted(letters, key=len, reverse=True)
        one = "|".join(map(re.escape, longest_first)) or "(?!)"
        small = "|".join(re.escape(letter.lower()) for letter in longest_first) or "(?!)"
        opened = r"""[ \t"'*_`$<(\[{]*(?:\\(?:boxed|text|textbf|mathbf|mathrm)\s*\{[\s(*]*)*"""
        opened += rf"""(?:(?i:option|choice|letter)\s+{opened})?"""
        closed = r"""[ \t"'*_`$>)\]}.:,]*"""
        word = r"[AI]\s+(?!(?:because|since|as|is|for|which|due|based|from)\b)[a-z]"
        capital = rf"(?!{word})(?:{one})(?![\w+#]|['’-]\w)"
        another = rf"{closed}(?:/|&|\b(?:and|or)\b|(?<=,))\s*[(*]*{capital}"
        marked = rf"(?:{capital}|(?:{small})(?=\s*[)\]}}.:*](?!\w)))"
        self.alone = re.compile(rf"{opened}({one}|{small}){closed}")
        self.lead = re.compile(rf"{opened}({marked})")
        self.several = re.compile(rf"{opened}{marked}{another}")
        self.lines = re.compile(
            rf"^{opened}({marked})(?!{another})(?=\s*(?:[).\]:*}},](?!\w)|$)|\s[-–—]\s)",
            re.MULTILINE,
        )
        self.correct = re.compile(
            rf"(?<!\w)({marked}){closed}\s*is\s+(?:the\s+)?(?:most\s+)?(?:correct|right|best)\b"
        )
        self.marked = re.compile(
            rf"\(\s*({one})\s*\)|\*\*\s*\(?({one})(?=[).:\s]*\*\*|[).:]\s)"
            rf"|\b(?i:option|choice|choose|select|pick|go(?:ing)?\swith)\s+[*(\"']*({capital})"
        )


@lru_cache(maxsize=1024)
def _patterns(letters: tuple[str, ...]) -> _Patterns:
    return _Patterns(letters)
