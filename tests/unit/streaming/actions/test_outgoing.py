"""Jobs and notices against real loopback servers: what is sent, to whom, and what is never sent."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from pydantic import SecretStr

from agent.planning.catalogue import JobParameter
from schemas.errors import ConfigurationError, RetryableError
from schemas.policy import LOG, JobLimits
from streaming.actions.outgoing import notify, run_job
from streaming.testing.scripted_http import HttpAnswer, ScriptedHttp, handled_http, scripted_http

SUBMIT = "/api/2.2/jobs/runs/submit"
KEY = SecretStr("dapi-s3cr3t")
DAY = (JobParameter(name="day", value="2026-05-01"),)
TOKEN = "f" * 64


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def limits(server: ScriptedHttp, **changes: object) -> JobLimits:
    return JobLimits.model_validate(
        {"notebooks": ["/Shared/refit"], "submit": True, "workspace": server.url, **changes}
    )


def test_a_job_is_submitted_with_its_parameters_and_its_token() -> None:
    with scripted_http() as server:
        server.answers[SUBMIT] = HttpAnswer(body={"run_id": 77})
        found = run_job("/Shared/refit", DAY, limits(server), TOKEN, KEY)
        (asked,) = server.to(SUBMIT)
    assert (found.facts["submitted"], found.facts["job_run_id"], found.dry_run) == (True, 77, False)
    assert asked.headers["authorization"] == "Bearer dapi-s3cr3t"
    assert asked.body["idempotency_token"] == TOKEN
    (task,) = asked.body["tasks"]
    assert task["notebook_task"] == {
        "notebook_path": "/Shared/refit",
        "base_parameters": {"day": "2026-05-01"},
    }
    assert "existing_cluster_id" not in task


def test_a_job_runs_on_the_cluster_that_the_policy_names() -> None:
    with scripted_http() as server:
        server.answers[SUBMIT] = HttpAnswer(body={"run_id": 1})
        run_job("/Shared/refit", (), limits(server, cluster="0501-abc"), TOKEN, KEY)
        assert server.to(SUBMIT)[0].body["tasks"][0]["existing_cluster_id"] == "0501-abc"


def test_without_leave_to_submit_nothing_is_sent() -> None:
    with scripted_http() as server:
        found = run_job("/Shared/refit", DAY, limits(server, submit=False), TOKEN, KEY)
        assert server.asked == []
    assert found.dry_run
    assert found.facts["submitted"] is False


def test_a_workspace_that_refuses_or_a_missing_key_is_an_error_without_the_key() -> None:
    with scripted_http() as server:
        server.answers[SUBMIT] = HttpAnswer(
            403, {"error_code": "PERMISSION_DENIED", "message": "dapi-s3cr3t"}
        )
        with pytest.raises(RetryableError, match="answered 403") as caught:
            run_job("/Shared/refit", DAY, limits(server), TOKEN, KEY)
        assert "s3cr3t" not in str(caught.value)
        with pytest.raises(ConfigurationError, match="DATABRICKS_TOKEN"):
            run_job("/Shared/refit", DAY, limits(server), TOKEN, None)


@pytest.mark.parametrize("key", ["dapi-s3cr3t\n", "dapi-s3cr3t\u2028"])
def test_a_token_that_no_header_can_hold_is_an_error_without_it(key: str) -> None:
    with scripted_http() as server:
        with pytest.raises(ConfigurationError, match="nothing can be sent to the workspace") as caught:
            run_job("/Shared/refit", DAY, limits(server), TOKEN, SecretStr(key))
        assert server.asked == []
    assert "s3cr3t" not in str(caught.value)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_job_is_not_sent_where_a_workspace_redirects_to(status: int) -> None:
    with scripted_http(elsewhere=HttpAnswer(body={"run_id": 1})) as server:
        server.answers[SUBMIT] = HttpAnswer(status, headers={"location": f"{server.url}/elsewhere"})
        with pytest.raises(RetryableError, match=f"answered {status}"):
            run_job("/Shared/refit", DAY, limits(server), TOKEN, KEY)
        assert server.to("/elsewhere") == []


def test_answers_are_read_up_to_a_limit(tmp_path: Path) -> None:
    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while True:
            handler.wfile.write(b" " * 65_536)

    with handled_http(endless) as url:
        with pytest.raises(RetryableError, match="the webhook answered with more than 1 MiB"):
            notify(url, "x", tmp_path / "log")
        with pytest.raises(RetryableError, match="the workspace answered with more than 1 MiB"):
            run_job("/Shared/refit", DAY, JobLimits(submit=True, workspace=url), TOKEN, KEY)


@pytest.mark.parametrize("body", [{}, {"run_id": None}, {"run_id": "x"}, {"run_id": float("inf")}])
def test_a_workspace_that_names_no_run_is_an_error(body: dict[str, object]) -> None:
    with scripted_http() as server:
        server.answers[SUBMIT] = HttpAnswer(body=body)
        with pytest.raises(RetryableError, match="which run"):
            run_job("/Shared/refit", DAY, limits(server), TOKEN, KEY)


def test_a_notice_goes_to_its_address_as_json(tmp_path: Path) -> None:
    with scripted_http(hook=HttpAnswer()) as server:
        found = notify(f"{server.url}/hook", "40 alerts at m1", tmp_path / "log")
        (asked,) = server.asked
    assert (asked.method, asked.path, asked.body) == ("POST", "/hook", {"text": "40 alerts at m1"})
    assert found.facts["delivered"] is True
    assert not (tmp_path / "log").exists()


def test_a_notice_follows_no_redirect_and_keeps_the_address_to_itself(tmp_path: Path) -> None:
    with scripted_http(elsewhere=HttpAnswer()) as server:
        server.answers["/hook-s3cr3t"] = HttpAnswer(302, headers={"location": f"{server.url}/elsewhere"})
        for path in ("hook-s3cr3t", "absent-s3cr3t"):
            with pytest.raises(RetryableError, match=r"answered (302|404)") as caught:
                notify(f"{server.url}/{path}", "x", tmp_path / "log")
            assert "s3cr3t" not in str(caught.value)
        assert server.to("/elsewhere") == []


def test_a_notice_to_nobody_is_an_error(tmp_path: Path) -> None:
    with scripted_http() as server:
        gone = server.url
    with pytest.raises(RetryableError, match="does not answer"):
        notify(f"{gone}/hook", "x", tmp_path / "log")


def test_a_notice_to_the_log_is_one_line_whatever_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "notices" / "tester.jsonl"
    for message in ("first", 'second\n{"text": "forged"}'):
        notify(LOG, message, path)
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert lines == [{"text": "first"}, {"text": 'second\n{"text": "forged"}'}]
