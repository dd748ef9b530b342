"""Weights that are mixtures of experts' weights: sum over k of c_k * w_k, entry by entry.

The weight-step of Heterogeneous Swarms (arXiv 2502.04510, section 3.2) never leaves the span of the
experts it began with, so a row of coefficients is all that it keeps of an expert; here a row
becomes weights. As published, LoRA's A and B are mixed each on their own, not their product.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import math
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from swarm.agents import weights
from swarm.errors import InputError, MissingPackageError, PoolError, SwarmError

if TYPE_CHECKING:
    import torch

Coefficients = Sequence[float] | NDArray[np.float64]
Merged = Callable[[Sequence[str]], "Iterator[tuple[str, torch.Tensor]]"]

MIXED = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""What safetensors calls the types of numbers that can be mixed, and what torch calls them. Others
(masks, positions) must be the same in all that are mixed, and stay as they are."""
SAME = {
    "adapter": (
        "peft_type",
        "base_model_name_or_path",
        "r",
        "lora_alpha",
        "target_modules",
        "rank_pattern",
        "alpha_pattern",
        "use_rslora",
        "use_dora",
        "fan_in_fan_out",
    ),
    "model": ("model_type", "num_attention_heads", "num_key_value_heads"),
}
"""Keys of a config that decide what an entry of a tensor means."""
GROUP = 1 << 25
"""Entries that are mixed between opening and closing a source's file."""
CHUNK = 1 << 20
"""Entries that are converted at a time."""


class StoredTensor(NamedTuple):
    """Where a tensor lies and what it is, by the header of its file."""

    file: Path
    dtype: str
    """As safetensors calls it: `BF16`."""
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Weights:
    """What one expert brings to a mixture; `check_compatible` makes them. Holds no tensor."""

    folder: Path
    kind: Literal["adapter", "model"]
    """The key of an `Expert` that says where they are."""
    config: Mapping[str, Any]
    tensors: Mapping[str, StoredTensor]

    def by_file(self, names: Iterable[str]) -> dict[Path, list[str]]:
        """In which file each of these tensors is."""
        files: dict[Path, list[str]] = {}
        for name in names:
            files.setdefault(self.tensors[name].file, []).append(name)
        return files


def check_compatible(
    folders: Sequence[str | Path], names: Sequence[str] | None = None
) -> list[Weights]:
    """The weights in these folders, made sure that they can be mixed; reads no more than headers.

    `names` are what errors call them, ``expert 1`` and so on if not given.

    A folder holds an adapter as peft writes it, or a model with safetensors weights, in one file or
    several. Number types may differ: what is merged is written in those of the first.

    Raises:
        PoolError: a folder holds no weights, or they are of another kind, have other tensors or
            shapes, or a config by which the same numbers mean something else. Names the folder and
            the first difference from the first folder.
        MissingPackageError: torch or safetensors is not installed.
    """
    for package in ("torch", "safetensors"):
        if importlib.util.find_spec(package) is None:
            raise MissingPackageError(package, "local", "merging weights")
    if not folders:
        raise PoolError("no weights to merge: give at least one folder")
    names = names or [f"expert {i + 1}" for i in range(len(folders))]
    sources = [_open(Path(folder), name) for folder, name in zip(folders, names, strict=True)]
    for name, source in zip(names[1:], sources[1:], strict=True):
        if difference := _difference(sources[0], source):
            raise PoolError(
                f"{name} (`{source.folder}`) can't be merged with {names[0]} "
                f"(`{sources[0].folder}`): {difference}: "
                "only experts of one base that were trained alike can be merged"
            )
    return sources


def merge(
    sources: Sequence[Weights],
    coefficients: Coefficients,
    names: Sequence[str] | None = None,
) -> Iterator[tuple[str, torch.Tensor]]:
    """Name and tensor of all of sum_k c_k * w_k, one after the other; `dict` of it is a state dict.

    Sums in float32 (float64 where the first source is), rounds once, to the first source's number
    type. A source with coefficient 0 is not read; one source with coefficient 1 comes out bit for
    bit. In memory is what was handed out and was kept, and little more than one tensor.

    Args:
        sources: n, from `check_compatible`.
        coefficients: shape (n,).
        names: only these tensors.

    Raises:
        InputError: not n finite coefficients, or all are 0.
        PoolError: while it runs, where a tensor that can't be mixed differs between sources.
    """
    names = list(sources[0].tensors) if names is None else names
    return _merge(sources, _row(sources, coefficients), names)


