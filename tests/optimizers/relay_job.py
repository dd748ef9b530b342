"""A small search problem without models; run as a program it is a job that a test can kill.

The question is a word. An expert knows one letter: it takes the longest beginning of the word that
it is told and adds its letter if that is the next one. So experts must speak in the right order.
"""

from __future__ import annotations

import sys
import time

import swarm
from swarm.agents.engines.scripted import ScriptedEngine
from swarm.agents.messages import Messages

LETTERS = "abcdef"
WORDS = ["abc", "bcd", "cde", "def", "abcd", "bcde", "cdef", "abcde", "bcdef", "abcdef", "ab", "ef"]


def expert(letter: str, *, delay: float = 0.0) -> swarm.Expert:
    def speak(messages: Messages) -> str:
        time.sleep(delay)
        *told, question = messages[-1].content.removesuffix("\nAnswer:").split("\n")
        word = question.removeprefix("Question: ")
        so_far = max((line.split(": ", 1)[1] for line in told), key=len, default="")
        return so_far + letter if word[len(so_far) : len(so_far) + 1] == letter else so_far

    return swarm.Expert.scripted(letter, speak, prompt="compact")


class Counting(ScriptedEngine):
    """Counts what it is asked; `before` is called first and may raise."""

    def __init__(self, before=lambda requests: None):
        self.asked = 0
        self.before = before

    async def generate(self, requests):
        self.before(requests)
        self.asked += len(requests)
        return await super().generate(requests)


def progress_made(example: swarm.Example, text: str) -> float:
    return len(text) / len(example.question)


def pool(delay: float = 0.0) -> swarm.Pool:
    return swarm.Pool([expert(letter, delay=delay) for letter in LETTERS], name="letters")


def task() -> swarm.Task:
    dev = [{"question": word, "answer": word} for word in WORDS]
    return swarm.Task.from_records("words", progress_made, dev=dev)


def job(**settings: object) -> swarm.RoleStep:
    return swarm.RoleStep(**{"particles": 6, "iterations": 8, "patience": 8, "seed": 3, **settings})


if __name__ == "__main__":
    url, delay = sys.argv[1], float(sys.argv[2])
    job().fit(task(), pool(delay), store=url)
