"""Logging in to Amazon MSK with IAM: the same login for both clients, its tokens signed here."""

from __future__ import annotations

import base64
import sys
import time
import urllib.parse
from pathlib import Path

import pytest

from schemas.errors import ConfigurationError
from streaming.home.client_properties import load_properties
from streaming.home.msk_login import AWS_VARIABLES, msk_tokens

BROKERS = "b-1.payments.a1b2c3.c4.kafka.eu-north-1.amazonaws.com:9098"
FILE = "security.protocol=SASL_SSL\nsasl.mechanism=AWS_MSK_IAM\n"


def written(folder: Path, text: str) -> Path:
    path = folder / "client.properties"
    path.write_text(text, encoding="utf-8")
    return path


def test_without_the_signer_it_is_refused_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "aws_msk_iam_sasl_signer", None)
    path = written(tmp_path, f"{FILE}bootstrap.servers={BROKERS}\n")
    with pytest.raises(
        ConfigurationError, match=r"pip install --require-hashes -r requirements/msk\.txt"
    ) as refused:
        load_properties(path, {})
    assert str(path) in str(refused.value)


def test_a_token_is_signed_for_the_brokers_region(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("aws_msk_iam_sasl_signer", reason="the extra msk is not installed")
    for name in AWS_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary-of-a-secret-key")
    token, expires = msk_tokens(BROKERS, {}, {})("")
    url = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)).decode()
    asked = urllib.parse.urlsplit(url)
    query = urllib.parse.parse_qs(asked.query)
    assert asked.hostname == "kafka.eu-north-1.amazonaws.com"
    assert query["Action"] == ["kafka-cluster:Connect"]
    assert query["X-Amz-Credential"][0].startswith("AKIAIOSFODNN7EXAMPLE/")
    assert "canary" not in url
    assert 60 < expires - time.time() < 3600


def test_a_region_that_nothing_names_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aws_msk_iam_sasl_signer", _Signer())
    assert msk_tokens("proxy:9098", {}, {"AWS_REGION": "eu-west-3"})("") == ("eu-west-3", 7.0)
    with pytest.raises(ValueError, match="set AWS_REGION"):
        msk_tokens("proxy:9098", {}, {})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("", "eu-north-1"),
        (' awsProfileName="audit"', "eu-north-1 audit"),
        (' awsRoleArn="arn:aws:iam::1:role/r"', "eu-north-1 arn:aws:iam::1:role/r flagstream"),
        (' awsRoleArn="arn:r" awsRoleSessionName="me"', "eu-north-1 arn:r me"),
    ],
)
def test_the_file_means_the_same_to_both_clients(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: str, said: str
) -> None:
    monkeypatch.setitem(sys.modules, "aws_msk_iam_sasl_signer", _Signer())
    line = f"sasl.jaas.config=software.amazon.msk.auth.iam.IAMLoginModule required{options};\n"
    found = load_properties(written(tmp_path, f"{FILE}{line}bootstrap.servers={BROKERS}\n"), {})
    assert found.librdkafka["sasl.mechanism"] == "OAUTHBEARER"
    assert found.librdkafka["security.protocol"] == "SASL_SSL"
    token = found.librdkafka["oauth_cb"]
    assert callable(token)
    assert token("") == (said, 7.0)
    assert found.spark["kafka.sasl.mechanism"] == "AWS_MSK_IAM"
    assert found.spark["kafka.sasl.jaas.config"] == line.partition("=")[2].strip()
    assert found.spark["kafka.sasl.client.callback.handler.class"].endswith("IAMClientCallbackHandler")
    assert found.secret_names == AWS_VARIABLES
    assert found.msk


def test_a_file_that_names_the_mechanism_alone_is_completed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "aws_msk_iam_sasl_signer", _Signer())
    found = load_properties(written(tmp_path, f"{FILE}bootstrap.servers={BROKERS}\n"), {})
    assert found.spark["kafka.sasl.jaas.config"] == "software.amazon.msk.auth.iam.IAMLoginModule required;"


class _Signer:
    """What the library offers, saying what it was asked."""

    MSKAuthTokenProvider: type

    def __init__(self) -> None:
        class Provider:
            @staticmethod
            def generate_auth_token(*asked: str) -> tuple[str, int]:
                return " ".join(asked), 7_000

        for name in ("from_profile", "from_role_arn"):
            setattr(Provider, f"generate_auth_token_{name}", Provider.generate_auth_token)
        self.MSKAuthTokenProvider = Provider
