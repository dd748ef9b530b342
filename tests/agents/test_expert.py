"""Experts and pools: what is read from files, what is refused, and what makes an expert another."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from pathlib import Path

import pytest

from swarm.agents.expert import Expert, Pool, Price, Sampling
from swarm.agents.messages import Message, Usage
from swarm.agents.role import Role
from swarm.errors import ConfigError, PoolError


def write_tensors(path, shapes):
    """A safetensors file of zeros, by hand: the checks need no torch, nor do these."""
    header, at = {}, 0
    for name, shape in shapes.items():
        size = 4
        for side in shape:
            size *= side
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    head = json.dumps(header).encode()
    path.write_bytes(len(head).to_bytes(8, "little") + head + bytes(at))


def write_base(folder, width=8, prefix="model.", **config):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"} | config))
    write_tensors(
        folder / "model.safetensors",
        {f"{prefix}layers.0.q_proj.weight": (width, width), "model.embed.weight": (4, width)},
    )


def write_adapter(folder, width=8, layer=0, target="q_proj", prefix="model.", **config):
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"} | config))
    name = f"base_model.model.{prefix}layers.{layer}.{target}"
    write_tensors(
        folder / "adapter_model.safetensors",
        {f"{name}.lora_A.weight": (2, width), f"{name}.lora_B.weight": (width, 2)},
    )


POOL = """
name = "mine"

[defaults]
model = "base"
prompt = "compact"
price = { input = 1 }

[defaults.sampling]
max_tokens = 24
seed = 3

[[experts]]
name = "plain"

[[experts]]
name = "tuned"
adapter = "adapters/tuned"
description = "knows more"
prompt = "chat"
sampling = { max_tokens = 7, stop = ["."] }
options = { anything = 1 }

[[experts]]
name = "table"
engine = "scripted"
model = "table.json"

[[experts]]
name = "python"
engine = "scripted"
model = "scripts.py:shout"

