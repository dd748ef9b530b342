"""How the weights of `transformers` models come into memory: from files, read ahead, or merged."""

from __future__ import annotations

import contextlib
import functools
import json
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import torch

    from swarm.agents.expert import Expert, Mixture


class Prefetch:
    """A base that is being read into host memory. (Named tensors, pinned where CUDA takes them.)

    On a CPU it would take the room of a model there: its files are only read through, so that the
    system has them at hand.
    """

    def __init__(self, base: str, *, keep: bool) -> None:
        self.base = base
        self.stop = threading.Event()
        self.read: Future[bool] | None = None
        self.tensors: dict[str, torch.Tensor] = {}
        self._keep = keep

    def go(self, expert: Expert) -> bool:
        """Whether all was read."""
        folder = weights_folder(expert)
        if folder is None or is_quantised(folder):
            return False
        if not self._keep:
            return self._read_through(folder)
        import torch

        found: dict[str, torch.Tensor] = {}
        for name, tensor in _tensors(expert, folder):
            if self.stop.is_set():
                return False
            # Until it is copied, it is a place in a file.
            found[name] = tensor.pin_memory() if torch.cuda.is_available() else tensor.clone()
        self.tensors = found
        return True

    def _read_through(self, folder: Path) -> bool:
        for path in sorted(folder.glob("*.safetensors")):
            with path.open("rb") as file:
                while file.read(1 << 24):
                    if self.stop.is_set():
                        return False
        return True


def load_model(
    expert: Expert, options: Mapping[str, Any], prefetched: dict[str, torch.Tensor] | None
) -> Any:
    """The model on the CPU, of its files or of tensors that have been read or are merged."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

    mixture = expert.mixture if expert.mixture and expert.mixture.kind == "model" else None
    if mixture is None and prefetched is None:
        return AutoModelForCausalLM.from_pretrained(expert.model, use_safetensors=True, **options)
    config = AutoConfig.from_pretrained(expert.model, trust_remote_code=False)
    with torch.device("meta"):  # only to learn which class it is
        kind = type(AutoModelForCausalLM.from_config(config))
    tensors = prefetched if prefetched is not None else merged(cast("Mixture", mixture))
    model = kind.from_pretrained(None, config=config, state_dict=tensors, **options)
    with contextlib.suppress(OSError):  # there need be none
        model.generation_config = GenerationConfig.from_pretrained(expert.model)
    return model


def weights_folder(expert: Expert) -> Path | None:
    """Where the weights lie; None if they are still to be fetched from a hub."""
    if expert.mixture is not None and expert.mixture.kind == "model":
        return Path(expert.mixture.folders[0])
    if Path(expert.model).is_dir():
        return Path(expert.model)
    try:
        return _downloaded(expert.model)
    except Exception:  # not there, no name of a model, …: loading will say
        return None


@functools.lru_cache(256)
def _downloaded(model: str) -> Path:
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(model, local_files_only=True))


def adapter_folder(expert: Expert) -> Path:
    """A folder whose adapter is as large as the one that `expert` has."""
    return Path(expert.mixture.folders[0] if expert.mixture else cast(str, expert.adapter))


@functools.lru_cache(256)
def is_quantised(folder: Path) -> bool:
    """Whether the weights are stored in another form than they are computed with."""
    try:
        return "quantization_config" in json.loads((folder / "config.json").read_text())
    except (OSError, ValueError):
        return False


def width_of(dtype: str | None) -> int | None:
    """Bytes of a number of this type of torch's; None: as it is stored."""
    if dtype in (None, "auto"):
        return None
    import torch

    return int(getattr(torch, str(dtype)).itemsize)


def _tensors(expert: Expert, folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    from safetensors import safe_open

    if expert.mixture is not None and expert.mixture.kind == "model":
        yield from merged(expert.mixture).items()
        return
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - it is no mapping
                yield name, file.get_tensor(name)


def merged(mixture: Mixture) -> dict[str, torch.Tensor]:
    """In memory, tensor by tensor: no more than the result and what it is being added to."""
    from swarm.agents.merge import check_compatible, merge

    return dict(merge(check_compatible(mixture.folders), mixture.coefficients))
