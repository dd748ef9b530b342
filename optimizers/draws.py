"""Draws that belong to a question: the same in every process, whoever is asked along with it."""

from __future__ import annotations

import hashlib

import numpy as np


def question_rng(seed: int, question: str, purpose: str = "") -> np.random.Generator:
    """The generator of one question's draws: the same in every process and company."""
    content = f"{seed}\0{purpose}\0{question}".encode("utf-8", "surrogatepass")
    return np.random.default_rng(
        int.from_bytes(hashlib.blake2b(content, digest_size=16).digest(), "big")
    )
