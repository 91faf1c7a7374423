"""A routes file is refused by its key, before anything is sent, and no secret is quoted."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import ConfigurationError
from streaming.notify.opening import OpenRoute, open_routes
from streaming.output.redaction import redacted
from tests.unit.streaming.notify.receivers import OLDER_SECRET, SECRET

ENVIRONMENT = {
    "NEW": SECRET,
    "OLD": OLDER_SECRET,
    "SLACK": "https://hooks.slack.com/services/T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7",
    "PD": "0123456789abcdef0123456789abcdef",
    "SMTP": "pass-word-4711",
    "HOOK": "https://hooks.example.org/secret-path",
}
WEBHOOK = {"url": "https://hooks.example.org/x", "secrets": ["${env:NEW}"]}
EMAIL = {"server": "smtp.example.org", "sender": "a@example.org", "to": ["b@example.org"]}
Opened = Callable[..., tuple[OpenRoute, ...]]


@pytest.fixture
def opened(tmp_path: Path) -> Opened:
    def open_them(*routes: dict[str, Any], **more: Any) -> tuple[OpenRoute, ...]:
        file = tmp_path / "routes.yaml"
        named = [{"name": f"r{place}", **each} for place, each in enumerate(routes)]
        file.write_text(yaml.safe_dump({"routes": named, **more}), encoding="utf-8")
        return open_routes(file, ENVIRONMENT)

    return open_them


def test_each_kind_of_receiver_is_made(opened: Opened, tmp_path: Path) -> None:
    (tmp_path / "pd").write_text(f"{ENVIRONMENT['PD']}\n", encoding="utf-8")
    found = opened(
        {"webhook": {"url": "${env:HOOK}", "secrets": ["${env:NEW}", "${env:OLD}"]}},
        {"slack": {"url": "${env:SLACK}"}},
        {"email": {**EMAIL, "user": "u", "password": "${env:SMTP}"}},
        {"pagerduty": {"routing_key": f"${{file:{tmp_path / 'pd'}}}"}},
    )
    assert [each.kind for each in found] == ["webhook", "slack", "email", "pagerduty"]
    for secret in ENVIRONMENT.values():
        assert secret not in redacted(f"fault: {secret}!")
        assert secret not in repr(found)


@pytest.mark.parametrize(
    ("route", "key", "said"),
    [
        ({"webhook": {**WEBHOOK, "url": "http://hooks.example.org/x"}}, "webhook.url", "is not encrypted"),
        ({"webhook": {**WEBHOOK, "url": "https://10.0.0.7/x"}}, "webhook.url", "lies in a private network"),
        ({"webhook": {**WEBHOOK, "url": "https://0x0a000007/x"}}, "webhook.url", "lies in a private network"),
        ({"webhook": {**WEBHOOK, "url": "https://[fd00::7]/x"}}, "webhook.url", "lies in a private network"),
        (
            {"webhook": {**WEBHOOK, "url": "http://169.254.169.254/x", "http": True}},
            "webhook.url",
            "is link-local",
        ),
        ({"webhook": {**WEBHOOK, "url": "https://u:p@hooks.example.org/"}}, "webhook.url", "holds a login"),
        ({"webhook": {**WEBHOOK, "url": "ftp://hooks.example.org/"}}, "webhook.url", "is none"),
        ({"webhook": {**WEBHOOK, "url": "hooks"}}, "webhook.url", "is none"),
        ({"webhook": {**WEBHOOK, "url": "https://[::1/u:p@x"}}, "webhook.url", "is none"),
        ({"webhook": {**WEBHOOK, "url": "https://ex\u2100mple/u:p@x"}}, "webhook.url", "is none"),
        ({"webhook": {**WEBHOOK, "url": "https://\ufb00.example/u:p@x"}}, "webhook.url", "no address"),
        ({"webhook": {**WEBHOOK, "secrets": ["${env:PD}"]}}, "webhook.secrets.0", "expected whsec_"),
        ({"webhook": {**WEBHOOK, "secrets": ["${env:GONE}"]}}, "webhook.secrets.0", "has no GONE"),
        (
            {"webhook": {**WEBHOOK, "secrets": ["whsec_plain"]}},
            "webhook.secrets.0",
            "does not stand in this file",
        ),
        ({"webhook": {**WEBHOOK, "secrets": ["${env:NEW}"] * 3}}, "webhook.secrets", "at most 2"),
        ({"slack": {"url": "https://hooks.slack.com/services/A/B/C"}}, "slack.url", "does not stand in this"),
        ({"slack": {"url": "${env:HOOK}"}}, "slack.url", "expected https://hooks.slack.com"),
        ({"pagerduty": {"routing_key": "plain"}}, "pagerduty.routing_key", "does not stand in this file"),
        ({"email": {**EMAIL, "password": "plain", "user": "u"}}, "email.password", "does not stand in this"),
        ({"email": {**EMAIL, "user": "u"}}, "email", "a login is a user and a password"),
        ({"email": {**EMAIL, "security": "none"}}, "email.server", "mail is encrypted on its way there"),
        ({"email": {**EMAIL, "server": "10.0.0.7"}}, "email.server", "lies in a private network"),
        ({"email": {**EMAIL, "to": ["a@x.org, b@x.org"]}}, "email.to.0", "should match pattern"),
        ({}, "routes.0", "exactly one of webhook"),
        ({"webhook": WEBHOOK, "slack": {"url": "${env:SLACK}"}}, "routes.0", "exactly one of webhook"),
        ({"webhook": WEBHOOK, "when": {"severity": ["dire"]}}, "when.severity.0", "low"),
    ],
)
def test_what_cannot_be_used_is_named_and_not_quoted(
    opened: Opened, route: dict[str, Any], key: str, said: str
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        opened(route)
    text = str(refused.value)
    assert key in text and said in text and "routes.yaml" in text
    for secret in (*ENVIRONMENT.values(), "whsec_plain", "'plain'", "services/A/B/C", "u:p@"):
        assert secret not in text


PASTED = "s3cr3t-4711-of-somebody"
SAMPLE: dict[str, Any] = {
    "private_hosts": ["desk.internal"],
    "routes": [
        {
            "name": "a", "webhook": WEBHOOK, "timeout": "2s", "begins": "oldest", "give_up_after": "1h",
            "when": {"severity": ["high"], "classification": ["card_testing"], "revisions": "first"},
        },
        {"name": "b", "slack": {"url": "${env:SLACK}", "ids": True}},
        {"name": "c", "email": {**EMAIL, "port": 25, "user": "u", "password": "${env:SMTP}"}},
        {"name": "d", "pagerduty": {"routing_key": "${env:PD}", "region": "eu"}},
    ],
}  # fmt: skip


def places_in(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place of a document, the whole of it left out."""
    if path:
        yield path
    if isinstance(content, dict | list):
        for name, held in content.items() if isinstance(content, dict) else enumerate(content):
            yield from places_in(held, (*path, name))


