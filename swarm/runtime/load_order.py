"""What a wave asks: all bases if everything fits, else one, in the planned order of loads."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from swarm.agents.expert import Expert
from swarm.runtime.agenda import Agenda, Item, bits
from swarm.runtime.planning import Model, Step, plan
from swarm.runtime.residency import Residency


class Turn(NamedTuple):
    """One base's part of a wave."""

    base: str
    evict: tuple[str, ...] = ()
    """What is to be unloaded first, if room has to be made."""
    ahead: tuple[Expert, ...] = ()
    """Experts of the base that is loaded next, for its weights to be read meanwhile."""


class Pending(NamedTuple):
    """What waits for one base."""

    experts: Sequence[Expert]
    prompts: int
    alone: bool
    """Whether somebody outside of any graph waits, too."""


class Running(Protocol):
    """A graph on its way."""

    @property
    def agenda(self) -> Agenda: ...
    @property
    def answered(self) -> int: ...


Kinds = frozenset[tuple[Agenda, int]]
"""Where graphs stand. Those that stand at the same point count once: a load serves all of them."""


class LoadOrder:
    """In which order one scheduler loads the bases that its graphs want."""

    def __init__(self, residency: Residency) -> None:
        self._residency = residency
        self._steps: list[Step] = []
        """Planned loads, the next one last."""
        self._expected: list[tuple[Kinds, frozenset[str]]] = []
        """Beside them: where graphs will stand, and what will be loaded, just before each."""
        self._alone: dict[str, Agenda] = {}

    def choose(
        self, pending: Mapping[str, Pending], participants: Collection[Running]
    ) -> Iterator[Turn]:
        """Turns of the wave that begins now: at least one. `pending` is not empty."""
        kinds = frozenset(
            (graph.agenda, graph.answered)
            for graph in participants
            if graph.answered != graph.agenda.all
        )
        kinds |= {
            (self._single(base, of.experts[0]), 0) for base, of in pending.items() if of.alone
        }
        wanted = _wanted(kinds, pending)
        models = {base: self._residency.model(experts) for base, experts in wanted.items()}
        if self._fit(models.values()):
            yield from self._all(pending, wanted)
        else:
            yield self._one(pending, wanted, models, kinds)

    def _single(self, base: str, expert: Expert) -> Agenda:
        """What somebody asks who is in no graph."""
        if base not in self._alone:
            if len(self._alone) > 1000:  # who serves for ever must not grow
                self._alone.clear()
            self._alone[base] = Agenda([Item(expert)])
        return self._alone[base]

    def _fit(self, models: Collection[Model]) -> bool:
        sizes: dict[str, list[int | None]] = {}
        for model in models:
            if model.size != 0:
                sizes.setdefault(model.device, []).append(model.size)
        return all(self._residency.room(device).holds(of) for device, of in sizes.items())

    def _all(
        self, pending: Mapping[str, Pending], wanted: Mapping[str, Sequence[Expert]]
    ) -> Iterator[Turn]:
        """Every base that is waited for, loaded ones first."""
        loaded = self._residency.loaded
        unwanted = tuple(base for base in loaded if base not in wanted)
        bases = sorted(pending, key=lambda base: (base not in loaded, base))
        for k, base in enumerate(bases):
            following = [other for other in bases[k + 1 :] if other not in loaded][:1]
            yield Turn(base, unwanted, *(tuple(wanted[other]) for other in following))

    def _one(
        self,
        pending: Mapping[str, Pending],
        wanted: Mapping[str, Sequence[Expert]],
        models: Mapping[str, Model],
        kinds: Kinds,
    ) -> Turn:
        """A loaded base that somebody waits for, else the one that is planned to be loaded."""
        loaded = frozenset(self._residency.loaded)
        here = loaded | {base for base, model in models.items() if model.size == 0}
        then = _served(kinds, here)
        ready = [base for base in pending if base in here]
        if ready and len(self._steps) and self._steps[-1].base in wanted:
            pass  # whether the plan still holds is only of interest when something is loaded
        elif not self._expected or self._expected[-1] != (then, loaded):
            self._plan(then, loaded, models)
        if ready:
            return Turn(_first(ready, pending, kinds, here), (), self._next(wanted))
        self._expected.pop()
        step = self._steps.pop()
        if step.base not in pending:  # a graph does not do what it said: the next plan knows better
            self._expected.clear()
            return Turn(min(pending))
        return Turn(step.base, step.evict, self._next(wanted))

    def _plan(self, kinds: Kinds, loaded: frozenset[str], models: Mapping[str, Model]) -> None:
        known = dict(models)
        for base in loaded.difference(known):
            known[base] = self._residency.loaded_model(base)
        devices = {model.device for model in known.values() if model.size != 0}
        rooms = {device: self._residency.room(device) for device in devices}
        ordered = sorted(kinds, key=lambda kind: (kind[0].bases, kind[0].before, kind[1]))
        steps = plan(ordered, self._residency.loaded, known, rooms)
        free = {base for base, model in known.items() if model.size == 0}
        self._expected = []
        for step in steps:
            self._expected.append((kinds, loaded))
            loaded = loaded.difference(step.evict) | {step.base}
            kinds = _served(kinds, loaded | free)
        self._steps = steps[::-1]
        self._expected.reverse()

    def _next(self, wanted: Mapping[str, Sequence[Expert]]) -> tuple[Expert, ...]:
        return tuple(wanted.get(self._steps[-1].base, ())) if self._steps else ()


def _wanted(kinds: Kinds, pending: Mapping[str, Pending]) -> dict[str, list[Expert]]:
    """Base → its experts that are asked now or later, one an overlay."""
    found: dict[str, dict[str | None, Expert]] = {}
    for agenda, answered in kinds:
        for i in agenda.missing(answered):
            expert = agenda.items[i].expert
            found.setdefault(expert.base, {}).setdefault(expert.overlay, expert)
    for of in pending.values():
        for expert in of.experts:
            found.setdefault(expert.base, {}).setdefault(expert.overlay, expert)
    return {base: list(experts.values()) for base, experts in found.items()}


def _served(kinds: Kinds, here: Collection[str]) -> Kinds:
    """Where graphs stand when loaded bases have answered all that they can."""
    then = ((agenda, agenda.served(answered, here)) for agenda, answered in kinds)
    return frozenset((agenda, answered) for agenda, answered in then if answered != agenda.all)


def _first(
    ready: Sequence[str], pending: Mapping[str, Pending], kinds: Kinds, here: frozenset[str]
) -> str:
    """Of the loaded bases that are waited for, one for which no other has to answer first, so that
    what it is asked together is as much as can be; else the one that is waited for most."""
    if len(ready) == 1:
        return ready[0]
    last = [base for base in ready if not _grows(base, kinds, here)]
    return max(last or ready, key=lambda base: (pending[base].prompts, base))


def _grows(base: str, kinds: Kinds, here: frozenset[str]) -> bool:
    """Whether more would be asked of `base` if the other loaded ones answered before."""
    others = here - {base}
    for agenda, answered in kinds:
        new = agenda.ready(agenda.served(answered, others)) & ~agenda.ready(answered)
        if any(agenda.bases[i] == base for i in bits(new)):
            return True
    return False
