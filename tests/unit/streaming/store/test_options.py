from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import ConfigurationError, StoreError
from streaming.home.settings import Settings
from streaming.store.faults import fault_of_store, unknown_login
from streaming.store.options import DEFAULTS, MEANINGS, retry_config, store_options
from streaming.store.place import Place

STORE = {"FLAGSTREAM_STORE": "s3://bucket/agents"}
BULK = "Generic MicrosoftAzure error: Bulk delete request failed for key agents/a:"


def test_options_are_those_that_the_environment_gives_else_the_defaults(tmp_path: Path) -> None:
    given = {**STORE, "FLAGSTREAM_STORE_OPTIONS": "timeout=10s, max_retries=8"}
    options = Settings.load(tmp_path, given).lake("a").storage_options
    assert options is not None
    assert (options["timeout"], options["max_retries"], options["connect_timeout"]) == ("10s", "8", "5s")


def test_every_option_has_a_meaning_for_the_reference() -> None:
    with pytest.raises(ConfigurationError, match="expected one of: ") as refused:
        store_options("zzzzzz=1", "test")
    known = str(refused.value).partition("expected one of: ")[2].split(", ")
    assert set(known) == set(MEANINGS) > set(DEFAULTS)


def test_obstore_is_told_of_retries_in_its_own_words() -> None:
    options = store_options("max_retries=8,retry_timeout=500ms,backoff_config.max_backoff=2s", "test")
    assert retry_config(options) == {
        "max_retries": 8,
        "retry_timeout": timedelta(milliseconds=500),
        "backoff": {"max_backoff": timedelta(seconds=2)},
    }


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("timout=5s", "did you mean 'timeout'"),
        ("timeout=soon", "a duration such as"),
        ("max_retries=5s", "a number"),
        ("aws_secret_access_key=x", "unknown option"),
    ],
)
def test_options_that_cannot_be_used_are_refused(tmp_path: Path, given: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as refused:
        Settings.load(tmp_path, {**STORE, "FLAGSTREAM_STORE_OPTIONS": given})
    assert refused.value.where == "FLAGSTREAM_STORE_OPTIONS"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AWS_CONDITIONAL_PUT", "disabled"),
        ("aws_conditional_put", "dynamo:locks"),
        ("AWS_S3_ALLOW_UNSAFE_RENAME", "true"),
        ("AWS_S3_LOCKING_PROVIDER", "dynamodb"),
        ("AWS_COPY_IF_NOT_EXISTS", "multipart"),
        ("DELTA_DYNAMO_TABLE_NAME", "locks"),
    ],
)
def test_what_keeps_commits_from_being_atomic_is_refused_by_name(
    tmp_path: Path, name: str, value: str
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        Settings.load(tmp_path, {**STORE, name: value})
    assert refused.value.where == name
    assert Settings.load(tmp_path, {name: value}).store is None, "nothing to refuse without a store"


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT", "AZURE_STORAGE_ENDPOINT"])
@pytest.mark.parametrize("given", ["minio:9000", "127.0.0.1:9000", "https://", "ftp://minio", "http://h:x"])
def test_what_is_no_address_of_a_store_is_refused_by_name(tmp_path: Path, name: str, given: str) -> None:
    store = "az://container/agents" if name.startswith("AZURE") else STORE["FLAGSTREAM_STORE"]
    with pytest.raises(ConfigurationError, match="expected an address such as https://") as refused:
        Settings.load(tmp_path, {"FLAGSTREAM_STORE": store, name: given})
    assert refused.value.where == name
    assert Settings.load(tmp_path, {name: given}).store is None, "nothing to refuse without a store"


def test_an_address_without_tls_is_allowed_by_name_alone(tmp_path: Path) -> None:
    minio = {**STORE, "AWS_ENDPOINT_URL": "http://minio:9000"}
    with pytest.raises(ConfigurationError, match="set AWS_ALLOW_HTTP=true as well"):
        Settings.load(tmp_path, minio)
    for more in ({"AWS_ALLOW_HTTP": "true"}, {"AWS_ENDPOINT_URL": "https://minio:9000"}):
        assert Settings.load(tmp_path, {**minio, **more}).store is not None


def test_the_anchor_is_reached_by_an_address_of_its_own(tmp_path: Path) -> None:
    anchored = {"FLAGSTREAM_AUDIT_ANCHOR": "s3://elsewhere/anchors", "AWS_ENDPOINT_URL": "https://minio:9000"}
    assert Settings.load(tmp_path, anchored).audit_anchor is not None
    own = {**anchored, "FLAGSTREAM_AUDIT_ANCHOR_AWS_ENDPOINT_URL": "vault:9000"}
    with pytest.raises(ConfigurationError, match="expected an address such as https://"):
        Settings.load(tmp_path, own)


def test_the_conditions_of_the_store_itself_are_fine(tmp_path: Path) -> None:
    assert Settings.load(tmp_path, {**STORE, "AWS_CONDITIONAL_PUT": "etag"}).store is not None


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (
            "Generic S3 error: Error performing PUT: Server returned non-2xx status code: 503: SlowDown",
            StoreError,
        ),
        ("Client error with status code: 400 Bad Request: <Code>ExpiredToken</Code>", StoreError),
        ("error sending request for url (http://host/bucket?X-Amz-Signature=abc)", StoreError),
        ("status code: 403 Forbidden: <Code>AccessDenied</Code>", ConfigurationError),
        ("status code: 404 Not Found: <Code>NoSuchBucket</Code>", ConfigurationError),
        (f"{BULK} This request is not authorized to perform this operation. (code: 403)", ConfigurationError),
        (f"{BULK} The server is busy. (code: 503)", StoreError),
        (f"{BULK} Access Denied (code: AccessDenied)", ConfigurationError),
    ],
)
def test_what_a_store_answers_is_waited_for_or_somebody_s_to_set_right(
    text: str, kind: type[Exception]
) -> None:
    fault = fault_of_store(text, Place("s3://bucket/agents"))
    assert type(fault) is kind
    assert "X-Amz-Signature" not in str(fault)


