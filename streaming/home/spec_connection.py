"""The client.properties that a spec names: where it may lie, and which secrets it may send to whom.

A spec is content that many people write, and so is the file beside it. Neither may send whatever this
machine holds to any host: the policy says which secret may go where.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from schemas.errors import ConfigurationError
from schemas.policy import Policy, load_policy
from schemas.spec import AgentSpec
from streaming.home.client_properties import load_properties, secrets_in, written_properties
from streaming.home.connection_keys import SECRET_KEY
from streaming.home.jaas import options_with_places
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings

_PLACE = re.compile(r"\$\{(?:env|file):[^}]+\}")
_TOKENS = "sasl.oauthbearer.token.endpoint.url"


def settings_for(agent: PlacedAgent, policies: Path) -> Settings:
    """Return the settings with the brokers that a spec names; those of the environment go before them.

    Args:
        policies: folder of the shipped ones.

    Raises:
        ConfigurationError: the file cannot be used, holds a secret, or would send one where no policy says.
    """
    if agent.spec.kafka is None or agent.settings.names_its_brokers:
        return agent.settings
    file, policy = Path(agent.spec.kafka), load_policy(agent.spec.policy, policies)

    def check(properties: Mapping[str, str]) -> None:
        _check_plain(properties, file)
        sent_to = [*_addresses(agent.settings.kafka_address or properties.get("bootstrap.servers", ""))]
        _check_bound(secrets_in(properties), [*sent_to, *_issuer(properties)], policy, file)

    return replace(
        agent.settings, kafka=agent.settings.reached_by(load_properties(file, agent.settings.environ, check))
    )


def written_connection(spec: AgentSpec) -> Mapping[str, str]:
    """Return what stands in the file that a spec names, secrets by their places; nothing where it names none.

    Raises:
        ConfigurationError: the file cannot be used, or holds a secret.
    """
    if spec.kafka is None:
        return {}
    properties = written_properties(Path(spec.kafka))
    _check_plain(properties, Path(spec.kafka))
    return properties


def variables_in(properties: Mapping[str, str]) -> list[str]:
    """Return the environment variables that a file takes secrets from."""
    return sorted(each.removeprefix("env:") for each in secrets_in(properties) if each.startswith("env:"))


def files_in(properties: Mapping[str, str]) -> list[str]:
    """Return the files that a file names: those that hold secrets, and stores of certificates.

    Raises:
        ValueError: its `sasl.jaas.config` cannot be read.
    """
    line = properties.get("sasl.jaas.config", "")
    login = {} if _PLACE.fullmatch(line) else options_with_places(line)
    named = [value for key, value in (*properties.items(), *login.items()) if key.endswith(".location")]
    secrets = [each.removeprefix("file:") for each in secrets_in(properties) if each.startswith("file:")]
    return sorted({*secrets, *(each for each in named if each and not _PLACE.fullmatch(each))})


def _check_plain(properties: Mapping[str, str], file: Path) -> None:
    """A file that lies beside a spec is kept and passed on as the spec is."""
    for key, value in properties.items():
        if SECRET_KEY.search(key) and any(not _PLACE.fullmatch(each) for each in _secret_parts(key, value)):
            raise ConfigurationError(
                "holds a secret, and lies beside a spec: write ${env:NAME} or ${file:/path} in its place",
                where=str(file),
                key=key,
            )


def _secret_parts(key: str, value: str) -> Iterable[str]:
    if key != "sasl.jaas.config" or _PLACE.fullmatch(value):
        return [value]
    try:
        options = options_with_places(value)
    except ValueError:
        return []  # which is refused with what is wrong about it
    return [each for name, each in options.items() if SECRET_KEY.search(name)]


def _check_bound(secrets: Iterable[str], sent_to: list[str], policy: Policy, file: Path) -> None:
    bound = {each.secret: [to.lower() for to in each.to] for each in policy.kafkaSecrets}
    for secret in sorted(secrets):
        strangers = [each for each in sent_to if each not in bound.get(secret, [])]
        if strangers:
            raise ConfigurationError(
                f"{secret} would go to {strangers[0]}, and policy {policy.policyName} does not say that it "
                f"may: name both in its kafkaSecrets, or have whoever runs the agent name this file in "
                "FLAGSTREAM_KAFKA_CONFIG",
                where=str(file),
            )


def _addresses(servers: str) -> Iterator[str]:
    return (each.strip().lower() for each in servers.split(",") if each.strip())


def _issuer(properties: Mapping[str, str]) -> list[str]:
    if _TOKENS not in properties:
        return []
    try:
        parts = urlsplit(properties[_TOKENS])
    except ValueError:
        raise ConfigurationError("is no address", key=_TOKENS) from None
    # A login has no place there, which is said once the file is read.
    return [f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}".lower()]
