"""DARE-TIES: weights that are merged entry by entry, by the sign that most of them agree on.

DARE (arXiv 2311.03099) drops entries of an expert's difference from its base at random and scales
up the others. TIES (arXiv 2306.01708) trims what is small, elects a sign for every entry, and takes
the mean of the experts that have it. That is not linear in the experts' weights, so no mixture says
it: it is written to a folder.

An adapter is a difference itself: LoRA's A and B are merged each on their own. Whole models differ
from a base, which must be given. (Their mean can't stand in for it: differences from the mean have
the sum 0, which has no sign.)
"""

from __future__ import annotations

import functools
import json
import math
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from swarm.agents.merge import MIXED, Weights, merge, write
from swarm.errors import InputError

if TYPE_CHECKING:
    import torch


def ties(
    sources: Sequence[Weights],
    names: Sequence[str] | None = None,
    *,
    drop: float = 0.5,
    keep: float = 0.2,
    scale: float = 1.0,
    seed: int = 0,
    base: Weights | None = None,
) -> Iterator[tuple[str, torch.Tensor]]:
    """Name and tensor of the merged weights, one after the other, in the first source's types.

    In memory are a few tensors at a time, however many sources there are.

    Args:
        sources: n, from `check_compatible`; `base` checked with them.
        names: only these tensors.
        drop: p of DARE: the chance of an entry to be dropped.
        keep: k of TIES: the share of each tensor's entries that are kept, the largest. (The paper
            trims over all tensors at once.) 1 leaves out the trim.
        scale: λ of TIES: what the merged difference is multiplied with.
        seed: decides, with a source's place and a tensor's name, what is dropped.
        base: what models are different from; None for adapters.

    Raises:
        InputError: a number out of its range, a base for adapters or none for models.
    """
    if not (0 <= drop < 1 and 0 < keep <= 1 and math.isfinite(scale)):
        raise InputError(
            f"`drop` {drop}, `keep` {keep}, `scale` {scale}: must be in [0, 1), in (0, 1], finite"
        )
    if sources[0].kind == "adapter" and base is not None:
        raise InputError("`base` is for whole models: adapters are differences from theirs already")
    if sources[0].kind == "model" and base is None:
        raise InputError("`base` is missing: give the model that these models were trained from")
    return _ties(sources, names, drop, keep, scale, seed, base)


def export_ties(
    sources: Sequence[Weights],
    folder: str | Path,
    *,
    drop: float = 0.5,
    keep: float = 0.2,
    scale: float = 1.0,
    seed: int = 0,
    base: Weights | None = None,
) -> None:
    """Writes what `ties` makes as an ordinary adapter or model folder, whole or not at all.

    Config, tokenizer and the like are the first source's.

    Raises:
        InputError: see `ties`; or `folder` is there already.
        SwarmError: it can't be written (disk full); nothing is left behind.
    """
    merged = functools.partial(
        ties, sources, drop=drop, keep=keep, scale=scale, seed=seed, base=base
    )
    merged([])  # refuses before anything is written
    how = {"drop": drop, "keep": keep, "scale": scale, "seed": seed}
    note = ["# The weights here are these, merged by DARE-TIES."]
    note += [f"{name} = {value!r}" for name, value in how.items()]
    if base is not None:
        note.append(f"base = {_toml(base.folder)}")
    note += [f"\n[[sources]]\nfolder = {_toml(source.folder)}" for source in sources]
    write(sources[0], sources[0], merged, note, folder)


def _toml(folder: Path) -> str:
    return json.dumps(str(folder.resolve()), ensure_ascii=False)


def _ties(
    sources: Sequence[Weights],
    names: Sequence[str] | None,
    drop: float,
    keep: float,
    scale: float,
    seed: int,
    base: Weights | None,
) -> Iterator[tuple[str, torch.Tensor]]:
    import torch

    for name, start in merge([base or sources[0]], [1], names):
        dtype = sources[0].tensors[name].dtype
        if dtype not in MIXED:
            yield name, start
            continue
        exact = torch.float64 if dtype == "F64" else torch.float32
        origin = start.to(exact)
        if sources[0].kind == "adapter":
            origin.zero_()
        number = zlib.crc32(name.encode())
        differences = (_read(source, name).to(exact) - origin for source in sources)
        dropped = (_drop(d, drop, [seed, k, number]) for k, d in enumerate(differences))
        merged = origin + scale * elect(_trim(d, keep) for d in dropped)
        yield name, merged.to(getattr(torch, MIXED[dtype]))


def elect(differences: Iterable[torch.Tensor]) -> torch.Tensor:
    """The mean, entry by entry, of those that have the sign of the sum of all; 0 has none.

    Where the sum is 0, so is the mean. (The published code then takes the sign of most entries.)
    """
    import torch

    up = down = ups = downs = torch.zeros(())
    for difference in differences:
        up, ups = up + difference.clamp(min=0), ups + (difference > 0)
        down, downs = down + difference.clamp(max=0), downs + (difference < 0)
    total = up + down
    mean = torch.where(total > 0, up / ups.clamp(min=1), down / downs.clamp(min=1))
    return torch.where(total == 0, torch.zeros_like(mean), mean)


def _drop(difference: torch.Tensor, p: float, seed: Sequence[int]) -> torch.Tensor:
    """Entries are 0 with probability p, and the others larger by as much: DARE."""
    import torch

    if p == 0:
        return difference
    drawn = np.random.default_rng(seed).random(tuple(difference.shape), dtype=np.float32)
    return difference * (torch.from_numpy(drawn) >= p) / (1 - p)


def _trim(difference: torch.Tensor, keep: float) -> torch.Tensor:
    """All but the largest entries are 0; of equal ones none goes before another."""
    size = difference.numel()
    kept = math.ceil(keep * size)
    if kept == size:
        return difference
    sizes = difference.abs()
    least = sizes.flatten().kthvalue(size - kept + 1).values
    return difference * (sizes >= least)


def _read(source: Weights, name: str) -> torch.Tensor:
    from safetensors import safe_open

    with safe_open(source.tensors[name].file, framework="pt") as file:
        tensor: torch.Tensor = file.get_tensor(name)
    return tensor
