"""What a pool file with servers means: who is served by what, and with which command line."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

import swarm
from swarm.agents import standing
from swarm.agents.expert import Pool
from swarm.errors import ConfigError, PoolError
from swarm.serving.plan import plan

from .conftest import ZOO


def write(world, servers, experts='[[experts]]\nname = "a"\nadapter = "adapters/a"', more=""):
    world.file.write_text(f'[defaults]\nengine = "server"\n{more}\n{servers}\n{experts}\n')
    return world.file


def server(name="zoo", **keys):
    keys = {"model": "base", **keys}
    lines = [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
    return "\n".join(["[[servers]]", f'name = "{name}"', *lines, ""])


def launch(world, name="zoo", **keys):
    [found] = plan(write(world, server(name, **keys))).servers
    return found


def value(argv, flag):
    return argv[argv.index(flag) + 1]


class TestExperts:
    def test_an_adapter_and_the_base(self, world):
        both = '[[experts]]\nname = "a"\nadapter = "adapters/a"\n[[experts]]\nname = "plain"'
        pool = Pool.load(write(world, server(port=8123), both))
        assert [expert.model for expert in pool.values()] == ["openai/a", "openai/zoo"]
        for expert in pool.values():
            assert expert.adapter is None
            assert expert.options["url"] == "http://127.0.0.1:8123/v1"
        assert pool["a"].options["served"]["adapter"] == str(world.folder / "adapters/a")

    def test_what_an_expert_says_itself_counts(self, world):
        experts = '[[experts]]\nname = "a"\noptions = { deadline = 5, concurrency = 2 }'
        options = Pool.load(write(world, server(), experts))["a"].options
        assert (options["deadline"], options["concurrency"]) == (5, 2)

    def test_others_are_left_alone(self, world):
        experts = """
