"""What asking the same thing again gives: how far the answers of a run can be had once more."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum


class Determinism(StrEnum):
    """What an engine promises of one expert's answers. The first is the strongest.

    What a run says of itself is the weakest of what was really asked in it; what came from the
    record is `BITWISE`. A replay needs none of it: it asks nobody.
    """

    BITWISE = "bitwise"
    """Asked again, in any company, the same bits come back: a record, a pure function, or an
    engine whose arithmetic does not depend on what else is in a batch."""
    SEEDED = "seeded"
    """The same request with the same seed gives the same answer, but for the floating point
    effects of batching: sums are taken in another order in a batch of another shape, and where two
    tokens are nearly as likely the other one may be chosen."""
    REPLAY_ONLY = "replay-only"
    """Only the record can give it again: a model that somebody else hosts, and may change."""

    @classmethod
    def weakest(cls, found: Iterable[Determinism]) -> Determinism:
        """The weakest of `found`; `BITWISE` where nothing was asked."""
        order = list(cls)
        return max(found, key=order.index, default=cls.BITWISE)

    def of_asked(self, *, seedless: bool) -> Determinism:
        """What is left of this promise where a server was not told the seed (`Response`)."""
        return Determinism.REPLAY_ONLY if seedless else self
