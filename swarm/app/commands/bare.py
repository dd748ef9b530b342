"""An option whose value may be left out: ``swarm export 3 --pool``, where others take a file."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand

BARE = ""
"""What `--pool` is where no value follows it: no file can be called so."""


class BarePool(TyperCommand):
    """A command whose ``--pool`` may come without a value: at the end, or before an option."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        # typer has no options with an optional value, so that the empty one is written out for it.
        following = [*args[1:], "-"]
        full = [
            f"{word}={BARE}" if word == "--pool" and after.startswith("-") else word
            for word, after in zip(args, following, strict=True)
        ]
        return super().parse_args(ctx, full)
