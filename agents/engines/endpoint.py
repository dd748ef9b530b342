"""What an expert says of the endpoint that it is asked at: `options` in a pool."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, ValidationError, field_validator

from swarm.agents.engines.determinism import Determinism
from swarm.agents.served import Served
from swarm.errors import ConfigError
from swarm.settings_file import Settings, settings_error

if TYPE_CHECKING:
    from swarm.agents.expert import Expert

ENDPOINTS = ("openai", "hosted_vllm")
"""What LiteLLM calls a host that speaks OpenAI's protocol, to be named by its address."""


class ServerOptions(Settings):
    """What an expert of the engine `server` may say under `options`."""

    url: str | None = None
    """Of an OpenAI-compatible endpoint: ``http://localhost:8000/v1``. None: the model's host, which
    LiteLLM knows by the model's name."""
    key: str | None = None
    """The name of the environment variable that holds the API key."""
    concurrency: int = Field(16, ge=1)
    """How many requests may be on their way at once, at most."""
    requests_per_minute: float | None = Field(None, gt=0)
    timeout: float = Field(60.0, gt=0)
    """Seconds one attempt may take; of a stream, seconds until the next piece."""
    deadline: float = Field(300.0, gt=0)
    """Seconds from the first attempt after which a request is given up."""
    client: Literal["direct", "litellm"] | None = None
    """Who speaks to the endpoint. None: directly where there is a `url` and `model` says that it
    speaks OpenAI's protocol (``openai/NAME``), which takes a tenth of LiteLLM's time."""
    determinism: Determinism | None = None
    """What an endpoint of one's own promises, where it is known: ``bitwise`` of one that computes
    every request as if it were alone (vLLM with `VLLM_BATCH_INVARIANT=1`), ``replay-only`` of one
    that hands requests on to somebody else's models. None: ``seeded``."""

    served: Served | None = None
    """What stands behind it, where `swarm pool up` runs the server (set by the pool)."""

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str | None) -> str | None:
        parts = urlsplit(url or "http://localhost")
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError("must be the address of an endpoint, as in `http://localhost:8000/v1`")
        return url

    @classmethod
    def of(cls, expert: Expert, who: str) -> ServerOptions:
        """Those of `expert`, checked; raises `ConfigError`."""
        # These two may hold secrets, which no message may show: they are looked at before all else.
        key, url = expert.options.get("key"), expert.options.get("url")
        if isinstance(key, str) and not re.fullmatch(r"[A-Z_][A-Z0-9_]*", key):
            raise ConfigError(
                f"{who}: key `options.key` must be the name of an environment variable in capital "
                'letters, never the API key itself: `key = "MY_KEY"`, and MY_KEY set where it runs'
            )
        if isinstance(url, str) and re.search(r"[@?#]", url):
            raise ConfigError(
                f"{who}: key `options.url` must be an address only, without a user, a password or "
                "a query: an API key is given by `options.key`"
            )
        try:
            options = _Checked.model_validate({"options": expert.options}).options
        except ValidationError as error:
            raise settings_error(who.replace("`", ""), error, _Checked) from None
        if options.client == "direct" and options.url is None:
            raise ConfigError(
                f"{who}: key `options.client`: `direct` needs an `options.url` to go to: give one, "
                "or leave `client` out, and LiteLLM finds the host"
            )
        if options.determinism is not None and options.url is None:
            raise ConfigError(
                f"{who}: key `options.determinism`: `{options.determinism}` can't be said of a "
                "hosted model, which is `replay-only`: give the `url` of an endpoint of your own"
            )
        return options

    def is_direct(self, model: str) -> bool:
        """Whether `model` is asked without LiteLLM."""
        if self.client is not None:
            return self.client == "direct"
        return self.url is not None and model.partition("/")[0] in ENDPOINTS


class _Checked(BaseModel):
    """Only there so that messages say ``options.url``."""

    options: ServerOptions


def name_at_endpoint(model: str) -> str:
    """What an endpoint of one's own calls the model that LiteLLM calls `model`."""
    host, _, name = model.partition("/")
    return name if host in ENDPOINTS else model