def renamed_at(content: Any, path: tuple[Any, ...], name: str) -> Any:
    """Return a document with another key at a place; places in lists stay as they are."""
    *above, last = path
    if not above:
        return (
            {name if key == last else key: held for key, held in content.items()}
            if isinstance(content, dict)
            else content
        )
    return with_at(content, (path[0],), renamed_at(content[path[0]], path[1:], name))


def with_at(content: Any, path: tuple[Any, ...], value: Any) -> Any:
    """Return a document with something else at a place."""
    if not path:
        return value
    changed = copy.copy(content)
    changed[path[0]] = with_at(content[path[0]], path[1:], value)
    return changed


@given(
    st.sampled_from(list(places_in(SAMPLE))),
    st.sampled_from(
        [
            PASTED,
            f"x {PASTED}",
            f"{PASTED}\0",
            [PASTED],
            {"url": PASTED},
            {"x": PASTED},
            [[PASTED]],
            f"{PASTED}\ud800",
        ]
    )
    | st.integers(4_711_000_000, 4_711_999_999),
)
@settings(max_examples=200)
def test_whatever_is_pasted_wherever_no_error_quotes_it(path: tuple[Any, ...], pasted: Any) -> None:
    with TemporaryDirectory() as folder:
        file = Path(folder) / "routes.json"
        file.write_text(json.dumps(with_at(SAMPLE, path, pasted)), encoding="utf-8")
        try:
            open_routes(file, ENVIRONMENT)
        except ConfigurationError as refused:
            assert PASTED not in str(refused) and "4711" not in str(refused)


