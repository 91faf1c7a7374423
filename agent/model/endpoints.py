"""Where a model may be asked, and with which key: what the policy binds together stays together."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from agent.model.guarded_http import Reach
from schemas.addresses import is_loopback, is_public, literal_address, origin_of
from schemas.errors import ConfigurationError
from schemas.llm import Llm
from schemas.policy import AllowedModel, Policy

OPENAI_URL = "https://api.openai.com/v1"
_OPENAI_KEY = str(Llm.model_fields["api_key_env"].default)


@dataclass(frozen=True)
class Endpoint:
    """One endpoint that may be asked.

    Attributes:
        url: its API root.
        key_variable: environment variable whose value may be sent to it, None for none.
        reach: whether its name may lead to a private network.
    """

    url: str
    key_variable: str | None
    reach: Reach


def endpoint_of(policy: Policy, llm: Llm, model: str, operators_url: str | None) -> Endpoint:
    """Return the endpoint that a spec may ask for `model`.

    A model whose origin the policy names is asked there, with the key variable named beside it. Any other
    model is asked at OpenAI or where the operator's environment says, with OPENAI_API_KEY, or on this
    machine, without a key.

    Args:
        policy: binds models to origins and keys.
        llm: names endpoint and key variable.
        model: the name that is asked for.
        operators_url: the endpoint that the environment names, used where `llm` names none.

    Raises:
        ConfigurationError: the policy does not admit it.
    """
    url = llm.base_url or operators_url or OPENAI_URL
    bound = policy.model(model)
    if bound is not None and bound.origin is not None:
        return _bound(policy, bound, bound.origin, llm, url)
    origin = origin_of(url)
    trusted = llm.base_url is None or origin == origin_of(OPENAI_URL)
    host = urlsplit(url).hostname or ""
    if not trusted and not is_loopback(host):
        raise _refused("base_url", policy, f"{origin} is not bound to {model!r}")
    if llm.api_key_env != _OPENAI_KEY:
        raise _refused("api_key_env", policy, f"{llm.api_key_env} is not bound to {model!r} and its origin")
    _check_open(policy, url, origin)
    return Endpoint(url, _OPENAI_KEY if trusted else None, "public")


def _bound(policy: Policy, bound: AllowedModel, origin: str, llm: Llm, url: str) -> Endpoint:
    if origin_of(url) != origin:
        raise _refused("base_url", policy, f"{bound.name!r} is bound to {origin}, not to {origin_of(url)}")
    if llm.api_key_env not in (bound.api_key_env, _OPENAI_KEY):
        raise _refused(
            "api_key_env", policy, f"{llm.api_key_env} is not bound to {bound.name!r} and {origin}"
        )
    return Endpoint(url, bound.api_key_env, "named")


def _check_open(policy: Policy, url: str, origin: str) -> None:
    """Check that an origin that no policy names is public and encrypted, or this machine."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if is_loopback(host):
        return
    if parts.scheme != "https":
        raise _refused("base_url", policy, f"{origin} is not encrypted, and not marked `http: true`")
    address = literal_address(host)
    if address is not None and not is_public(address):
        raise _refused("base_url", policy, f"{origin} lies in a private network, and is not named")


def _refused(key: str, policy: Policy, problem: str) -> ConfigurationError:
    advice = "add `origin` and `api_key_env` to the model in the policy's allowedModels"
    return ConfigurationError(
        f"the policy {policy.policyName} does not admit it: {problem}; {advice}", key=f"llm.{key}"
    )
