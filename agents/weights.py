"""What can be known about weights without loading them: are they there, do they fit?

Reads safetensors headers only, so it needs neither torch nor safetensors.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from swarm.errors import PoolError

CONTENT = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt")
"""Files of a model folder that decide what it answers."""
_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


def is_hub_name(model: str) -> bool:
    """Whether `model` names a model of a hub (``org/name``) and not a folder."""
    return not Path(model).exists() and _HUB_NAME.fullmatch(model) is not None


def shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Name → shape of every tensor in the folder's safetensors files."""
    found: dict[str, tuple[int, ...]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            found |= _header(path)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise PoolError(
                f"`{path}` is not a readable safetensors file ({error}): save the weights again"
            ) from None
    return found


def _header(path: Path) -> dict[str, tuple[int, ...]]:
    return {name: tuple(entry["shape"]) for name, entry in _entries(path).items()}


def _entries(path: Path) -> dict[str, Any]:
    """https://github.com/huggingface/safetensors#format: 8 bytes of length, JSON, then the data."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if not 0 < size <= 100_000_000:
            raise ValueError(f"its header would have {size} bytes")
        header: dict[str, Any] = json.loads(file.read(size))
    header.pop("__metadata__", None)
    end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
    if path.stat().st_size < 8 + size + end:
        raise ValueError("it is cut off")
    return header


NUMBERS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
"""Floating-point types as safetensors calls them: those that loading may change. Their bytes."""


def size(folder: Path, width: int | None = None) -> int:
    """Bytes of all tensors in the folder's safetensors files: as they are stored, or with `width`
    bytes for each floating-point number."""
    return sum(
        _file_size(path, width, path.stat().st_size, path.stat().st_mtime_ns)
        for path in folder.glob("*.safetensors")
    )


@functools.cache
def _file_size(path: Path, width: int | None, size: int, modified: int) -> int:
    total = 0
    for entry in _entries(path).values():
        first, last = entry["data_offsets"]
        if width is not None and entry["dtype"] in NUMBERS:
            total += width * (last - first) // NUMBERS[entry["dtype"]]
        else:
            total += last - first
    return total


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise PoolError(f"`{path}` is not readable JSON ({error})") from None
    if not isinstance(content, dict):
        raise PoolError(f"`{path}` must hold a JSON object")
    return content


def check_model(folder: Path, who: str) -> None:
    """Raises `PoolError` unless `folder` holds a model with safetensors weights.

    `who` says where the value came from, for the message.
    """
    if not folder.is_dir():
        raise PoolError(f"{who}: key `model`: `{folder}` is not a folder: give the model's folder")
    if not (folder / "config.json").is_file():
        raise PoolError(f"{who}: key `model`: `{folder}` holds no config.json: not a model folder")
    if not any(folder.glob("*.safetensors")):
        other = sorted(p.name for ext in ("*.bin", "*.pt", "*.pth") for p in folder.glob(ext))
        hint = f" (`{other[0]}` is a pickle: convert it)" if other else ""
        raise PoolError(
            f"{who}: key `model`: `{folder}` holds no weights: needs *.safetensors{hint}"
        )
    _read_json(folder / "config.json")


def check_adapter(folder: Path, base: Path | None, who: str) -> None:
    """Raises `PoolError` unless `folder` holds a LoRA adapter that fits the base.

    Every ``X.lora_A.weight`` must take what the base's ``X.weight`` takes, and every
    ``X.lora_B.weight`` give what it gives. `base` may be None where only the hub knows it.
    """
    who = f"{who}: key `adapter`"
    if not folder.is_dir():
        raise PoolError(f"{who}: `{folder}` is not a folder: give the adapter's folder")
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        if not (folder / name).is_file():
            raise PoolError(
                f"{who}: `{folder}` holds no {name}: needs a peft adapter with safetensors weights"
            )
    kind = _read_json(folder / "adapter_config.json").get("peft_type")
    if kind != "LORA":
        raise PoolError(f"{who}: `{folder}` is of type `{kind}`: must be a LoRA adapter (`LORA`)")
    adapter = shapes(folder)
    # What is quantised has other shapes than it stands for.
    if base is None or "quantization_config" in _read_json(base / "config.json"):
        return
    wanted = shapes(base)
    for tensor, shape in adapter.items():
        match = re.fullmatch(r"base_model\.model\.(.+)\.lora_([AB])\.weight", tensor)
        if match is None or match[1] == "lm_head":  # which may be tied, and then is not there
            continue
        target, side = f"{match[1]}.weight", match[2]
        # Some bases are saved without the name of the model they are the body of.
        have = wanted.get(target) or wanted.get(target.partition(".")[2])
        # Which of its two sides a layer takes and which it gives is not the same for all kinds.
        if have is None or (shape[1] if side == "A" else shape[0]) not in have:
            raise PoolError(
                f"{who}: `{folder}` was made for another base than `{base}`: its `{tensor}` "
                f"{list(shape)} does not fit the base's `{target}` "
                f"{list(have) if have else '(missing)'}"
            )


def _contents(folder: Path) -> Iterator[Path]:
    yield from sorted({path for pattern in CONTENT for path in folder.glob(pattern)})


@functools.cache
def _file_digest(path: Path, size: int, modified: int) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").digest()[:32]


def folder_digest(folder: Path) -> bytes:
    """32 bytes that change when anything changes that decides what the model answers.

    Files are read once a process, and again when their size or time of change differs.
    """
    digest = hashlib.blake2b(digest_size=32)
    for path in _contents(folder):
        stat = path.stat()
        digest.update(path.name.encode() + b"\0")
        digest.update(_file_digest(path, stat.st_size, stat.st_mtime_ns))
    return digest.digest()
