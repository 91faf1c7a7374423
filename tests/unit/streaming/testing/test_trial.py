from __future__ import annotations

import re
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent import SPECS
from schemas.errors import ConfigurationError
from schemas.spec import load_spec
from streaming.testing.scripted_llm import fails, scripted_llm
from streaming.testing.trial import trial

PAGE = Path(__file__).parents[4] / "docs" / "testing.md"


@pytest.fixture
def page(tmp_path: Path) -> dict[str, Any]:
    """What the page's first example defines."""
    code, *_ = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    path = tmp_path / "example.py"
    path.write_text(code, encoding="utf-8")
    return runpy.run_path(str(path))


@pytest.fixture
def payment(page: dict[str, Any]) -> Callable[[int, float], dict[str, Any]]:
    made: Callable[[int, float], dict[str, Any]] = page["payment"]
    return made


def test_the_example_of_the_page_passes(page: dict[str, Any], tmp_path: Path) -> None:
    page["test_a_large_payment_is_classified"](tmp_path, SPECS / "card-fraud.yaml")


def test_the_example_of_the_page_fails_where_the_agent_decides_otherwise(
    page: dict[str, Any], tmp_path: Path
) -> None:
    lenient = load_spec(SPECS / "card-fraud.yaml").model_copy(update={"rules": ()})
    with pytest.raises(AssertionError):
        page["test_a_large_payment_is_classified"](tmp_path, lenient)


def test_an_agent_opened_again_goes_on(payment: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    for number in (1, 2):
        with trial(tmp_path, SPECS / "card-fraud.yaml") as agent:
            agent.send([payment(1, 20_000), payment(number, 20_000)])
    assert [alert["transaction_id"] for alert in agent.alerts] == ["t1", "t2"]
    assert agent.stored("duplicates", "offset").num_rows == 2
    assert agent.replay().differences == ()


def test_a_model_that_fails_leaves_the_label_of_the_rules(
    payment: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    with (
        scripted_llm(default=fails(400)) as server,
        trial(tmp_path, SPECS / "card-fraud.yaml", server) as agent,
    ):
        agent.send([payment(1, 20_000)])
    (alert,) = agent.alerts
    assert (alert["classification_source"], alert["severity"]) == ("rules", "high")
    assert alert["fallback_reason"] is not None


def test_nothing_sent_is_nothing_stored(tmp_path: Path) -> None:
    with trial(tmp_path, SPECS / "card-fraud.yaml") as agent:
        assert (agent.alerts, agent.rejected) == ([], [])


def test_a_spec_that_cannot_be_used_says_why(tmp_path: Path) -> None:
    spec = load_spec(SPECS / "card-fraud.yaml").model_copy(update={"policy": "no-such"})
    with pytest.raises(ConfigurationError, match="no-such"), trial(tmp_path, spec):
        pass
