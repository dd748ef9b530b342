"""How much room models have: a number of bytes or of models, on one device or on several."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from swarm.errors import InputError

UNITS = {
    "B": 1,
    **{f"{letter}B": 1000**k for k, letter in enumerate("KMGT", start=1)},
    **{f"{letter}iB": 1024**k for k, letter in enumerate("KMGT", start=1)},
}
_TEXT = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]+)?", re.IGNORECASE)


class Room(NamedTuple):
    """What may be loaded on one device at once. One of the two is given."""

    models: int | None = None
    bytes: int | None = None

    def holds(self, sizes: Iterable[int | None]) -> bool:
        """Whether bases of these sizes (bytes; None: unknown) fit together.

        What takes nothing (0 bytes) is no model.
        """
        taken = [size for size in sizes if size != 0]
        if self.models is not None:
            return len(taken) <= self.models
        return sum(size or 0 for size in taken) <= (self.bytes or 0)

    def __str__(self) -> str:
        if self.models is not None:
            return f"{self.models} model{'' if self.models == 1 else 's'}"
        return shown(self.bytes or 0)


@dataclass(frozen=True)
class Memory:
    """The room for models: of every device, or of each by its name.

    ```
    Memory.parse(4)                                     # four models
    Memory.parse("80GiB")                               # on each device
    Memory.parse({"cuda:0": "80GiB", "cuda:1": "40GiB"})
    ```
    """

    rooms: Mapping[str, Room]
    """By device; ``""``: every device that is not named."""

    @classmethod
    def parse(cls, value: object) -> Memory:
        """From what a user wrote: a number, a text, or a table of them by device.

        Raises:
            InputError: it is neither.
        """
        if isinstance(value, Memory):
            return value
        if isinstance(value, Mapping):
            if not value:
                raise InputError('`memory` names no device: add one, such as `"cuda:0" = "80GiB"`')
            return cls(
                {str(device): _room(text, f"`memory.{device}`") for device, text in value.items()}
            )
        if isinstance(value, str) and "=" in value:
            pairs = [pair.partition("=") for pair in value.split(",")]
            return cls.parse({device.strip(): text.strip() for device, _, text in pairs})
        return cls({"": _room(value, "`memory`")})

    def room(self, device: str) -> Room | None:
        """Of `device`; None where nothing is said of it."""
        return self.rooms.get(device, self.rooms.get(""))


def _room(value: object, what: str) -> Room:
    rule = 'give a number of models, or bytes such as "80GiB" or "500 MB"'
    if isinstance(value, str) and (found := _TEXT.fullmatch(value.strip())):
        number, unit = found.groups()
        if unit is None and "." not in number:
            value = int(number)
        else:
            units = {name.lower(): size for name, size in UNITS.items()}
            if unit is not None and unit.lower() in units:
                size = int(float(number) * units[unit.lower()])
                if size < 1:
                    raise InputError(f"{what} is `{value}`: there is no room for any model: {rule}")
                return Room(bytes=size)
    if not isinstance(value, int) or isinstance(value, bool):
        raise InputError(f"{what} is `{value}`: {rule}")
    if value < 1:
        raise InputError(f"{what} is {value}: at least 1 model must be allowed to be loaded")
    return Room(models=value)


def shown(size: int) -> str:
    """Bytes as one reads them: ``1.5 GiB``."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size >= UNITS[unit]:
            return f"{size / UNITS[unit]:.1f}".removesuffix(".0") + f" {unit}"
    return f"{size} B"
