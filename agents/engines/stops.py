"""A text ends before its first stop string, also where it comes in pieces."""

from __future__ import annotations

from collections.abc import Sequence


class Cut:
    """Takes a text in pieces and gives out as much as is certain to be before any stop string.

    The first stop string is the one that is complete first, as when it was written.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = stops
        self._held = ""
        """The end of what came, which may be the beginning of a stop string."""
        self.stopped = False
        """Whether one was met: all that comes later is dropped."""

    def feed(self, piece: str) -> str:
        """What can be given out now."""
        if self.stopped:
            return ""
        text = self._held + piece
        found = [(at + len(stop), at) for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)[1]]
        kept = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - kept :]
        return text[: len(text) - kept]

    def rest(self) -> str:
        """What was held back, now that nothing more comes."""
        held, self._held = self._held, ""
        return held


def cut(text: str, stops: Sequence[str]) -> tuple[str, bool]:
    """The text before the first of `stops`, and whether there was one."""
    if not stops:
        return text, False
    cutting = Cut(stops)
    return cutting.feed(text) + cutting.rest(), cutting.stopped


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of `text` may begin `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
