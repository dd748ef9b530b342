"""The public names of `swarm.tasks`."""

import swarm.tasks
import swarm.tasks.scorers


def test_exports():
    assert swarm.tasks.__all__ == [
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
    assert swarm.tasks.scorers.__all__ == [
        "F1",
        "SCORERS",
        "Choice",
        "Exact",
        "Function",
        "Number",
        "Scorer",
        "ScorerSpec",
        "get_scorer",
    ]
    for module in (swarm.tasks, swarm.tasks.scorers):
        assert all(hasattr(module, name) for name in module.__all__)
