"""Merged weights are the sum of coefficients times weights, in folders that others can load."""

from __future__ import annotations

import contextlib
import json
import resource
import shutil
import sys
import tempfile
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from swarm.agents import merge as merging
from swarm.agents.merge import check_compatible, export, merge
from swarm.errors import InputError, MissingPackageError, PoolError, SwarmError
from swarm.optimizers.pso import ParticleSwarm, SwarmSettings

LORA = {
    "peft_type": "LORA",
    "base_model_name_or_path": "models/tiny",
    "r": 2,
    "lora_alpha": 4,
    "target_modules": ["q_proj", "v_proj"],
}
SHAPES = {"a.lora_A.weight": (2, 8), "a.lora_B.weight": (6, 2), "scale": ()}
FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


def randoms(seed, dtype=torch.float32, shapes=SHAPES):
    numbers = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=numbers).to(dtype) for name, shape in shapes.items()}


def write_adapter(folder, tensors, **config):
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps(LORA | config))
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def write_model(folder, tensors, files=1, index=False, **config):
    """Tensor i goes to file i modulo `files`."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", **config}))
    place = {}
    for k in range(files):
        name = f"model-{k + 1:05}-of-{files:05}.safetensors" if files > 1 else "model.safetensors"
        inside = dict(list(tensors.items())[k::files])
        save_file(inside, folder / name)
        place |= dict.fromkeys(inside, name)
    if index:
        content = json.dumps({"metadata": {}, "weight_map": place})
        (folder / "model.safetensors.index.json").write_text(content)
    return folder


def bits(tensor):
    return tensor.reshape(-1).view(torch.uint8).tolist()


def listing(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def adapters(tmp_path):
    return [write_adapter(tmp_path / f"expert{k}", randoms(k)) for k in range(3)]


@given(data=st.data())
@settings(max_examples=40)
def test_is_the_sum_of_coefficients_times_weights(data):
    n = data.draw(st.integers(1, 4), label="n")
    shapes = {
        f"t{i}": tuple(shape)
        for i, shape in enumerate(
            data.draw(st.lists(st.lists(st.integers(0, 5), max_size=3), min_size=1, max_size=5))
        )
    }
    dtypes = data.draw(st.lists(st.sampled_from(FLOATS), min_size=n, max_size=n), label="dtypes")
    files = data.draw(st.lists(st.integers(1, 3), min_size=n, max_size=n), label="files")
    c = data.draw(st.lists(st.floats(-3, 3), min_size=n, max_size=n).filter(any), label="c")
    states = [randoms(k, dtype, shapes) for k, dtype in enumerate(dtypes)]
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        # So small that tensors are split and put in groups.
        patch.setattr(merging, "CHUNK", data.draw(st.sampled_from([1, 7, 1000])))
        patch.setattr(merging, "GROUP", data.draw(st.sampled_from([1, 20, 1000])))
        folders = [
            write_model(Path(folder, str(k)), state, files=count)
            for k, (state, count) in enumerate(zip(states, files, strict=True))
        ]
        merged = dict(merge(check_compatible(folders), c))
    assert merged.keys() == shapes.keys()
    for name, tensor in merged.items():
        assert tensor.dtype == dtypes[0]
        assert tensor.shape == shapes[name]
        terms = [share * state[name].double() for share, state in zip(c, states, strict=True)]
        size = sum(term.abs() for term in terms)
        error = (tensor.double() - sum(terms)).abs()
        # One rounding to what is stored, over a few to float32 on the way.
        assert (error <= size * (torch.finfo(dtypes[0]).eps + 1e-6) + 1e-7).all()


class FullWeights:
    """Heterogeneous Swarms' update on whole state dicts, particle by particle."""

    def __init__(self, states, seed, how):
        self.rng, self.how, self.step = np.random.default_rng(seed), how, how.step
        self.names = list(states[0])
        self.x = [{name: state[name].double() for name in self.names} for state in states]
        n = len(states)
        other = self.rng.integers(0, n - 1, size=n)
        other = [o + (o >= i) for i, o in enumerate(other)]
        self.v = [{t: self.x[o][t] - self.x[i][t] for t in self.names} for i, o in enumerate(other)]
        self.p, self.f_p, self.age = list(self.x), [-np.inf] * n, [0] * n
        self.g, self.f_g, self.w, self.f_w = None, -np.inf, None, np.inf

    def tell(self, scores):
        how = self.how
        for i, f in enumerate(scores):
            self.age[i] += 1
            if f > self.f_p[i]:
                self.p[i], self.f_p[i], self.age[i] = self.x[i], f, 0
            if f > self.f_g:
                self.g, self.f_g = self.x[i], f
            if f < self.f_w:
                self.w, self.f_w = self.x[i], f
        r = self.rng.random((4, len(self.x), 1))
        for i in range(len(self.x)):
            if self.age[i] > how.restart_patience * how.patience:
                self.x[i], self.age[i] = self.p[i], 0
                self.v[i] = {t: torch.zeros_like(tensor) for t, tensor in self.x[i].items()}
            x, v = self.x[i], self.v[i]
            a_v, a_p, a_g, a_w = r[:, i, 0] * [how.inertia, how.cognitive, how.social, how.repel]
            c = a_v + a_p + a_g + a_w
            self.v[i] = {
                t: (
                    a_v * v[t]
                    + a_p * (self.p[i][t] - x[t])
                    + a_g * (self.g[t] - x[t])
                    + a_w * (x[t] - self.w[t])
                )
                / c
                for t in self.names
            }
            self.x[i] = {t: x[t] + self.step * self.v[i][t] for t in self.names}
        self.step = max(how.step_floor, how.step_decay * self.step)