def export(sources: Sequence[Weights], coefficients: Coefficients, folder: str | Path) -> None:
    """Writes sum_k c_k * w_k as an ordinary adapter or model folder, whole or not at all.

    Files are split as the first source's are, and one at a time is in memory. Config, tokenizer and
    the like are those of the source with the largest coefficient. `merged.toml` says what was
    mixed; it is not part of what a fingerprint sees.

    Raises:
        InputError: `folder` is there already; or see `merge`.
        PoolError: see `merge`.
        SwarmError: it can't be written (disk full); nothing is left behind.
    """
    row = _row(sources, coefficients)
    note = ["# The weights here are the sum of coefficient * weights over these, entry by entry."]
    for source, c in zip(sources, row, strict=True):
        note.append(f"\n[[sources]]\nfolder = {_toml(source.folder)}\ncoefficient = {c!r}")
    nearest = sources[int(np.argmax(row))]
    write(sources[0], nearest, functools.partial(_merge, sources, row), note, folder)


def write(
    first: Weights, nearest: Weights, merged: Merged, note: Sequence[str], folder: str | Path
) -> None:
    """Writes merged weights as an ordinary adapter or model folder, whole or not at all.

    Args:
        first: whose files show how to split them.
        nearest: whose config, tokenizer and the like it gets.
        merged: gives the tensors of some names; one file's are in memory at a time.
        note: the lines of `merged.toml`.

    Raises:
        InputError: `folder` is there already.
        SwarmError: it can't be written (disk full); nothing is left behind.
    """
    from safetensors import SafetensorError

    folder = Path(folder)
    if folder.exists():
        raise InputError(f"`{folder}` is already there: merged weights need a new folder")
    unfinished = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
    try:
        unfinished.mkdir(parents=True)
        _write(first, nearest, merged, unfinished)
        (unfinished / "merged.toml").write_text("\n".join(note) + "\n", encoding="utf-8")
        unfinished.rename(folder)
    except BaseException as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        if isinstance(error, OSError | SafetensorError):
            raise SwarmError(
                f"merged weights can't be written to `{folder}` ({error}): "
                "make room there or choose another folder; nothing was left behind"
            ) from error
        raise


def _open(folder: Path, who: str) -> Weights:
    kind: Literal["adapter", "model"]
    if (folder / "adapter_config.json").is_file():
        kind = "adapter"
        weights.check_adapter(folder, None, who)
        config = json.loads((folder / "adapter_config.json").read_text())
        files = [folder / "adapter_model.safetensors"]
    else:
        kind = "model"
        weights.check_model(folder, who)
        config = json.loads((folder / "config.json").read_text())
        files = _model_files(folder)
    if config.get("quantization_config"):
        raise PoolError(
            f"{who}: `{folder}` is quantized (config.json, key `quantization_config`), and codes "
            "can't be mixed as numbers: give the weights as they were before"
        )
    return Weights(folder, kind, config, dict(_headers(files)))


def _model_files(folder: Path) -> list[Path]:
    """The files that transformers would read; all there are, where it would find none."""
    if (single := folder / "model.safetensors").is_file():
        return [single]
    if (index := folder / "model.safetensors.index.json").is_file():
        try:
            names = set(json.loads(index.read_text())["weight_map"].values())
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            raise PoolError(f"`{index}` is not an index of weights ({error!r})") from None
        return [folder / name for name in sorted(names)]
    return sorted(folder.glob("*.safetensors"))


def _headers(files: Sequence[Path]) -> Iterator[tuple[str, StoredTensor]]:
    from safetensors import SafetensorError, safe_open

    for path in files:
        try:
            # Opened for numpy, it needs no torch, which takes a second to import.
            with safe_open(path, framework="numpy") as file:
                for name in file.keys():  # noqa: SIM118 -- not a mapping
                    tensor = file.get_slice(name)
                    shape = tuple(tensor.get_shape())
                    yield name, StoredTensor(path, tensor.get_dtype(), shape)
        except (OSError, SafetensorError) as error:
            raise PoolError(
                f"`{path}` is not a readable safetensors file ({error}): save the weights again"
            ) from None


def _difference(first: Weights, other: Weights) -> str | None:
    """Why `other` can't be mixed with `first`: the first reason that is found."""
    if other.kind != first.kind:
        return f"it holds weights of kind `{other.kind}` instead of `{first.kind}`"
    for key in SAME[first.kind]:
        if _meaning(key, other.config) != _meaning(key, first.config):
            here, there = (json.dumps(config.get(key)) for config in (other.config, first.config))
            return f"`{key}` in its config is {here} instead of {there}"
    for name in sorted(first.tensors.keys() | other.tensors.keys()):
        want, have = first.tensors.get(name), other.tensors.get(name)
        if have is None:
            return f"its tensor `{name}` is missing"
        if want is None:
            return f"its tensor `{name}` is one that the first does not have"
        if have.shape != want.shape:
            return f"its tensor `{name}` is {list(have.shape)} instead of {list(want.shape)}"
        if have.dtype != want.dtype and not MIXED.keys() >= {have.dtype, want.dtype}:
            return f"its tensor `{name}` is of type {have.dtype} instead of {want.dtype}"
    return None


