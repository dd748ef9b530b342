"""Whatever is wrong with a settings file becomes one line: file, key, value, rule and remedy."""

from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field, ValidationError, field_validator

from swarm.errors import ConfigError
from swarm.settings_file import Settings, read_settings, settings_error


class Sampling(Settings):
    temperature: float = Field(default=0.0, ge=0, le=2)


class Expert(Settings):
    name: str
    engine: Literal["http", "local"] = "http"
    sampling: Sampling = Sampling()


class Named(Settings):
    name: str
    tolerance: float = 0.0


class PoolFile(Settings):
    title: str = ""
    experts: tuple[Expert, ...] = ()
    prices: dict[str, Sampling] = Field(default_factory=dict)
    by_name: dict[str, str | Named] | None = None
    scorer: str | Named = "exact"
    paths: tuple[Path, ...] = ()

    @field_validator("title")
    @classmethod
    def _short(cls, title: str) -> str:
        if len(title) > 8:
            raise ValueError("a title has at most 8 letters")
        return title


def problem(tmp_path: Path, text: str) -> str:
    """What is said about a file with this text, without the file's name."""
    path = tmp_path / "pool.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_settings(path, PoolFile)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"`{path}`: ")
    return message.removeprefix(f"`{path}`: ")


def test_a_good_file_is_read(tmp_path):
    path = tmp_path / "pool.toml"
    path.write_text(
        'scorer = { name = "f1" }\n[[experts]]\nname = "a"\n[prices.a]\ntemperature = 1'
    )
    settings = read_settings(path, PoolFile)
    assert settings.experts == (Expert(name="a"),)
    assert settings.scorer == Named(name="f1")
    assert settings.prices["a"].temperature == 1.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("expert = []", "key `expert`: unknown (did you mean `experts`?)"),
        (
            "zzz = 1",
            "key `zzz`: unknown; known: `by_name`, `experts`, `paths`, `prices`, `scorer`, `title`",
        ),
        (
            '[[experts]]\nname = "a"\n[[experts]]\nnam = "b"',
            "key `experts[1].nam`: unknown (did you mean `name`?) (and 1 more problem)",
        ),
        (
            '[[experts]]\nname = "a"\nsampling = { temprature = 1 }',
            "key `experts[0].sampling.temprature`: unknown (did you mean `temperature`?)",
        ),
        (
            "[prices.cheap]\ntemprature = 1",
            "key `prices.cheap.temprature`: unknown (did you mean `temperature`?)",
        ),
        (
            '[scorer]\nname = "f1"\ntolerence = 1',
            "key `scorer.tolerence`: unknown (did you mean `tolerance`?)",
        ),
        (
            "[by_name]\na = { name = 'f1', tolerance = 'x' }",
            "key `by_name.a.tolerance`: `'x'` must be a valid number",
        ),
        ("by_name = { a = 3 }", "key `by_name.a`: `3` must be a valid string"),
        ("scorer = 3", "key `scorer`: `3` must be a valid string"),
        (
            "[prices.cheap]\ntemperature = 3",
            "key `prices.cheap.temperature`: `3` must be less than or equal to 2",
        ),
        ("[[experts]]", "key `experts[0].name`: missing: add `name = …`"),
        ("title = 3", "key `title`: `3` must be a valid string"),
        ('paths = ["a", 3]', "key `paths[1]`: `3` must be a valid path"),
        (
            'title = "much too long"',
            "key `title`: `'much too long'`: a title has at most 8 letters",
        ),
        (
            '[[experts]]\nname = "a"\nengine = "locl"',
            "key `experts[0].engine`: `'locl'` must be 'http' or 'local' (did you mean `local`?)",
        ),
        (
            "title = 1\nscorer = 2",
            "key `title`: `1` must be a valid string (and 1 more problem)",
        ),
        (
            'title = "a"\nscorer "exact"',
            "line 2, column 8: not valid TOML: Expected '=' after a key in a key/value pair",
        ),
        ('title = "a', "end of document: not valid TOML: Unterminated string"),
        ("a = " + "[" * 5000, "not valid TOML: nested too deeply"),
    ],
)
def test_problems_name_key_value_rule_and_remedy(tmp_path, text, message):
    assert problem(tmp_path, text) == message


def test_long_values_are_cut(tmp_path):
    assert len(problem(tmp_path, f"title = {list(range(1000))}")) < 120


def test_a_missing_file_suggests_its_neighbour(tmp_path):
    (tmp_path / "pool.toml").write_text("")
    with pytest.raises(ConfigError, match=r"no such file \(did you mean `pool.toml`\?\)"):
        read_settings(tmp_path / "pol.toml", PoolFile)
    with pytest.raises(ConfigError, match=r"no such file$"):
        read_settings(tmp_path / "nowhere" / "pool.toml", PoolFile)


def test_what_is_no_text_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="can't be read: Is a directory"):
        read_settings(tmp_path, PoolFile)
    (tmp_path / "pool.toml").write_bytes(b'title = "\xff"')
    with pytest.raises(ConfigError, match="byte 9 is not UTF-8"):
        read_settings(tmp_path / "pool.toml", PoolFile)


def test_data_that_is_not_from_a_file_is_named_by_its_source():
    with pytest.raises(ValidationError) as caught:
        PoolFile.model_validate({"titel": "x"})
    assert str(settings_error("--set", caught.value, PoolFile)) == (
        "`--set`: key `titel`: unknown (did you mean `title`?)"
    )
