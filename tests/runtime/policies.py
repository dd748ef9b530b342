"""Policies for tests: what they choose is read off the question."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from swarm.agents.messages import Message, Response
from swarm.errors import EngineError
from swarm.graphs import AgentGraph
from swarm.graphs.topologies import single
from swarm.runtime import policy
from swarm.runtime.policy import Policy


class Listed(Policy):
    """The question's last word says which of its graphs answers."""

    name = "listed"

    def __init__(self, graphs: Sequence[AgentGraph]) -> None:
        self.graphs = list(graphs)

    @property
    def experts(self) -> tuple[str, ...]:
        return tuple(sorted({name for graph in self.graphs for name in graph.experts}))

    def graphs_for(self, questions):
        return [self.graphs[int(question.split()[-1])] for question in questions]

    def state(self):
        graphs = [json.loads(graph.to_json()) for graph in self.graphs]
        return {"graphs": graphs, "count": len(graphs)}, {"weights": np.arange(3, dtype="f4")}

    @classmethod
    def from_state(cls, values: Mapping[str, Any], arrays: policy.Arrays) -> Listed:
        assert arrays["weights"].tolist() == [0, 1, 2]
        return cls([AgentGraph.model_validate(graph) for graph in values["graphs"]])

    def without(self, gone):
        kept = [graph for graph in self.graphs if not set(gone) & set(graph.experts)]
        return Listed([kept[i % len(kept)] for i in range(len(self.graphs))])


class Asking(Listed):
    """Asks each of some experts `draws` times, and goes by the last word of what the first says."""

    name = "asking"

    def __init__(self, graphs, asks: Sequence[str], draws: int = 1) -> None:
        super().__init__(graphs)
        self.asks = tuple(asks)
        self.draws = draws

    @property
    def experts(self):
        return tuple(sorted({*super().experts, *self.asks}))

    async def agraphs_for(self, questions, ask):
        prompts = [(Message("user", f"route {question}"),) for question in questions]
        answers = await asyncio.gather(
            *(ask(name, prompts, draws=self.draws) for name in self.asks)
        )
        chosen = []
        for [first, *_] in answers[0]:
            if isinstance(first, EngineError):
                raise first
            assert isinstance(first, Response)
            chosen.append(self.graphs[int(first.text.split()[-1])])
        return chosen

    def state(self):
        values, arrays = super().state()
        return {**values, "asks": list(self.asks), "draws": self.draws}, arrays

    @classmethod
    def from_state(cls, values, arrays):
        return cls(Listed.from_state(values, arrays).graphs, values["asks"], values["draws"])


class Short(Listed):
    """Leaves a question out."""

    name = "short"

    def graphs_for(self, questions):
        return [single(self.graphs[0].experts[0])] * (len(questions) - 1)


def register(monkeypatch) -> None:
    for cls in (Listed, Asking):
        monkeypatch.setitem(policy.POLICIES, cls.name, f"policies:{cls.__name__}")
