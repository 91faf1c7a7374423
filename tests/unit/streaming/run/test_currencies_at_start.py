"""What a run says of currencies when it starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest

from schemas.spec import AgentSpec
from streaming.run import currencies
from streaming.run.currencies import log_currencies, stored_currencies
from streaming.store.place import Place
from streaming.testing.live_lake import agent, events
from streaming.testing.trial import trial


class LakeAt(NamedTuple):
    """An agent of which nothing counts but where its lake lies."""

    lake: Place
    spec: AgentSpec


def lake_of(folder: Path, spec: AgentSpec, paid_in: list[str]) -> Path:
    payments = [{**each, "currency": code} for each, code in zip(events(len(paid_in)), paid_in, strict=True)]
    with trial(folder, spec) as tried:
        tried.send(payments[:10])
        tried.send(payments[10:])
        return tried.settings.lake(spec.name).path


@pytest.mark.parametrize(
    ("paid_in", "how", "found", "said"),
    [
        (["EUR"] * 20, "mixed", ["EUR"], False),
        (["EUR"] * 10 + ["JPY"] * 10, "mixed", ["EUR", "JPY"], True),
        (["EUR", "JPY"] * 10, "mixed", ["EUR", "JPY"], True),
        (["EUR", "JPY"] * 10, "scaled", ["EUR", "JPY"], False),
    ],
)
def test_several_currencies_that_are_compared_as_they_stand_are_pointed_out(
    paid_in: list[str],
    how: str,
    found: list[str],
    said: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    logged: list[str] = []
    monkeypatch.setattr(currencies, "log", lambda _, text, **__: logged.append(text))
    profiles: dict[str, Any] = {"block_rows": 64, "checkpoint_rows": 150, "currencies": how}
    spec = agent(profiles=profiles)
    lake = lake_of(tmp_path, spec, paid_in)
    placed = LakeAt(Place.local(lake), spec)
    log_currencies(placed)
    assert stored_currencies(placed) == found
    assert [("EUR, JPY" in text) for text in logged] == [True] * said


def test_before_the_first_payment_there_is_nothing_to_say(tmp_path: Path) -> None:
    assert stored_currencies(LakeAt(Place.local(tmp_path), agent())) == []


def test_a_stream_in_several_currencies_is_decided_anew_alike(tmp_path: Path) -> None:
    paid_in = ["EUR", "JPY", "KWD"] * 150
    payments = [{**each, "currency": code} for each, code in zip(events(450), paid_in, strict=True)]
    spec = agent(profiles={"block_rows": 64, "checkpoint_rows": 150, "currencies": "scaled"})
    with trial(tmp_path, spec) as tried:
        tried.send(payments[:200])
    with trial(tmp_path, spec) as tried:
        tried.send(payments[200:])
        assert tried.alerts
        assert tried.replay().differences == ()
