"""DARE-TIES against a direct implementation, and what its papers promise."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from swarm.agents.merge import check_compatible
from swarm.errors import InputError

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from safetensors.torch import load_file, save_file  # noqa: E402

from swarm.agents.ties import elect, export_ties, ties  # noqa: E402

CONFIG = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": ["q"]}


def adapters(folder, *many):
    """Sources that are adapters with these tensors."""
    places = []
    for k, tensors in enumerate(many):
        place = folder / f"adapter{k}"
        place.mkdir(parents=True)
        (place / "adapter_config.json").write_text(json.dumps(CONFIG))
        save_file(tensors, place / "adapter_model.safetensors")
        places.append(place)
    return check_compatible(places)


def models(folder, *many):
    """Sources that are models with these tensors."""
    places = []
    for k, tensors in enumerate(many):
        place = folder / f"model{k}"
        place.mkdir(parents=True)
        (place / "config.json").write_text(json.dumps({"model_type": "llama"}))
        save_file(tensors, place / "model.safetensors")
        places.append(place)
    return check_compatible(places)


def directly(differences, keep):
    """TIES-Merging as its paper's algorithm 1 says it, of differences (n, d)."""
    d = differences.shape[1]
    kept = int(np.ceil(keep * d))
    merged = np.zeros(d)
    trimmed = [
        [x if abs(x) >= sorted(map(abs, row))[d - kept] else 0.0 for x in row]
        for row in differences.tolist()
    ]
    for p in range(d):
        column = [row[p] for row in trimmed]
        sign = np.sign(sum(column))
        agreeing = [x for x in column if x != 0 and np.sign(x) == sign]
        merged[p] = np.mean(agreeing) if agreeing else 0.0
    return merged


# Whole quarters add up exactly in either precision, so that signs are no matter of rounding.
DIFFERENCES = st.tuples(st.integers(1, 5), st.integers(1, 12)).flatmap(
    lambda shape: arrays.arrays(
        np.float32, shape, elements=st.integers(-20, 20).map(lambda i: i / 4)
    )
)


@given(DIFFERENCES, st.sampled_from([0.1, 0.2, 0.5, 1.0]), st.sampled_from([1.0, 0.5]))
@settings(max_examples=60)
def test_is_what_the_paper_says(tmp_path_factory, differences, keep, scale):
    folder = tmp_path_factory.mktemp("ties")
    sources = adapters(folder, *({"x": torch.from_numpy(row)} for row in differences))
    [(name, merged)] = ties(sources, drop=0, keep=keep, scale=scale)
    assert name == "x"
    np.testing.assert_allclose(merged, scale * directly(differences, keep), rtol=1e-6)


@given(DIFFERENCES)
def test_no_entry_has_the_sign_that_the_sum_has_not(differences):
    merged = elect(map(torch.from_numpy, differences)).numpy()
    assert (np.sign(merged) == np.sign(differences.sum(axis=0))).all()
    assert (np.abs(merged) <= np.abs(differences).max(axis=0)).all()


def test_what_is_dropped_is_made_up_for(tmp_path):
    sources = adapters(tmp_path, {"x": torch.ones(100, 100)})
    merged = dict(ties(sources, drop=0.75, keep=1, seed=3))["x"]
    assert set(merged.unique().tolist()) == {0.0, 4.0}
    assert merged.mean().item() == pytest.approx(1, abs=0.1)


def test_the_seed_decides_what_is_dropped_and_nothing_else_does(tmp_path):
    many = [{"x": torch.randn(8, 8), "y": torch.randn(8, 8)} for _ in range(3)]
    sources = adapters(tmp_path, *many)
    whole = dict(ties(sources, seed=1))
    [(_, alone)] = ties(sources, ["y"], seed=1)
    assert torch.equal(alone, whole["y"])
    assert not torch.equal(dict(ties(sources, seed=2))["y"], whole["y"])
    zeros = [dict(ties([source], drop=0.5, keep=1, seed=1))["x"] == 0 for source in sources[:2]]
    assert torch.equal(*zeros), "it is the place that counts, not the weights"


def test_one_that_is_neither_dropped_nor_trimmed_comes_out_as_it_is(tmp_path):
    tensors = {"x": torch.randn(5, 3).to(torch.bfloat16)}
    [(_, merged)] = ties(adapters(tmp_path, tensors), drop=0, keep=1)
    assert merged.dtype == torch.bfloat16
    assert torch.equal(merged, tensors["x"])


def test_models_are_merged_as_differences_from_their_base(tmp_path):
    base = torch.randn(6, 6, dtype=torch.float64)
    many = [torch.randn(6, 6, dtype=torch.float64) for _ in range(3)]
    count = torch.arange(4)
    *sources, origin = models(tmp_path, *({"x": x, "n": count} for x in [*many, base]))
    differences = np.array([(x - base).flatten().numpy() for x in many])
    merged = dict(ties(sources, drop=0, keep=0.5, base=origin))
    expected = base.flatten().numpy() + directly(differences, 0.5)
    np.testing.assert_allclose(merged["x"].flatten(), expected)
    assert torch.equal(merged["n"], count)


def test_is_written_as_an_ordinary_folder(tmp_path):
    many = [{"x": torch.randn(4, 4)} for _ in range(2)]
    sources = adapters(tmp_path, *many)
    export_ties(sources, tmp_path / "merged", drop=0.2, seed=5)
    written = load_file(tmp_path / "merged" / "adapter_model.safetensors")
    assert torch.equal(written["x"], dict(ties(sources, drop=0.2, seed=5))["x"])
    assert json.loads((tmp_path / "merged" / "adapter_config.json").read_text()) == CONFIG
    [again] = check_compatible([tmp_path / "merged"])
    assert again.kind == "adapter"
    note = (tmp_path / "merged" / "merged.toml").read_text()
    assert "drop = 0.2" in note
    assert str(tmp_path / "adapter1") in note
    with pytest.raises(InputError, match="already there"):
        export_ties(sources, tmp_path / "merged")


def test_what_cannot_be_is_refused_before_anything_is_written(tmp_path):
    sources = adapters(tmp_path, {"x": torch.ones(2, 2)})
    for wrong in ({"drop": 1.0}, {"drop": -0.1}, {"keep": 0}, {"keep": 2}, {"scale": np.inf}):
        with pytest.raises(InputError, match=f"`{next(iter(wrong))}`"):
            export_ties(sources, tmp_path / "merged", **wrong)
    with pytest.raises(InputError, match="`base` is for whole models"):
        export_ties(sources, tmp_path / "merged", base=sources[0])
    with pytest.raises(InputError, match="`base` is missing"):
        export_ties(models(tmp_path, {"x": torch.ones(2)}), tmp_path / "merged")
    assert not (tmp_path / "merged").exists()