def _meaning(key: str, config: Mapping[str, Any]) -> Any:
    value = config.get(key)
    if key == "base_model_name_or_path":
        # One base lies in different folders on different machines, or is named as on a hub.
        return PurePath(value or "").name
    if isinstance(value, list):  # peft writes sets as lists, in any order
        return sorted(value)
    return value or None  # left out, null, false and {} are all peft's way to say "no"


def _row(sources: Sequence[Weights], coefficients: Coefficients) -> list[float]:
    row = np.asarray(coefficients, dtype=np.float64)
    if row.shape != (len(sources),) or not np.isfinite(row).all() or not row.any():
        raise InputError(
            f"coefficients must be {len(sources)} finite numbers, one a source, not all 0; "
            f"got {coefficients!r}"
        )
    values: list[float] = row.tolist()
    return values


def _merge(
    sources: Sequence[Weights], row: Sequence[float], names: Sequence[str]
) -> Iterator[tuple[str, torch.Tensor]]:
    group: list[str] = []
    room = GROUP
    for name in names:
        entries = math.prod(sources[0].tensors[name].shape)
        if group and entries > room:
            yield from _mix(sources, row, group)
            group, room = [], GROUP
        group.append(name)
        room -= entries
    yield from _mix(sources, row, group)


def _mix(
    sources: Sequence[Weights], row: Sequence[float], names: Sequence[str]
) -> Iterator[tuple[str, torch.Tensor]]:
    import torch
    from safetensors import safe_open

    first = sources[0].tensors
    # -0.0 + x is x for every x; 0.0 + x is not where x is -0.0.
    totals = {
        name: torch.full(
            first[name].shape,
            -0.0,
            dtype=torch.float64 if first[name].dtype == "F64" else torch.float32,
        )
        for name in names
        if first[name].dtype in MIXED
    }
    kept: dict[str, torch.Tensor] = {}
    for source, c in zip(sources, row, strict=True):
        if c == 0:
            continue
        for path, inside in source.by_file(names).items():
            # What was read counts as this process's memory until the file is closed and its tensors
            # are gone: it is open for one group only, and no name is given to a tensor of it.
            with safe_open(path, framework="pt") as file:
                for name in inside:
                    if name in totals:
                        _add(totals[name], file.get_tensor(name), c)
                    elif name not in kept:
                        kept[name] = file.get_tensor(name).clone()
                    elif not torch.equal(kept[name], file.get_tensor(name)):
                        raise PoolError(
                            f"tensor `{name}` in `{path}` differs from the other experts', and "
                            f"numbers of type {first[name].dtype} can't be mixed: give weights of "
                            f"type {', '.join(MIXED)}"
                        )
    for name in names:
        if name in kept:
            yield name, kept.pop(name)
        else:
            yield name, totals.pop(name).to(getattr(torch, MIXED[first[name].dtype]))


def _add(total: torch.Tensor, tensor: torch.Tensor, c: float) -> None:
    """total += c * tensor, in the type of `total`."""
    import torch

    parts, pieces = (torch.split(whole.view(-1), CHUNK) for whole in (total, tensor))
    for part, piece in zip(parts, pieces, strict=True):
        part.add_(piece.to(total.dtype), alpha=c)


def _write(first: Weights, nearest: Weights, merged: Merged, folder: Path) -> None:
    for path in sorted({path for kind in weights.CONTENT for path in nearest.folder.glob(kind)}):
        if path.is_file() and not path.name.endswith((".safetensors", ".safetensors.index.json")):
            shutil.copyfile(path, folder / path.name)
    files = first.by_file(first.tensors)
    size = sum(_write_file(merged(names), folder / path.name) for path, names in files.items())
    if first.kind == "model" and [path.name for path in files] != ["model.safetensors"]:
        index = {
            "metadata": {"total_size": size},
            "weight_map": {name: tensor.file.name for name, tensor in first.tensors.items()},
        }
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))


def _write_file(merged: Iterator[tuple[str, torch.Tensor]], path: Path) -> int:
    """Returns how many bytes of tensors were written."""
    from safetensors.torch import save_file

    tensors = dict(merged)
    save_file(tensors, path, metadata={"format": "pt"})
    # safetensors lets nobody else read what it writes; a server may run as another user.
    path.chmod(path.parent.stat().st_mode & 0o666)
    return sum(tensor.nbytes for tensor in tensors.values())


def _toml(folder: Path) -> str:
    return json.dumps(str(folder.resolve()), ensure_ascii=False)
