"""What integrators build on is made of the code, officially valid, and true of what an agent sends."""

from __future__ import annotations

import gzip
import json
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import orjson
import pytest
from typer.testing import CliRunner

from schemas.alert_documents import alert_json_schema
from streaming.cli.root import app
from streaming.commands.asyncapi import asyncapi_document
from streaming.notify.notices import Notice
from streaming.testing.live_lake import agent, events
from streaming.testing.trial import trial

ROOT = Path(__file__).parents[4]
OFFICIAL = ROOT / "tests" / "fixtures" / "asyncapi" / "asyncapi-3.0.0.json.gz"


@cache
def official() -> jsonschema.Draft7Validator:
    return jsonschema.Draft7Validator(json.loads(gzip.decompress(OFFICIAL.read_bytes())))


@pytest.mark.parametrize(
    ("page", "words"), [("asyncapi.json", "asyncapi"), ("alert.schema.json", "alert-schema")]
)
def test_the_pages_for_programs_are_what_the_code_says(page: str, words: str) -> None:
    printed = CliRunner().invoke(app, ["spec", words])
    assert printed.exit_code == 0
    kept = (ROOT / "docs" / page).read_text(encoding="utf-8")
    assert kept == printed.output, f"flagstream spec {words} > docs/{page}"


def test_the_document_is_valid_by_the_official_schema() -> None:
    official().validate(asyncapi_document())


@pytest.mark.parametrize(
    "path",
    [("info", "version"), ("channels", "alerts", "messages"), ("operations", "publishAlert", "action")],
)
def test_the_official_schema_would_say_what_is_wrong(path: tuple[str, ...]) -> None:
    document = asyncapi_document()
    *above, last = path
    part = document
    for each in above:
        part = part[each]
    part[last] = 7
    assert not official().is_valid(document)


def test_every_reference_leads_to_something() -> None:
    document, found = asyncapi_document(), []

    def follow(part: Any) -> None:
        if isinstance(part, dict):
            if "$ref" in part:
                target: Any = document
                for name in part["$ref"].removeprefix("#/").split("/"):
                    target = target[name]
                found.append(part["$ref"])
            for each in part.values():
                follow(each)
        if isinstance(part, list):
            for each in part:
                follow(each)

    follow(document)
    assert len(found) >= 6


def test_alerts_of_an_agent_fit_both_and_no_other_document_does(tmp_path: Path) -> None:
    payments = events(300)
    payments[-1]["amount"] = 900_000.0
    with trial(tmp_path, agent()) as tried:
        tried.send(payments[:150])
        tried.send(payments[150:])
        raised = tried.alerts
    assert len(raised) >= 1
    shown = jsonschema.Draft7Validator(asyncapi_document()["components"]["schemas"]["alert"])
    plain = jsonschema.Draft202012Validator(alert_json_schema())
    for alert in raised:
        for validator in (shown, plain):
            validator.validate(alert)
            assert not validator.is_valid({**alert, "severity": "dire"})
            assert not validator.is_valid({**alert, "more": 1})
            assert not validator.is_valid({name: alert[name] for name in alert if name != "alert_id"})
    posted = jsonschema.Draft7Validator(
        {**asyncapi_document(), "$ref": "#/components/messages/webhookAlert/payload"}
    )
    for alert in raised:
        body = json.loads(Notice(alert, orjson.dumps(alert)).body)
        posted.validate(body)
        assert not posted.is_valid({**body, "data": {**alert, "severity": "dire"}})