def asked_for_a_token(status: str, said: str) -> str:
    """The words of both libraries, where Microsoft Entra ID answers."""
    return (
        "Generic MicrosoftAzure error: Error performing token request: Error performing POST "
        "https://login.microsoftonline.com/tenant/oauth2/v2.0/token in 1.5ms - Server returned non-2xx "
        f'status code: {status}: {{"error":"{said}","error_description":"AADSTS7000222: The secret is over. '
        'Trace ID: 1a2b-3c Correlation ID: 4d-5e Timestamp: 2026-05-01 10:11:12Z","error_codes":[7000222],'
        '"timestamp":"2026-05-01 10:11:12Z","trace_id":"1a2b-3c","correlation_id":"4d-5e"}'
    )


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (asked_for_a_token("401 Unauthorized", "invalid_client"), ConfigurationError),
        (asked_for_a_token("400 Bad Request", "unauthorized_client"), ConfigurationError),
        (
            asked_for_a_token("401 Unauthorized", "invalid_client").replace(": ", " \x1b[31m↳\x1b[0m "),
            ConfigurationError,
        ),
        ("Generic MicrosoftAzure error: Error reading federated token file ", ConfigurationError),
        (asked_for_a_token("429 Too Many Requests", "temporarily_unavailable"), StoreError),
        (asked_for_a_token("503 Service Unavailable", "temporarily_unavailable"), StoreError),
    ],
)
def test_whether_an_identity_is_given_a_token_later_or_never_is_told_by_the_answer(
    text: str, kind: type[Exception]
) -> None:
    fault = fault_of_store(text, Place("az://container/agents"))
    assert type(fault) is kind
    assert ("is given no token" in str(fault)) is (kind is ConfigurationError)
    assert "\x1b" not in str(fault) and "↳" not in str(fault)
    assert "2026" not in str(fault) and "1a2b" not in str(fault), "which would differ each time"


def test_where_no_login_was_found_it_says_so() -> None:
    asked = "Generic S3 error: Error performing PUT http://169.254.169.254/latest/api/token"
    for said in ("error sending request", "status code: 403 Forbidden: " + "denied " * 60):
        fault = fault_of_store(f"{asked} - {said}", Place("s3://bucket/agents"))
        assert "no login was found, so this machine was asked for its role" in str(fault)


def test_a_login_that_is_not_known_is_told_by_its_code() -> None:
    said = (
        "status code: 403 Forbidden: <?xml version='1.0'?><Error><Code>{}</Code><Message>No</Message></Error>"
    )
    for code, known in (("InvalidAccessKeyId", False), ("AccessDenied", True)):
        fault = str(fault_of_store(f"{'long ' * 60}{said.format(code)}", Place("s3://bucket/agents")))
        assert f"the store does not admit this ({code}): " in fault
        assert unknown_login(fault) == ("" if known else code)
    told = str(fault_of_store(said.format("SignatureDoesNotMatch"), Place("s3://bucket/agents")))
    assert "Forbidden: <Error><Code>SignatureDoesNotMatch" in told


def test_what_is_no_answer_of_a_store_stays_what_it_is() -> None:
    assert fault_of_store("Invalid table version: 7", Place("s3://bucket/agents")) is None


@given(st.uuids(), st.floats(0.001, 999), st.sampled_from(["ns", "µs", "ms", "s"]), st.datetimes())
def test_a_fault_that_goes_on_has_the_same_words_each_time(
    request: UUID, took: float, unit: str, at: datetime
) -> None:
    """How long it took and which request it was differ each time: a log would have a line for each."""

    def said(request: object, took: str, at: str) -> str:
        words = (
            f"Generic S3 error: Error performing GET http://host/lake in {took}, after 2 retries: "
            f"status code: 503: <Code>SlowDown</Code><Message>Busy. RequestId:{request}\nTime:{at}</Message>"
            f"<RequestId>{request}</RequestId><HostId>{request}=</HostId>"
        )
        return str(fault_of_store(words, Place("s3://bucket/agents")))

    other = said(request, f"{took}{unit}", at.isoformat() + "Z")
    assert other == said("first", "1.5ms", "2026-05-01T00:00:00Z")
    assert "after 2 retries" in other and "SlowDown" in other
