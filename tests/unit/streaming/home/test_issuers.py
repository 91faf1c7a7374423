"""librdkafka fetches tokens over https from an issuer whose authority the login names, and from no other."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import KafkaError, Producer

from streaming.home.client_properties import load_properties
from tests.oidc_issuer import Issuer, oidc_issuer
from tests.secured_broker import make_certificates

SECONDS = 20.0
MODULE = "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("issuer") / "certificates"
    make_certificates(folder)
    return folder


@pytest.fixture(scope="module")
def issuer(certificates: Path) -> Iterator[Issuer]:
    with oidc_issuer(certificates.parent, {"me": "whispered-10"}, certificates / "broker.pem") as found:
        yield found


def asked(issuer: Issuer, folder: Path, more: str) -> tuple[bool, str]:
    """Whether a client that goes by a file fetches a token, or what it says instead."""
    path, said, before = folder / "client.properties", list[str](), len(issuer.scopes)
    text = (
        "security.protocol=SASL_PLAINTEXT\nsasl.mechanism=OAUTHBEARER\n"
        f"sasl.oauthbearer.token.endpoint.url={issuer.tls_token_url}\n{more}\n"
    )
    path.write_text(text, encoding="utf-8")

    def note(error: KafkaError) -> None:
        if error.code() == KafkaError._AUTHENTICATION:
            said.append(error.str())

    settings = dict(load_properties(path, {"SECRET": "whispered-10"}).librdkafka)
    client = Producer({**settings, "bootstrap.servers": "127.0.0.1:1", "log_level": 0, "error_cb": note})
    end = time.monotonic() + SECONDS
    while not said and len(issuer.scopes) == before and time.monotonic() < end:
        client.poll(0.05)
    return len(issuer.scopes) > before, " ".join(said)


def login(authority: str) -> str:
    return f'sasl.jaas.config={MODULE} required clientId="me" clientSecret="${{env:SECRET}}"{authority};'


def test_an_issuer_is_known_by_the_options_of_the_login(
    issuer: Issuer, certificates: Path, tmp_path: Path
) -> None:
    store = f' ssl.truststore.type="PEM" ssl.truststore.location="{certificates}/ca.pem"'
    assert asked(issuer, tmp_path, login(store)) == (True, "")


@pytest.mark.parametrize("key", ["https.ca.location", "https.ca.pem"])
def test_an_issuer_is_known_by_librdkafka_s_own_names(
    issuer: Issuer, certificates: Path, tmp_path: Path, key: str
) -> None:
    file = certificates / "ca.pem"
    value = str(file) if key == "https.ca.location" else file.read_text("utf-8").replace("\n", "\\n")
    credentials = "sasl.oauthbearer.client.credentials.client"
    more = f"{credentials}.id=me\n{credentials}.secret=${{env:SECRET}}\n{key}={value}"
    assert asked(issuer, tmp_path, more) == (True, "")


def test_an_issuer_that_nobody_vouches_for_is_asked_for_nothing(issuer: Issuer, tmp_path: Path) -> None:
    fetched, said = asked(issuer, tmp_path, login(""))
    assert not fetched
    assert "certificate" in said.lower()
    assert "whispered-10" not in said