@pytest.mark.parametrize("path", list(places_in(SAMPLE)))
@pytest.mark.parametrize("value", [None, 1, float("inf")])
def test_what_is_pasted_as_a_key_is_not_quoted_either(
    tmp_path: Path, path: tuple[Any, ...], value: Any
) -> None:
    file = tmp_path / "routes.yaml"
    content = renamed_at(with_at(SAMPLE, path, value), path, PASTED)
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    with pytest.raises(ConfigurationError) as refused:
        open_routes(file, ENVIRONMENT)
    assert PASTED not in str(refused.value)


def test_the_unknown_key_of_a_slip_is_named(opened: Opened) -> None:
    with pytest.raises(ConfigurationError, match=r"routes\.0\.slack\.ulr: unknown key; did you mean 'url'"):
        opened({"slack": {"ulr": "${env:SLACK}"}})


ODD = [
    "*{}", "!{}", "!!int {}", "!!float {}", '"{}', "'{}", "&a {}: b: c", "{{{}", "[{}", "%{}", "@{}",
    "!!timestamp {}", "!!binary {}",
]  # fmt: skip


@pytest.mark.parametrize("wrong", ODD)
def test_no_error_of_yaml_quotes_a_password_of_odd_characters(tmp_path: Path, wrong: str) -> None:
    file = tmp_path / "routes.yaml"
    file.write_text(f"routes:\n- name: x\n  email: {{password: {wrong.format(PASTED)}}}\n", encoding="utf-8")
    with pytest.raises(ConfigurationError) as refused:
        open_routes(file, ENVIRONMENT)
    assert PASTED not in str(refused.value)


def test_what_is_named_may_lie_in_a_private_network(opened: Opened) -> None:
    allowed = ["10.0.0.7", "Desk.internal"]
    opened({"webhook": {**WEBHOOK, "url": "https://10.0.0.7/x"}}, private_hosts=allowed)
    opened({"webhook": {**WEBHOOK, "url": "http://desk.internal/x", "http": True}}, private_hosts=allowed)
    opened({"email": {**EMAIL, "server": "desk.internal", "security": "none"}}, private_hosts=allowed)
    with pytest.raises(ConfigurationError, match="is not encrypted"):
        opened({"webhook": {**WEBHOOK, "url": "http://desk.internal/x"}}, private_hosts=allowed)
    with pytest.raises(ConfigurationError, match="is link-local"):
        opened({"webhook": {**WEBHOOK, "url": "https://169.254.1.1/x"}}, private_hosts=["169.254.1.1"])


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_this_machine_needs_neither_a_name_nor_encryption(opened: Opened, host: str) -> None:
    assert opened({"webhook": {**WEBHOOK, "url": f"http://{host}:8080/x"}})


def test_two_routes_of_one_name_are_refused(opened: Opened) -> None:
    with pytest.raises(ConfigurationError, match="two routes are called 'desk'"):
        opened({"name": "desk", "webhook": WEBHOOK}, {"name": "desk", "webhook": WEBHOOK})


def test_the_file_of_the_page_can_be_used(tmp_path: Path) -> None:
    page = (Path(__file__).parents[4] / "docs" / "integrations.md").read_text(encoding="utf-8")
    text = page.split("```yaml\n# routes.yaml\n")[1].split("```")[0]
    (tmp_path / "pd").write_text(ENVIRONMENT["PD"], encoding="utf-8")
    file = tmp_path / "routes.yaml"
    file.write_text(text.replace("/run/secrets/pagerduty", str(tmp_path / "pd")), encoding="utf-8")
    known = {
        "DESK_SECRET": SECRET, "DESK_SECRET_BEFORE": OLDER_SECRET,
        "SLACK_WEBHOOK": ENVIRONMENT["SLACK"], "SMTP_PASSWORD": "p",
    }  # fmt: skip
    assert len(open_routes(file, known)) == 5