@given(seed=st.integers(0, 2**32 - 1), kind=st.sampled_from(["adapter", "model"]))
@settings(max_examples=5)
def test_a_swarm_of_coefficients_is_a_swarm_of_weights(seed, kind):
    how = SwarmSettings(repel=0.1)
    states = [randoms(seed + k) for k in range(4)]
    swarm = ParticleSwarm(np.eye(4), np.random.default_rng(seed), how)
    direct = FullWeights(states, seed, how)
    scores = np.random.default_rng(seed + 1)
    with tempfile.TemporaryDirectory() as folder:
        write = {"adapter": write_adapter, "model": write_model}[kind]
        sources = check_compatible(
            [write(Path(folder, str(k)), state) for k, state in enumerate(states)]
        )
        for _ in range(21):
            for row, want in zip(swarm.ask(), direct.x, strict=True):
                size = 1 + np.abs(row).sum()
                for name, tensor in merge(sources, row):
                    torch.testing.assert_close(
                        tensor.double(), want[name], rtol=1e-6, atol=1e-6 * size
                    )
            told = scores.random(4)
            swarm.tell(told)
            direct.tell(told)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_a_unit_row_is_its_expert_bit_for_bit(tmp_path, dtype):
    info = torch.finfo(dtype)
    odd = torch.tensor(
        [0.0, -0.0, info.max, -info.max, info.tiny, info.smallest_normal / 4, torch.inf],
        dtype=dtype,
    )
    states = [{"w": torch.randn(7).to(dtype)}, {"w": odd}, {"w": torch.full((7,), torch.nan)}]
    folders = [write_model(tmp_path / str(k), state) for k, state in enumerate(states)]
    (merged,) = dict(merge(check_compatible(folders), [0, 1, 0])).values()
    assert merged.dtype == dtype
    assert bits(merged) == bits(odd)


def test_experts_with_coefficient_0_are_not_read(adapters):
    sources = check_compatible(adapters)
    shutil.rmtree(adapters[1])
    merged = dict(merge(sources, [0.5, 0, 0.5]))
    want = {name: (tensor + randoms(2)[name]) / 2 for name, tensor in randoms(0).items()}
    torch.testing.assert_close(merged, want)


def test_what_is_no_real_number_must_be_equal_and_stays(tmp_path):
    folders = [
        write_model(tmp_path / str(k), {"w": torch.ones(2), "mask": torch.tensor([True, k < 2])})
        for k in range(3)
    ]
    sources = check_compatible(folders)
    merged = dict(merge(sources, [0.5, 0.25, 0]))
    assert merged["mask"].tolist() == [True, True]
    assert merged["mask"].dtype == torch.bool
    with pytest.raises(PoolError, match=r"`mask` in `.*2/model.safetensors` differs .* BOOL"):
        dict(merge(sources, [0.5, 0.25, 0.25]))


@pytest.mark.parametrize(
    "row", [[1, 2], [0.5, 0.5, np.nan], [np.inf, 0, 0], [0, 0, 0], [[1, 0, 0]]], ids=str
)
def test_coefficients_are_one_finite_number_an_expert(adapters, row):
    sources = check_compatible(adapters)
    with pytest.raises(InputError, match="3 finite numbers"):
        merge(sources, row)