[[roles]]
name = "parrot"
instructions = "Repeat."
"""


@pytest.fixture
def folder(tmp_path):
    write_base(tmp_path / "base")
    (tmp_path / "adapters").mkdir()
    write_adapter(tmp_path / "adapters" / "tuned")
    (tmp_path / "table.json").write_text('{"2 + 2": 4, "naïve": "ja"}', encoding="utf-8")
    (tmp_path / "scripts.py").write_text("def shout(messages): return messages[-1][1].upper()")
    (tmp_path / "pool.toml").write_text(POOL)
    return tmp_path


def load(folder, *changes):
    text = POOL
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (folder / "pool.toml").write_text(text)
    return Pool.load(folder / "pool.toml")


def test_a_pool_is_read_with_defaults_and_paths_of_its_own(folder, monkeypatch):
    monkeypatch.chdir("/")
    pool = Pool.load(folder / "pool.toml")
    assert list(pool) == ["plain", "tuned", "table", "python"]
    assert pool.name == "mine"
    plain, tuned, table, python = pool.values()
    assert plain.model == tuned.model == str(folder / "base")
    assert plain.base == tuned.base == f"transformers:{folder / 'base'}"
    assert (plain.adapter, tuned.adapter) == (None, str(folder / "adapters" / "tuned"))
    assert (plain.prompt, tuned.prompt) == ("compact", "chat")
    assert plain.sampling == Sampling(max_tokens=24, seed=3)
    assert tuned.sampling == Sampling(max_tokens=7, seed=3, stop=(".",))
    assert tuned.price == Price(input=1)
    assert tuned.options == {"anything": 1}
    assert table.script([Message("user", "2 + 2")]) == "4"
    assert table.script([Message("user", "naïve")]) == "ja"
    assert python.script([Message("user", "x")]) == "X"
    assert pool.roles == {"parrot": Role(name="parrot", instructions="Repeat.")}


def test_a_hubs_name_is_kept(folder):
    pool = load(folder, ('model = "base"', 'model = "org/model-1.5B"'), ('adapter = "', '# "'))
    assert pool["plain"].model == "org/model-1.5B"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (('name = "plain"', 'nmae = "plain"'), ["expert 1", "`nmae`", "did you mean `name`"]),
        (('name = "plain"', ""), ["expert 1", "`name`", "missing"]),
        (("max_tokens = 7", "max_tokens = 0"), ["expert 2 (tuned)", "`sampling.max_tokens`", "1"]),
        (
            ("max_tokens = 7", "max_tokns = 7"),
            ["`sampling.max_tokns`", "did you mean `max_tokens`"],
        ),
        (('prompt = "chat"', 'prompt = "chatt"'), ["`prompt`", "did you mean `chat`"]),
        (("sampling = { max_tokens = 7", 'sampling = "x" # {'), ["expert 2", "`sampling`"]),
        (("[defaults.sampling]", "[defauts.sampling]"), ["`defauts`", "did you mean `defaults`"]),
        (("input = 1", "input = -1"), ["`price.input`", "-1"]),
        (("table.json", "tabel.json"), ["`tabel.json`", "there is no file", "`table`"]),
        (("table.json", "pool.toml"), ["is not JSON"]),
        (("table.json", "table.json:f"), ["is no Python file"]),
        (("scripts.py:shout", "scripts.py:shut"), ["has no function `shut`"]),
        (('name = "mine"', 'name = mine"'), ["line 2", "not valid TOML"]),
        (('instructions = "R', 'instruction = "R'), ["`roles[0].instruction`"]),
    ],
    ids=str,
)
def test_what_is_wrong_in_a_file_is_named_with_file_and_key(folder, change, told):
    with pytest.raises(ConfigError) as error:
        load(folder, change)
    said = str(error.value)
    assert "\n" not in said
    for part in ["pool.toml", *told]:
        assert part in said


def test_a_table_must_be_one(folder):
    (folder / "table.json").write_text("[1]")
    with pytest.raises(ConfigError, match="must hold an object"):
        load(folder)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (('name = "plain"', 'name = "tuned"'), ["two experts are called `tuned`", "rename one"]),
        (('engine = "scripted"\nmodel = "table.json"', 'engine = "transfomers"'),
         ["`table`", "`engine`", "did you mean `transformers`?", "`scripted`"]),
        (('model = "base"', 'model = "bass"'), ["`plain`", "`model`", "bass", "is not a folder"]),
        (('model = "base"', 'model = "./org/name"'), ["`model`", "org/name", "is not a folder"]),
        (('model = "base"', 'model = "adapters"'), ["holds no config.json"]),
        (('"adapters/tuned"', '"adapters/tund"'), ["`tuned`", "`adapter`", "is not a folder"]),
        (('"adapters/tuned"', '"base"'), ["`adapter`", "holds no adapter_config.json"]),
        (("[[roles]]", '[[roles]]\nname = "parrot"\n[[roles]]'), ["two roles", "`parrot`"]),
    ],
    ids=str,
)  # fmt: skip
def test_pools_that_cannot_be_are_refused(folder, change, told):
    with pytest.raises(PoolError) as error:
        load(folder, change)
    for part in ["pool.toml", *told]:
        assert part in str(error.value)


def test_an_empty_pool_and_a_file_that_is_not_there(folder):
    (folder / "pool.toml").write_text("experts = []")
    with pytest.raises(PoolError, match="has no experts"):
        Pool.load(folder / "pool.toml")
    with pytest.raises(ConfigError, match=r"no such file \(did you mean `pool.toml`\?\)"):
        Pool.load(folder / "pol.toml")
    with pytest.raises(PoolError, match="has no experts"):
        Pool([])


def spoil(folder, what):
    base, adapter = folder / "base", folder / "adapters" / "tuned"
    weights = base / "model.safetensors"
    match what:
        case "no weights":
            weights.unlink()
        case "pickles":
            weights.unlink()
            (base / "pytorch_model.bin").write_bytes(b"pickle")
        case "adapter pickles":
            (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
        case "config":
            (base / "config.json").write_text("{")
        case "lfs":
            weights.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
        case "cut":
            weights.write_bytes(weights.read_bytes()[:-1])
        case "cut header":
            weights.write_bytes(weights.read_bytes()[:50])
        case "no shapes":
            head = b'{"x": {"data_offsets": [0, 0]}}'
            weights.write_bytes(len(head).to_bytes(8, "little") + head)
        case "no object":
            weights.write_bytes((2).to_bytes(8, "little") + b"[]")
        case "kind":
            (adapter / "adapter_config.json").write_text('{"peft_type": "IA3"}')


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("no weights", "holds no weights: needs *.safetensors"),
        ("pickles", "(`pytorch_model.bin` is a pickle: convert it)"),
        ("adapter pickles", "holds no adapter_model.safetensors"),
        ("config", "is not readable JSON"),
        ("lfs", "is not a readable safetensors file"),
        ("cut", "it is cut off"),
        ("cut header", "is not a readable safetensors file"),
        ("no shapes", "is not a readable safetensors file"),
        ("no object", "is not a readable safetensors file"),
        ("kind", "is of type `IA3`"),
    ],
)
def test_weights_that_are_missing_or_damaged_are_refused(folder, what, told):
    spoil(folder, what)
    with pytest.raises(PoolError) as error:
        Pool.load(folder / "pool.toml")
    assert told in str(error.value)


@pytest.mark.parametrize("change", [{"width": 16}, {"layer": 3}, {"target": "other"}], ids=str)
def test_an_adapter_for_another_base_is_refused(folder, change):
    write_adapter(folder / "other", **change)
    with pytest.raises(PoolError, match="was made for another base than"):
        load(folder, ('"adapters/tuned"', '"other"'))


@pytest.mark.parametrize(
    ("base", "adapter"),
    [
        ({"prefix": ""}, {"prefix": "body."}),  # saved without the name of the body
        ({"quantization_config": {"bits": 4}}, {"width": 16}),  # packed
        ({"tie_word_embeddings": True}, {"prefix": "", "target": "lm_head"}),
    ],
    ids=str,
)
def test_an_adapter_that_may_fit_is_not_refused(folder, base, adapter):
    write_base(folder / "another", **base)
    write_adapter(folder / "its", **adapter)
    if "target" in adapter:
        write_tensors(
            folder / "its" / "adapter_model.safetensors",
            {"base_model.model.lm_head.lora_A.weight": (2, 8)},
        )
    pool = load(folder, ('model = "base"', 'model = "another"'), ('"adapters/tuned"', '"its"'))
    assert pool["tuned"].adapter == str(folder / "its")


def test_asking_a_pool_for_who_is_not_there(folder):
    pool = Pool.load(folder / "pool.toml")
    with pytest.raises(PoolError, match=r"`plan` is not in pool `mine` \(did you mean `plain`\?\)"):
        pool["plan"]
    assert "plan" not in pool
    assert list(pool.subset("table", "plain")) == ["table", "plain"]
    assert pool.subset("plain").roles == pool.roles
    with pytest.raises(PoolError, match="has no experts"):
        pool.subset()


BASE = Expert(name="x", model="m", sampling=Sampling(temperature=1))


@pytest.mark.parametrize(
    "change",
    [
        {"model": "n"},
        {"adapter": "a"},
        {"engine": "scripted"},
        {"options": {"dtype": "float16"}},
        {"sampling": Sampling()},
        {"sampling": Sampling(temperature=1, seed=1)},
        {"sampling": Sampling(temperature=1, top_p=0.9)},
        {"sampling": Sampling(temperature=1, max_tokens=1)},
        {"sampling": Sampling(temperature=1, stop=(".",))},
    ],
    ids=str,
)
def test_whatever_decides_an_answer_makes_another_expert(change):
    assert BASE.fingerprint != BASE.model_copy(update=change).fingerprint
    assert BASE.model_copy(update=change).base == f"{change.get('engine', 'transformers')}:" + (
        change.get("model", "m")
    )


@pytest.mark.parametrize(
    "change",
    [{"name": "y"}, {"price": Price(input=1)}, {"description": "d"}, {"prompt": "compact"}, {}],
    ids=str,
)
def test_what_decides_no_answer_does_not(change):
    assert BASE.fingerprint == BASE.model_copy(update=change).fingerprint


def test_a_copy_is_checked(folder):
    with pytest.raises(ValueError, match="engin"):
        BASE.model_copy(update={"engin": "x"})
    scripted = Expert.scripted("s", {"a": "b"})
    assert scripted.model_copy(update={"name": "t"}).script is scripted.script


@pytest.mark.parametrize("path", ["base/model.safetensors", "base/config.json", "base/x.jinja",
                                  "adapters/tuned/adapter_model.safetensors",
                                  "adapters/tuned/adapter_config.json"])  # fmt: skip
def test_weights_and_configuration_are_part_of_the_fingerprint(folder, path):
    tuned = Pool.load(folder / "pool.toml")["tuned"]
    before = tuned.fingerprint
    file = folder / path
    file.write_bytes((file.read_bytes()[:-1] if file.exists() else b"") + b" ")
    after = tuned.model_copy().fingerprint
    assert before != after
    (folder / "base" / "README.md").write_text("hello")
    assert tuned.model_copy().fingerprint == after


def test_the_place_of_weights_is_not(folder, tmp_path_factory):
    moved = tmp_path_factory.mktemp("elsewhere") / "zoo"
    before = Pool.load(folder / "pool.toml").fingerprint
    folder.rename(moved)
    after = Pool.load(moved / "pool.toml")
    assert before == after.fingerprint
    assert after.subset("tuned", "plain").fingerprint != after.subset("plain", "tuned").fingerprint


def make(k, function=None, default=0):
    def inner(messages, default=default):
        words = {"a", "b", "c", "d", "e"}
        return [k for word in messages if word in words] and (function or (lambda m: m))(k)

    return inner


def recursive(k):
    def even(n):
        return n == 0 or odd(n - 1)

    def odd(n):
        return n != 0 and even(n - 1)

    return lambda messages: str(even(k))


SCRIPTS = {
    "closure 1": make(1),
    "closure 2": make(2),
    "closure over a function": make(1, str),
    "default": make(1, default=1),
    "partial": functools.partial(make(1), default=2),
    "partial of more": functools.partial(make(1), default=3),
    "recursive": recursive(1),
    "recursive 2": recursive(2),
    "table": {"a": "b"},
    "another table": {"a": "c"},
    "in another order": {"c": "d", "a": "b"},
}


def test_scripts_are_told_apart_by_what_they_do():
    prints = {name: Expert.scripted("x", script).fingerprint for name, script in SCRIPTS.items()}
    assert len(set(prints.values())) == len(SCRIPTS)
    assert prints["closure 1"] == Expert.scripted("x", make(1)).fingerprint


def test_scripts_are_the_same_in_every_process():
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from test_expert import SCRIPTS, Expert\n"
        "for name, script in SCRIPTS.items():\n"
        "    print(Expert.scripted('x', script).fingerprint.hex())"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed},
        ).stdout
        for seed in "12"
    ]
    assert runs[0] == runs[1]
    assert len(set(runs[0].split())) == len(SCRIPTS)


def test_prices():
    assert Price(input=2, output=10).of(Usage(1_000_000, 500_000)) == 7
    assert Price().of(Usage(10, 10)) == 0
