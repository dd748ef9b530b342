"""What scorers read of a response: the part that answers, the answer it states, normalised text."""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Iterator

DASHES = {ord(dash): "-" for dash in "‐‑‒–—−"}
_PLAIN = re.escape("".join(set(string.punctuation) - set(".-/")) + "‘’“”„«»…·、。「」¿¡")
# What makes a number another number stays: decimal point, sign and fraction bar.
_PUNCTUATION = re.compile(
    rf"[{_PLAIN}]|\.(?!\d)|(?<=[^\W\d])\.|-(?!\.?\d)|(?<=\w)-|/(?!\d)|(?<!\d)/"
)
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")

_STATEMENT = re.compile(
    r"""
    \#\#\#\#
    | <answer>
    | \\boxed\s*(?=\{)
    | \b(?:answer|(?:correct|right|best|final)\s+(?:option|choice))["'*_`]*
      (?:\s+to\s+(?:the|this|your)\s+\w+)?
      (?:,?\s+(?:therefore|thus|then|hence|so),?)?
      \s*(?:\b(?:is|are|was|(?:would|should|must|will)\s+be)\b|[:=：])
      (?!\s*(?:not|in)\b)
    """,
    re.IGNORECASE | re.VERBOSE,
)
_MARKUP = " \t\r\n*_`\"'$:："
# Not after a short capitalised word: "St. Petersburg", "U.S. Steel".
_END = re.compile(r"\n|</answer>|(?<!\b[A-Z])(?<!\b[A-Z][a-z])(?<!\b[A-Z][a-z]{2})[.!?](?=\s|$)")


def answer_part(text: str) -> str:
    """`text` after the last ``</think>``: what a reasoning model thinks is no answer."""
    return text.rpartition("</think>")[2]


def statements(text: str) -> Iterator[str]:
    r"""What `text` states as the answer, last statement first.

    A statement follows "answer is", "answer:", ``####`` or ``<answer>`` up to the end of the
    sentence or line, or is in ``\boxed{}``; it ends where the next begins.
    """
    stop = len(text)
    for mark in reversed(list(_STATEMENT.finditer(text))):
        rest = text[mark.end() : stop]
        stop = mark.start()
        if rest.startswith("{"):
            statement = _braced(rest)
        else:
            rest = rest.lstrip(_MARKUP)
            end = _END.search(rest)
            statement = rest[: end.start()] if end else rest
        statement = statement.strip(_MARKUP)
        if statement:
            yield statement


def _braced(text: str) -> str:
    """What is in the braces that `text` begins with; all of it where they don't close."""
    depth = 0
    for position, letter in enumerate(text):
        depth += (letter == "{") - (letter == "}")
        if depth == 0:
            return text[1:position]
    return text[1:]


def normalise(text: str) -> str:
    """`text` without case, punctuation, articles and excess space, as SQuAD's evaluation does it.

    Departs from it where it would call different answers equal: sign, decimal point and fraction
    bar of numbers stay, and a text of nothing but articles or punctuation is not emptied.
    """
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text).translate(DASHES)
    folded = text.casefold()
    bare = _PUNCTUATION.sub("", folded)
    for kept in (_ARTICLES.sub(" ", bare), bare, folded):
        words = kept.split()
        if words:
            return " ".join(words)
    return ""