A = "a.lora_A.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"drop": A}, f"tensor `{A}` is missing"),
        ({"add": "b.lora_A.weight"}, "tensor `b.lora_A.weight` is one that the first"),
        ({"shapes": {A: (2, 9)}}, rf"tensor `{A}` is \[2, 9\] instead of \[2, 8\]"),
        ({"dtypes": {A: torch.int32}}, f"tensor `{A}` is of type I32 instead of F32"),
        ({"config": {"r": 3}}, "`r` in its config is 3 instead of 2"),
        ({"config": {"lora_alpha": 8}}, "`lora_alpha` in its config is 8 instead of 4"),
        ({"config": {"target_modules": ["q_proj"]}}, r"`target_modules` .* \[\"q_proj\"\] instead"),
        ({"config": {"base_model_name_or_path": "x/big"}}, "`base_model_name_or_path` .*big"),
        ({"config": {"use_rslora": True}}, "`use_rslora` in its config is true instead of null"),
    ],
    ids=str,
)
def test_names_what_keeps_experts_from_being_merged(adapters, tmp_path, change, message):
    tensors = randoms(3, shapes=SHAPES | change.get("shapes", {}))
    tensors.pop(change.get("drop"), None)
    for name, dtype in change.get("dtypes", {}).items():
        tensors[name] = tensors[name].to(dtype)
    if "add" in change:
        tensors[change["add"]] = torch.zeros(2)
    odd = write_adapter(tmp_path / "odd", tensors, **change.get("config", {}))
    with pytest.raises(PoolError, match=rf"expert 3 \(`.*odd`\) .* {message}"):
        check_compatible([*adapters[:2], odd])


def test_names_another_kind_and_what_is_no_expert(adapters, tmp_path):
    model = write_model(tmp_path / "model", randoms(0))
    with pytest.raises(PoolError, match=r"expert 2 .* kind `model` instead of `adapter`"):
        check_compatible([adapters[0], model])
    with pytest.raises(PoolError, match=r"expert 1: .*`.*gone` is not a folder"):
        check_compatible([tmp_path / "gone"])
    (adapters[1] / "adapter_model.safetensors").write_bytes(b"not weights at all")
    with pytest.raises(PoolError, match=r"adapter_model.safetensors` is not a readable"):
        check_compatible(adapters)
    with pytest.raises(PoolError, match="at least one"):
        check_compatible([])


def test_names_quantized_models_and_heads_that_differ(tmp_path):
    plain = write_model(tmp_path / "plain", randoms(0), num_attention_heads=4)
    codes = write_model(tmp_path / "codes", randoms(0), quantization_config={"bits": 4})
    heads = write_model(tmp_path / "heads", randoms(0), num_attention_heads=8)
    with pytest.raises(PoolError, match="quantization_config"):
        check_compatible([plain, codes])
    with pytest.raises(PoolError, match="`num_attention_heads` in its config is 8 instead of 4"):
        check_compatible([plain, heads])


def test_adapters_of_one_base_by_other_paths_and_in_another_order_fit(adapters, tmp_path):
    same = write_adapter(
        tmp_path / "same",
        randoms(4),
        base_model_name_or_path="../../elsewhere/tiny",
        target_modules=["v_proj", "q_proj"],
        use_dora=False,
        rank_pattern={},
    )
    assert len(check_compatible([*adapters, same])) == 4


def test_an_index_decides_which_files_are_the_model(tmp_path):
    folders = [write_model(tmp_path / str(k), randoms(k), files=2, index=True) for k in range(2)]
    # Some models come a second time, in their maker's own layout.
    save_file({"own.layout": torch.ones(3)}, folders[0] / "consolidated.safetensors")
    assert dict(merge(check_compatible(folders), [0.5, 0.5])).keys() == SHAPES.keys()
    (folders[1] / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(PoolError, match=r"00002-of-00002.safetensors` is not a readable"):
        check_compatible(folders)


def test_says_which_package_is_missing(adapters, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingPackageError, match=r"`torch`: pip install .*\[local\]"):
        check_compatible(adapters)


def test_exports_what_merge_gives_and_says_of_what(adapters, tmp_path):
    (adapters[1] / "chat_template.jinja").write_text("nearest")
    (adapters[1] / "optimizer.pt").write_bytes(b"large")
    (adapters[0] / "chat_template.jinja").write_text("first")
    row = [0.3, 0.9, -0.2]
    sources = check_compatible(adapters)
    out = tmp_path / "new" / "out"
    export(sources, row, out)
    assert listing(out) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "chat_template.jinja",
        "merged.toml",
    ]
    torch.testing.assert_close(
        load_file(out / "adapter_model.safetensors"), dict(merge(sources, row)), rtol=0, atol=0
    )
    assert (out / "chat_template.jinja").read_text() == "nearest"
    note = tomllib.loads((out / "merged.toml").read_text())
    assert [entry["coefficient"] for entry in note["sources"]] == row
    assert [Path(entry["folder"]).name for entry in note["sources"]] == [a.name for a in adapters]
    modes = {path.stat().st_mode for path in out.iterdir()}
    assert len(modes) == 1, "whoever may read the config may read the weights"
    assert len(check_compatible([*adapters, out])) == 4