[[experts]]
name = "elsewhere"
model = "openai/big"
options = { url = "http://example.com/v1" }
[[experts]]
name = "hosted"
model = "openai/gpt-4o-mini"
[[experts]]
name = "here"
engine = "transformers"
model = "base"
[[experts]]
name = "served"
"""
        pool = Pool.load(write(world, server(), experts))
        assert [name for name in pool if "served" in pool[name].options] == ["served"]

    def test_two_servers_must_be_told_apart(self, world):
        servers = server("one") + server("two")
        experts = '[[experts]]\nname = "a"\noptions = { server = "two" }'
        assert Pool.load(write(world, servers, experts))["a"].model == "openai/two"
        with pytest.raises(ConfigError, match="key `model`: missing"):
            Pool.load(write(world, servers, '[[experts]]\nname = "a"'))
        with pytest.raises(ConfigError, match=r"no server `tow` \(did you mean `two`\?\)"):
            Pool.load(write(world, servers, experts.replace("two", "tow")))

    def test_a_name_for_each_adapter(self, world):
        other = world.folder / "more/a"
        other.mkdir(parents=True)
        for part in (world.folder / "adapters/a").iterdir():
            (other / part.name).write_bytes(part.read_bytes())
        experts = "\n".join(
            f'[[experts]]\nname = "{name}"\nadapter = "{folder}"'
            for name, folder in [("x", "adapters/a"), ("y", "more/a"), ("z", "adapters/a")]
        )
        pool = Pool.load(write(world, server(), experts))
        assert [expert.model for expert in pool.values()] == ["openai/a", "openai/a-2", "openai/a"]
        [found] = plan(world.file).servers
        assert list(found.adapters) == ["a", "a-2"]

    @pytest.mark.parametrize(
        ("servers", "experts", "said"),
        [
            (server(model="gone"), "", "`zoo`: key `model`: .*gone` is not a folder"),
            (server(model="adapters/a"), "", "holds no config.json"),
            (server(), 'adapter = "adapters/gone"', "`a`: key `adapter`: .*gone` is not a folder"),
            (server(), 'adapter = "base"', "holds no adapter_config.json"),
            (server(), 'options = { server = "other" }', "there is no server `other`"),
            ("", 'model = "m"\noptions = { server = "x" }', r"add a `\[\[servers\]\]` table"),
            (
                server(),
                'model = "big"\noptions = { server = "zoo" }',
                "`big` is not the base of server `zoo`",
            ),
            (server() + server(), "", "two of this name"),
            (server("a", port=81) + server("b", port=81), "", "81 is that of server `a`"),
            (server(memory=1.5), "", "share above 0 and up to 1"),
            (server(memory="much"), "", 'size such as "20GiB"'),
            (server(port=99999), "", "`port`: `99999` must"),
            (server(args=["--port", "1"]), "", "`--port` can't be given here: give `port`"),
            (server(args=["--api_key=secret"]), "", "set VLLM_API_KEY where it runs"),
            (server(device=0), "", r"`device`: unknown \(did you mean `devices`\?\)"),
            (server("a b"), "", "`name`: `'a b'`"),
            (server(python="p", command=["c"]), "", "a `python` and a `command`"),
            (server(command=["x", "{port}"], args=["-y"]), "", "put them into `command`"),
            (
                server(command=["x", "{port}"]),
                'adapter = "adapters/a"',
                "can't be told of adapters",
            ),
        ],
    )
    def test_what_is_wrong_is_said_in_one_line(self, world, servers, experts, said):
        with pytest.raises((ConfigError, PoolError), match=said) as error:
            Pool.load(write(world, servers, f'[[experts]]\nname = "a"\n{experts}'))
        assert "\n" not in str(error.value)
        assert "pool.toml" in str(error.value)
        assert "secret" not in str(error.value)

    def test_weights_of_another_base(self, world):
        config = json.loads((ZOO / "base/config.json").read_text())
        small = world.folder / "small"
        small.mkdir()
        (small / "config.json").write_text(json.dumps(config))
        header = json.dumps(
            {
                "model.layers.0.self_attn.q_proj.weight": {
                    "dtype": "F32",
                    "shape": [2, 2],
                    "data_offsets": [0, 16],
                }
            }
        ).encode()
        content = len(header).to_bytes(8, "little") + header + bytes(16)
        (small / "model.safetensors").write_bytes(content)
        with pytest.raises(PoolError, match="was made for another base"):
            Pool.load(write(world, server(model="small")))


class TestFingerprint:
    def of(self, world, **keys):
        return Pool.load(write(world, server(**keys)))["a"].fingerprint

    def test_not_by_where_or_how_it_is_reached(self, world):
        first = self.of(world, port=8001)
        assert self.of(world, port=8002) == first
        assert self.of(world, port=8002, memory=0.5, devices=[1]) == first
        assert self.of(world, name="other") == first

    def test_by_weights_and_flags(self, world):
        found = {self.of(world), self.of(world, args=["--dtype", "float16"])}
        for part in ("adapters/a/adapter_config.json", "base/config.json"):
            path = world.folder / part
            path.write_text(path.read_text() + "\n")
            found.add(self.of(world))
        assert len(found) == 4

    def test_exported_pools_are_served_by_the_same_server(self, world):
        pool = Pool.load(write(world, server()))
        swarm.chain("a", pool=pool).export(world.folder / "out")
        again = Pool.load(world.folder / "out/pool.toml")
        assert again["a"] == pool["a"]
        assert again["a"].fingerprint == pool["a"].fingerprint


def test_the_servers_of_the_readme(world):
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    [text] = re.findall(r"```toml\n(\[\[servers\]\].*?)```", readme, re.DOTALL)
    for there, named in (("base", "models/qwen"), ("adapters/a", "adapters/critic")):
        (world.folder / named).parent.mkdir(exist_ok=True)
        (world.folder / named).symlink_to(world.folder / there)
    world.file.write_text(text)
    [found] = plan(world.file).servers
    assert list(found.adapters) == ["a"]
    assert found.argv[0] == str(world.folder / "vllm-env/bin/python")
    assert value(found.argv, "--gpu-memory-utilization") == "0.6"


class TestCommand:
    def test_vllm(self, world):
        found = launch(world, port=8123, args=["--max-model-len", "256"])
        base = str(world.folder / "base")
        assert found.argv[0] == sys.executable
        assert found.argv[1:5] == ("-m", "vllm.entrypoints.openai.api_server", "--model", base)
        assert value(found.argv, "--host") == "127.0.0.1"
        assert value(found.argv, "--port") == "8123"
        assert value(found.argv, "--served-model-name") == "zoo"
        assert value(found.argv, "--max-lora-rank") == "32"
        assert value(found.argv, "--max-loras") == "1"
        assert json.loads(value(found.argv, "--lora-modules")) == {
            "name": "a",
            "path": str(world.folder / "adapters/a"),
            "base_model_name": "zoo",
        }
        assert found.argv[-2:] == ("--max-model-len", "256")
        assert "--gpu-memory-utilization" not in found.argv

    def test_the_highest_rank_of_any_layer(self, world):
        path = world.folder / "adapters/a/adapter_config.json"
        config = {**json.loads(path.read_text()), "rank_pattern": {"q_proj": 33}}
        path.write_text(json.dumps(config))
        assert value(launch(world).argv, "--max-lora-rank") == "64"
        assert value(launch(world, args=["--max-lora-rank=128"]).argv, "--max-loras") == "1"
        assert "--max-lora-rank" not in launch(world, args=["--max-lora-rank=128"]).argv
        path.write_text(json.dumps({**config, "r": 1000}))
        with pytest.raises(PoolError, match="rank 1000: vLLM takes 512 at most"):
            launch(world)

    def test_devices_and_memory(self, world):
        found = launch(world, devices=[2, 3], memory=0.4)
        assert found.env == {"CUDA_VISIBLE_DEVICES": "2,3"}
        assert value(found.argv, "--tensor-parallel-size") == "2"
        assert value(found.argv, "--gpu-memory-utilization") == "0.4"
        sized = launch(world, memory="20GiB", devices=1)
        assert value(sized.argv, "--kv-cache-memory-bytes") == str(20 * 2**30)
        assert "--gpu-memory-utilization" not in sized.argv

    def test_servers_of_a_device_share_it(self, world):
        experts = '[[experts]]\nname = "x"\nmodel = "y/z"\noptions = { server = "a" }'

        def shares(*servers):
            launches = plan(write(world, "".join(servers), experts.replace("y/z", "base"))).servers
            return [
                float(value(found.argv, "--gpu-memory-utilization"))
                if "--gpu-memory-utilization" in found.argv
                else None
                for found in launches
            ]

        assert shares(server("a"), server("b"), server("c")) == [0.3, 0.3, 0.3]
        assert shares(server("a", memory=0.5), server("b")) == [0.5, 0.4]
        assert shares(server("a", devices=[0]), server("b", devices=[1])) == [None, None]
        own = [server("a", memory=0.6), server("b", memory=0.5)]
        with pytest.raises(ConfigError, match=r"`a`, `b` want 1\.1 of device default"):
            shares(*own)
        assert shares(server("a", memory=0.6, devices=[0]), server("b", memory=0.5, devices=1))

    def test_another_interpreter_beside_the_file(self, world):
        assert launch(world, python="venv/bin/python").argv[0] == str(
            world.folder / "venv/bin/python"
        )

    def test_another_server(self, world):
        experts = '[[experts]]\nname = "a"'
        table = server(
            "lc", model="qwen.gguf", command=["llama-server", "-m", "{model}", "--port", "{port}"]
        )
        [found] = plan(write(world, table, experts)).servers
        port = str(standing.port_of(world.file, "lc"))
        assert found.argv == ("llama-server", "-m", "qwen.gguf", "--port", port)
        assert not found.lists_models
        assert Pool.load(world.file)["a"].model == "openai/lc"

    def test_nothing_to_start(self, world):
        with pytest.raises(ConfigError, match=r"has no `\[\[servers\]\]`"):
            plan(write(world, "", '[[experts]]\nname = "a"\nmodel = "openai/x"'))
