"""Tasks: examples in splits, and the scorer that says how well one is answered."""

from swarm.tasks.example import Example
from swarm.tasks.fields import Fields, Record
from swarm.tasks.loaders import read_csv, read_hf, read_jsonl
from swarm.tasks.scorers import SCORERS, Scorer, get_scorer
from swarm.tasks.task import SPLITS, Task

__all__ = [
    "SCORERS",
    "SPLITS",
    "Example",
    "Fields",
    "Record",
    "Scorer",
    "Task",
    "get_scorer",
    "read_csv",
    "read_hf",
    "read_jsonl",
]
