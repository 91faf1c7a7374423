"""No change of a case is lost on its way, and whoever hears of one twice hears the same."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.cases import CaseChange
from schemas.routes import Route, When
from streaming.notify.case_changes import CASES, CaseChangeReader, CaseNotice
from streaming.notify.lane import RouteLane
from streaming.notify.opening import OpenRoute
from streaming.notify.outcomes import DELIVERED, DeliveryOutcome
from streaming.notify.sample import sample_change
from streaming.notify.state import RouteState, StateFile
from streaming.store.opening import files_of
from streaming.store.place import Place
from tests.unit.streaming.notify.test_lane import FAILED, MADE, REFUSED, CrashError, Scripted

CHANGES: tuple[CaseChange, ...] = get_args(CaseChange)


def event(number: int, change: CaseChange, severity: str = "high", **more: Any) -> dict[str, Any]:
    """A change as the table of case events has it."""
    found = sample_change("payments", change)
    case = {**found["case"], "severity": severity}
    return {**found, "number": number, "case_id": f"{number % 3:016x}", "case": case, **more}


class Events:
    """Case events in memory, some of them at a time."""

    def __init__(self, events: Sequence[dict[str, Any]]) -> None:
        self.events = list(events)

    def next_number(self) -> int:
        return max((each["number"] + 1 for each in self.events), default=0)

    def end(self) -> int:
        return self.next_number()

    def since(self, first: int, wanted: Collection[CaseChange]) -> list[dict[str, Any]]:
        later = [each for each in self.events if each["number"] >= first]
        return [each for each in later if CaseNotice.of_change("payments", each).change in wanted][:3]


class World:
    """One route of cases, in processes that follow each other; time passes as it is waited for."""

    def __init__(self, folder: Path, events: Events, receiver: Scripted, **route: object) -> None:
        given = {"name": "desk", "begins": "oldest", "slack": {"url": "${env:S}"}, **route}
        self.route, self.events, self.receiver = Route.model_validate(given), events, receiver
        self.files, self.now, self.idle = files_of(Place.local(folder)), 0.0, 0

    def lane(self) -> RouteLane:
        wanted = self.route.when.case
        return RouteLane(
            OpenRoute(self.route, self.receiver), "payments", CASES, StateFile(self.files, "desk"),
            lambda: CaseChangeReader(self.events, "payments", wanted, self.wait),
            lambda: False, lambda: self.now,
            lambda: MADE + timedelta(seconds=self.now),
        )  # fmt: skip

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.idle += 1

    def run(self) -> RouteState:
        """Run one process until there is nothing to tell."""
        lane = self.lane()
        lane.begin()
        self.idle = 0
        while not self.idle:
            self.now += lane.round()
        return lane.state


HISTORIES = st.lists(
    st.tuples(st.integers(1, 3), st.sampled_from(CHANGES), st.sampled_from(["low", "critical"])), max_size=12
)
STEPS = st.lists(st.sampled_from([DELIVERED, FAILED, REFUSED, None]), max_size=12)


def history(steps: Sequence[tuple[int, CaseChange, str]]) -> list[dict[str, Any]]:
    """Numbers with gaps: what lies between is of no route."""
    numbers = [sum(gap for gap, _, _ in steps[: place + 1]) for place in range(len(steps))]
    return [
        event(number, change, severity) for number, (_, change, severity) in zip(numbers, steps, strict=True)
    ]


@settings(max_examples=40)  # each with files that are brought onto the disk
@given(HISTORIES, STEPS)
def test_every_change_arrives_or_is_set_aside_under_one_key_however_processes_die(
    steps: list[tuple[int, CaseChange, str]], script: list[DeliveryOutcome | None]
) -> None:
    happened, receiver = history(steps), Scripted(script)
    when = {"case": ["escalated", "closed_fraud"], "severity": ["critical"]}
    with TemporaryDirectory() as folder:
        world = World(Path(folder), Events(happened), receiver, when=when)
        for _ in range(len(script) + 1):
            try:
                state = world.run()
                break
            except CrashError:
                continue
    notices = [CaseNotice.of_change("payments", each) for each in happened]
    wanted = {each.message_id: each.body for each in notices if each.is_wanted(world.route.when)}
    aside = {each.message_id for each in state.set_aside}
    assert {each.message_id for each in receiver.arrived} | aside == wanted.keys()
    assert all(each.body == wanted[each.message_id] for each in receiver.arrived)
    places = [each.alert["number"] for each in receiver.arrived]
    assert places == sorted(places), "a repetition follows its first, and nothing is overtaken"
    assert len(receiver.arrived) <= len(wanted) + script.count(None)


@given(st.sampled_from(CHANGES), st.lists(st.sampled_from(CHANGES), unique=True, min_size=1))
def test_a_route_takes_the_changes_that_it_names_and_no_others(
    change: CaseChange, named: list[CaseChange]
) -> None:
    notice = CaseNotice.of_change("payments", event(1, change))
    assert notice.change == change
    assert notice.is_wanted(When.model_validate({"case": named})) == (change in named)
    assert not notice.is_wanted(When.model_validate({"case": named, "severity": ["low"]}))
    assert not notice.is_wanted(When()), "a route of alerts takes no cases"


def test_a_route_that_goes_over_from_alerts_to_cases_takes_what_comes_from_then_on(tmp_path: Path) -> None:
    world = World(
        tmp_path, Events([event(4, "escalated")]), Scripted(), when={"case": ["escalated"]}, begins="newest"
    )
    StateFile(world.files, "desk").write(RouteState("alerts", {0: 2, 1: 7}, delivered=5))
    assert world.run().places == {0: 5}
    world.events.events.append(event(6, "escalated"))
    state = world.run()
    assert [each.alert["number"] for each in world.receiver.arrived] == [6]
    assert (state.delivered, state.places) == (6, {0: 7})


def test_a_lake_that_was_set_back_is_read_on_from_its_end(tmp_path: Path) -> None:
    world = World(tmp_path, Events([event(4, "escalated")]), Scripted(), when={"case": ["escalated"]})
    StateFile(world.files, "desk").write(RouteState(CASES, {0: 90}))
    world.run()
    world.events.events.append(event(5, "escalated"))
    world.run()
    assert [each.alert["number"] for each in world.receiver.arrived] == [5]


def test_people_read_no_id_that_they_were_not_to_and_no_link() -> None:
    notice = CaseNotice.of_change(
        "payments", event(1, "closed_fraud", text="see https://evil.example @all\n<b>")
    )
    hidden, shown = ("\n".join(notice.lines(ids=ids)) for ids in (False, True))
    assert "sample-customer" not in hidden
    assert "sample-customer" in shown
    assert "https://" not in shown and "@" not in shown
    assert notice.title == "high: case closed fraud (payments)"
    body = json.loads(notice.body)
    assert (body["type"], body["data"]["reason"]) == ("case.closed", "fraud")
    assert datetime.fromisoformat(body["timestamp"]).tzinfo is not None


@pytest.mark.parametrize("more", [{"classification": ["card_testing"]}, {"revisions": "first"}])
def test_what_only_alerts_have_is_refused_beside_changes_of_cases(more: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="`case` takes none"):
        When.model_validate({"case": ["escalated"], **more})
