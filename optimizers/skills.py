"""Skills of a question as short keywords, and which known skill a new one means.

Symbolic-MoE (arXiv 2503.05641, section 3.1): an annotator names keywords several times, and what it
says more than once stays; at test time a keyword stands for the nearest known one, by the cosine
of their embeddings.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from swarm.agents.messages import Message, Messages

Encode = Callable[[Sequence[str]], NDArray[np.float32]]
"""n texts → their embeddings, shape (n, d), each of length 1."""

LONGEST = 20
"""Characters that a keyword may have."""
SAID = 2
"""How often the annotator must have said it."""

INSTRUCTIONS = (
    "You name the skills that a question asks for. Give 2 to 5 of them as short keywords, such as "
    "algebra or organic chemistry, on one line and separated by commas. Do not answer the question."
)


def annotation_prompt(question: str) -> Messages:
    """What the annotator is asked about one question."""
    return (Message("system", INSTRUCTIONS), Message("user", f"Question: {question}\nKeywords:"))


def keywords(texts: Sequence[str], *, said: int = SAID, longest: int = LONGEST) -> list[str]:
    """The keywords that stand in at least `said` of the annotator's answers to one question.

    They are lower-case and of at most `longest` characters; the one said most often is the first,
    of those said as often the one that was said first.
    """
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(list(dict.fromkeys(_listed(text, longest))))
    return [word for word, count in counts.most_common() if count >= said]


def _listed(text: str, longest: int) -> list[str]:
    """What a text lists, by commas, semicolons or lines, without numbers and bullets before it."""
    _, _, text = text.rpartition("</think>")
    parts = re.split(r"[,;\n]", text.lower())
    words = (re.sub(r"^\W*(\d+[.)]\s*)?\W*|\W+$", "", part) for part in parts)
    return [" ".join(word.split()) for word in words if word and len(word) <= longest]


def words_of(question: str, *, longest: int = LONGEST) -> list[str]:
    """The different words of a question: skills where nobody annotates.

    For questions that name what they ask for, as those of small synthetic tasks do.
    """
    found = re.findall(r"\w+", question.lower())
    return [word for word in dict.fromkeys(found) if len(word) <= longest]


def nearest(
    names: Sequence[str], known: Sequence[str], vectors: NDArray[np.float32], encode: Encode
) -> dict[str, int]:
    """Name → the position in `known` of the skill it means: itself, else the nearest by cosine.

    Args:
        vectors: the embeddings of `known`, shape (len(known), d), each of length 1.
    """
    index = {name: i for i, name in enumerate(known)}
    new = [name for name in dict.fromkeys(names) if name not in index]
    if new and len(known):
        closest = np.argmax(encode(new) @ vectors.T, axis=1)
        index.update(zip(new, map(int, closest), strict=True))
    return {name: index[name] for name in dict.fromkeys(names) if name in index}