@pytest.mark.parametrize(("files", "index"), [(1, False), (3, True), (3, False)])
def test_a_model_is_split_as_the_first_source_is(tmp_path, files, index):
    states = [randoms(k, torch.bfloat16) for k in range(2)]
    folders = [
        write_model(tmp_path / "first", states[0], files, index),
        write_model(tmp_path / "second", states[1]),
    ]
    sources = check_compatible(folders)
    export(sources, [0.5, 0.5], tmp_path / "out")
    weights = sorted(path.name for path in (tmp_path / "out").glob("*.safetensors"))
    assert weights == sorted(path.name for path in folders[0].glob("*.safetensors"))
    # Without an index nothing loads a model of several files.
    assert (tmp_path / "out" / "model.safetensors.index.json").exists() == (files > 1)
    out = check_compatible([tmp_path / "out"])
    for name, tensor in merge(out, [1.0]):
        want = (states[0][name].float() + states[1][name].float()) / 2
        assert bits(tensor) == bits(want.bfloat16())


@contextlib.contextmanager
def disk_full_after(size):
    """No file can grow beyond `size` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_nothing(tmp_path):
    large = {"small": torch.ones(10), "large": torch.ones(1_000_000)}
    folders = [write_model(tmp_path / str(k), large, files=2, index=True) for k in range(2)]
    sources = check_compatible(folders)
    out = tmp_path / "out"
    with (
        disk_full_after(1_000_000),
        pytest.raises(SwarmError, match=r"can't be written to `.*too large"),
    ):
        export(sources, [0.5, 0.5], out / "merged")
    assert listing(out) == []
    export(sources, [0.5, 0.5], out / "merged")
    assert listing(out) == ["merged"]


def test_stopping_midway_leaves_nothing(adapters, tmp_path, monkeypatch):
    def interrupt(*args, **kwargs):
        save_file(*args, **kwargs)
        raise KeyboardInterrupt

    monkeypatch.setattr("safetensors.torch.save_file", interrupt)
    with pytest.raises(KeyboardInterrupt):
        export(check_compatible(adapters), [1, 1, 1], tmp_path / "out" / "merged")
    assert listing(tmp_path / "out") == []


def test_export_overwrites_nothing(adapters):
    with pytest.raises(InputError, match="already there"):
        export(check_compatible(adapters), [1, 0, 0], adapters[0])


def tiny_llama(seed):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=40,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    return LlamaForCausalLM(config).eval()


def logits(model):
    with torch.inference_mode():
        return model(torch.arange(12).reshape(2, 6)).logits


ROW = [0.8, 0.6, -0.4]


def mixture(states):
    return {
        name: sum(c * state[name].float() for c, state in zip(ROW, states, strict=True))
        for name in states[0]
    }


def test_transformers_loads_a_merged_model(tmp_path):
    from transformers import AutoModelForCausalLM

    models = [tiny_llama(seed) for seed in range(3)]
    folders = [tmp_path / str(k) for k in range(3)]
    for model, folder in zip(models, folders, strict=True):
        model.save_pretrained(folder, max_shard_size="10KB")
    assert len(list(folders[0].glob("*.safetensors"))) > 1
    export(check_compatible(folders), ROW, tmp_path / "out")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    want = tiny_llama(9)
    want.load_state_dict(mixture([model.state_dict() for model in models]))
    torch.testing.assert_close(logits(loaded), logits(want))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_peft_loads_a_merged_adapter(tmp_path, dtype):
    from peft import LoraConfig, PeftModel, get_peft_model

    how = LoraConfig(
        r=4, lora_alpha=400, target_modules=["q_proj", "down_proj"], init_lora_weights=False
    )
    folders = [tmp_path / str(k) for k in range(3)]
    states = []
    for seed, folder in enumerate(folders):
        base = tiny_llama(0)
        torch.manual_seed(seed)
        get_peft_model(base, how).save_pretrained(folder)
        weights = folder / "adapter_model.safetensors"
        states.append({name: t.to(dtype) for name, t in load_file(weights).items()})
        save_file(states[-1], weights, metadata={"format": "pt"})
    export(check_compatible(folders), ROW, tmp_path / "out")
    loaded = PeftModel.from_pretrained(tiny_llama(0), tmp_path / "out").eval()
    merged = {name: t.to(dtype).float() for name, t in mixture(states).items()}
    want = get_peft_model(tiny_llama(0), how).eval()
    inside = {name.replace(".default.", "."): t for name, t in want.named_parameters()}
    for name, tensor in merged.items():
        inside[name].data.copy_(tensor)
    torch.testing.assert_close(logits(loaded), logits(want), rtol=0, atol=1e-3)
    assert not torch.allclose(logits(loaded), logits(tiny_llama(0)), atol=0.1)
