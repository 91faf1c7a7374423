"""Where the keys of a store come from, in which order, and that nobody is shown one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from schemas.errors import ConfigurationError
from streaming.output.redaction import redacted
from streaming.store.credentials import provider_of

FILE = """[default]
aws_access_key_id = of-default
aws_secret_access_key = secret-of-default
[audit]
aws_access_key_id = of-audit
aws_secret_access_key = secret-of-audit
aws_session_token = token-of-audit
[role]
role_arn = arn:aws:iam::1:role/x
"""
ENVIRONMENT = {"AWS_ACCESS_KEY_ID": "of-environment", "AWS_SECRET_ACCESS_KEY": "s", "AWS_SESSION_TOKEN": "t"}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "credentials").write_text(FILE)
    return tmp_path


def key(given: Mapping[str, str], environ: Mapping[str, str], home: Path) -> str | None:
    provider = provider_of(given, environ, home)
    return None if provider is None else provider()["access_key_id"]


def test_keys_given_apart_come_first_then_a_profile_given_apart_then_the_environment(home: Path) -> None:
    apart = {"AWS_ACCESS_KEY_ID": "apart", "AWS_SECRET_ACCESS_KEY": "s"}
    assert key(apart, ENVIRONMENT, home) == "apart"
    provider = provider_of(apart, ENVIRONMENT, home)
    assert provider is not None
    assert provider()["token"] is None, "not the environment's, which belongs to another key"
    assert key({"AWS_PROFILE": "audit"}, ENVIRONMENT, home) == "of-audit"
    assert key({}, ENVIRONMENT, home) is None, "the client finds it by itself"
    assert key({}, {"AWS_WEB_IDENTITY_TOKEN_FILE": "/var/token"}, home) is None
    assert key({}, {"AWS_PROFILE": "audit"}, home) == "of-audit"
    assert key({}, {}, home) == "of-default"
    assert key({}, {}, home / "empty") is None


def test_keys_of_a_profile_are_read_anew(home: Path) -> None:
    provider = provider_of({"AWS_PROFILE": "audit"}, {}, home)
    assert provider is not None
    found = provider()
    assert (found["secret_access_key"], found["token"]) == ("secret-of-audit", "token-of-audit")
    assert found["expires_at"] is not None
    (home / ".aws" / "credentials").write_text(FILE.replace("of-audit", "renewed"))
    assert provider()["secret_access_key"] == "secret-renewed"
    assert redacted("secret-of-audit, secret-renewed, token-renewed") == ", ".join(["[redacted]"] * 3)


@pytest.mark.parametrize("profile", ["role", "absent"])
def test_a_profile_without_keys_is_named(home: Path, profile: str) -> None:
    provider = provider_of({"AWS_PROFILE": profile}, {}, home)
    assert provider is not None
    with pytest.raises(ConfigurationError, match=f"credentials: holds no keys of profile '{profile}'"):
        provider()


def test_a_broken_file_is_not_quoted(home: Path) -> None:
    (home / ".aws" / "credentials").write_text("aws_secret_access_key = my-secret-key")
    with pytest.raises(ConfigurationError, match="is no credentials file") as refused:
        provider_of({}, {}, home)
    assert "my-secret-key" not in str(refused.value)
    assert refused.value.__suppress_context__
