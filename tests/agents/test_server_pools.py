"""What a pool may say of servers and hosted models, and what is made of it before one is asked."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from engine_contract import greedy

import swarm
from swarm.agents.engines.endpoint import ServerOptions
from swarm.agents.engines.server import ServerEngine
from swarm.agents.expert import Expert, Pool, Price
from swarm.app.doctor import diagnose
from swarm.errors import ConfigError, PoolError

KEY = "sk-very-secret-0123456789"


def expert_at(url, **options):
    return Expert(
        name="e",
        engine="server",
        model="openai/tiny",
        sampling=greedy(),
        options={"url": url, **options},
    )


def test_who_speaks_to_which_endpoint():
    def direct(model, **options):
        return ServerOptions(**options).is_direct(model)

    url = "http://localhost:8000/v1"
    assert direct("openai/x", url=url)
    assert direct("hosted_vllm/meta-llama/x", url=url)
    assert not direct("openai/x")
    assert not direct("ollama/x", url=url)
    assert not direct("openai/x", url=url, client="litellm")
    assert direct("any/x", url=url, client="direct")
    with pytest.raises(ConfigError, match=r"`direct` needs an `options.url`"):
        Pool([Expert(name="e", engine="server", model="x", options={"client": "direct"})])


class TestPools:
    @pytest.mark.parametrize(
        ("line", "told"),
        [
            ("concurency = 4", "`options.concurency`: unknown (did you mean `concurrency`?)"),
            ("concurrency = 0", "`options.concurrency`: `0` must be greater than or equal to 1"),
            ("timeout = 'long'", "`options.timeout`: `'long'` must be a valid number"),
            ("url = 'localhost:8000'", "as in `http://localhost:8000/v1`"),
            ("deadline = -1", "`options.deadline`: `-1` must be greater than 0"),
        ],
    )
    def test_wrong_options_are_said_when_it_is_loaded(self, tmp_path, line, told):
        file = tmp_path / "pool.toml"
        file.write_text(
            f"[[experts]]\nname = 'a'\nengine = 'server'\nmodel = 'openai/x'\n"
            f"[experts.options]\n{line}\n"
        )
        with pytest.raises(ConfigError) as error:
            Pool.load(file)
        assert told in str(error.value)
        assert str(file) in str(error.value)
        assert "`a`" in str(error.value).replace("expert a`", "`a`")

    def test_a_models_name_is_no_path(self, tmp_path):
        (tmp_path / "openai").mkdir()
        file = tmp_path / "pool.toml"
        names = ["openai/x", "gpt-4o", "openrouter/meta-llama/llama-3-70b"]
        file.write_text(
            "\n".join(
                f"[[experts]]\nname = '{name}'\nengine = 'server'\nmodel = '{name}'"
                for name in names
            )
        )
        assert [expert.model for expert in Pool.load(file).values()] == names

    def test_a_hosted_model_has_its_list_price_unless_one_is_given(self):
        def price(**settings):
            expert = Expert(name="e", engine="server", **{"model": "openai/gpt-4o", **settings})
            return Pool([expert])["e"].price

        assert price() == price(model="gpt-4o") == swarm.Price(input=2.5, output=10)
        assert price(price=swarm.Price(input=1)) == swarm.Price(input=1)
        assert price(model="openai/no-such-model") == swarm.Price()
        assert price(model="anthropic/gpt-4o") == swarm.Price()
        assert price(options={"url": "http://localhost:8000/v1"}) == swarm.Price()

    def test_it_takes_no_adapter(self):
        with pytest.raises(PoolError, match="give that as `model`"):
            Pool([Expert(name="e", engine="server", model="openai/x", adapter="folder")])

    def test_how_it_is_asked_changes_no_fingerprint_and_where_does(self):
        plain = expert_at("http://localhost:1/v1")
        limits = {"key": "K", "concurrency": 2, "requests_per_minute": 3, "timeout": 4}
        assert expert_at("http://localhost:1/v1", **limits).fingerprint == plain.fingerprint
        assert expert_at("http://localhost:2/v1").fingerprint != plain.fingerprint

    def test_a_folder_that_is_called_as_a_model_changes_no_fingerprint(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        before = expert_at("http://localhost:1/v1").fingerprint
        (tmp_path / "openai" / "tiny").mkdir(parents=True)
        assert expert_at("http://localhost:1/v1").fingerprint == before

    @pytest.mark.parametrize(
        "options",
        [
            {"key": KEY},
            {"key": KEY.upper()},
            {"api_key": KEY},
            {"url": f"http://user:{KEY}@localhost/v1"},
            {"url": f"http://localhost/v1?key={KEY}"},
        ],
    )
    def test_a_key_that_is_written_into_it_is_refused_and_not_repeated(self, options):
        with pytest.raises(ConfigError) as error:
            Pool([Expert(name="e", engine="server", model="openai/x", options=options)])
        assert KEY not in str(error.value)
        assert KEY.upper() not in str(error.value)
        assert "key `options." in str(error.value)


def test_the_doctor_lists_it():
    [found] = [each for each in diagnose("sqlite://").engines if each.name == "server"]
    assert found.works
    assert "LiteLLM" in found.detail


def test_the_pool_of_the_readme():
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    [text] = re.findall(r"## Your own pool\n+```toml\n(.*?)```", readme, re.DOTALL)
    [hosted] = [e for e in tomllib.loads(text)["experts"] if e.get("engine") == "server"]
    ServerEngine.check(Expert.model_validate(hosted), "the README")


def test_a_hosted_model_of_a_pool_file_costs_its_list_price(tmp_path):
    (tmp_path / "pool.toml").write_text(
        '[defaults]\nengine = "server"\nmodel = "openai/gpt-4o-mini"\n'
        '[[experts]]\nname = "listed"\n'
        '[[experts]]\nname = "said"\nprice = { input = 7.0 }\n'
    )
    pool = Pool.load(tmp_path / "pool.toml")
    assert pool["listed"].price == Price(input=0.15, output=0.6)
    assert pool["said"].price == Price(input=7.0)
