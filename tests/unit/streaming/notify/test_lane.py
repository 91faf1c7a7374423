"""No alert is lost on its way, and none repeated but under its own key, whatever receivers and crashes do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import count, pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import ConfigurationError, FencedError
from schemas.routes import Route
from streaming.consume.received import PassedRecord, Received
from streaming.notify.lane import RouteLane
from streaming.notify.notices import Notice
from streaming.notify.opening import OpenRoute
from streaming.notify.outcomes import DELIVERED, DeliveryOutcome
from streaming.notify.state import StateFile
from streaming.store.files import Files, FileState
from streaming.store.opening import files_of
from streaming.store.place import Place
from tests.unit.streaming.notify.receivers import alert, received

MADE = datetime(2026, 1, 1, tzinfo=UTC)
FAILED, REFUSED = DeliveryOutcome("failed", "answered 500"), DeliveryOutcome("refused", "answered 400")


class CrashError(BaseException):
    """The process has died."""


class Topic:
    """A topic in memory, each record an alert, several partitions."""

    def __init__(self, alerts: Sequence[Received | PassedRecord]) -> None:
        self.alerts = list(alerts)
        self._places = dict[int, int]()

    def ends(self) -> dict[int, int]:
        return {each.partition: each.offset + 1 for each in self.alerts}

    def begin(self, places: Mapping[int, int]) -> dict[int, int]:
        self._places = {each.partition: places.get(each.partition, 0) for each in self.alerts}
        return dict(self._places)

    def fetch(self) -> list[Received | PassedRecord]:
        found = [each for each in self.alerts if each.offset >= self._places[each.partition]][:3]
        self._places |= {each.partition: each.offset + 1 for each in found}
        return found

    def has_grown(self) -> bool:
        return False

    def close(self) -> None:
        self._places = {}


class Scripted:
    """A receiver that takes one step of its script per attempt, and all once the script is over."""

    def __init__(self, script: Sequence[DeliveryOutcome | None] = ()) -> None:
        self.arrived, self._script = list[Notice](), list(script)

    def deliver(self, notice: Notice) -> DeliveryOutcome:
        outcome = self._script.pop(0) if self._script else DELIVERED
        if outcome in (DELIVERED, None):
            self.arrived.append(notice)
        if outcome is None:
            raise CrashError  # it has arrived, and nobody knows
        return outcome

    def close(self) -> None:
        """Nothing is held."""


class World:
    """One route over a topic, in processes that follow each other; time passes as it is waited for."""

    def __init__(self, folder: Path, topic: Topic, receiver: Scripted, **route: object) -> None:
        self.topic, self.receiver, self.now = topic, receiver, 0.0
        self.route = Route.model_validate(
            {"name": "desk", "begins": "oldest", "slack": {"url": "${env:S}"}, **route}
        )
        self.topic_name = "alerts"
        self.files: Files = files_of(Place.local(folder))

    def lane(self, closing: Callable[[], bool] = lambda: False) -> RouteLane:
        return RouteLane(
            OpenRoute(self.route, self.receiver), "payments", self.topic_name,
            StateFile(self.files, "desk"),
            lambda: Topic(self.topic.alerts), closing, lambda: self.now,
            lambda: MADE + timedelta(seconds=self.now),
        )  # fmt: skip

    def run(self, stride: float = 1.0) -> RouteLane:
        """Run one process until nothing waits; each pause takes `stride` times as long as it was to."""
        lane = self.lane()
        lane.begin()
        for _ in range(100_000):
            before = lane.state.places
            self.now += stride * lane.round()
            if lane.state.places == before == self.topic.ends() and lane.state.failing_since is None:
                break
        return lane


ALERTS = st.lists(
    st.tuples(st.integers(0, 4), st.integers(1, 3), st.sampled_from(["low", "high"]), st.integers(0, 1)),
    max_size=12,
)
STEPS = st.lists(st.sampled_from([DELIVERED, FAILED, REFUSED, None]), max_size=12)


def on_topic(sent: Sequence[tuple[int, int, str, int]]) -> list[Received]:
    offsets = [count(), count()]
    return [
        received(alert(number, revision, severity=severity), next(offsets[partition]), partition)
        for number, revision, severity, partition in sent
    ]


@settings(max_examples=40)  # each with files that are brought onto the disk
@given(ALERTS, STEPS)
def test_every_alert_arrives_or_is_set_aside_and_a_repetition_is_the_same_message(
    sent: list[tuple[int, int, str, int]], script: list[DeliveryOutcome | None]
) -> None:
    records, receiver = on_topic(sent), Scripted(script)
    with TemporaryDirectory() as folder:
        world = World(Path(folder), Topic(records), receiver, when={"severity": ["high"]})
        for _ in range(len(script) + 1):
            try:
                lane = world.run()
                break
            except CrashError:
                continue
        state = lane.state
    arrived = {each.message_id for each in receiver.arrived}
    aside = {each.message_id for each in state.set_aside}
    for each in records:
        number, revision = each.key
        newer = [other.key[1] for other in records if other.key[0] == number and other.key[1] > revision]
        wanted = each.alert["severity"] == "high"
        if wanted and not newer:
            assert Notice.of(each).message_id in arrived | aside
        if not wanted:
            same = [o for o in records if o.key == each.key and o.alert["severity"] == "high"]
            assert same or Notice.of(each).message_id not in arrived
    assert len(state.set_aside) == state.refused <= script.count(REFUSED)
    by_key: dict[str, set[bytes]] = {}
    for notice in receiver.arrived:
        by_key.setdefault(notice.message_id, set()).add(notice.body)
    bodies = {Notice.of(each).message_id: set[bytes]() for each in records}
    for each in records:
        bodies[Notice.of(each).message_id].add(Notice.of(each).body)
    assert all(found <= bodies[key] for key, found in by_key.items())


@settings(max_examples=20)  # as above
@given(st.integers(1, 12), st.lists(st.booleans(), max_size=12))
def test_without_a_crash_each_arrives_once_and_in_order(sent: int, failures: list[bool]) -> None:
    topic = Topic(on_topic([(number, 1, "high", 0) for number in range(sent)]))
    receiver = Scripted([FAILED if each else DELIVERED for each in failures])
    with TemporaryDirectory() as folder:
        state = World(Path(folder), topic, receiver).run().state
    assert [each.alert["alert_id"] for each in receiver.arrived] == [f"{n:032x}" for n in range(sent)]
    assert (state.delivered, state.refused, state.places) == (sent, 0, {0: sent})


def test_a_receiver_that_fails_is_left_alone_for_longer_and_longer(tmp_path: Path) -> None:
    world = World(tmp_path, Topic(on_topic([(1, 1, "high", 0)])), Scripted([FAILED] * 8))
    lane = world.lane()
    lane.begin()
    tried, before = list[float](), 8
    while not world.receiver.arrived:
        lane_pause = lane.round()
        left = len(world.receiver._script)
        if left < before:
            before = left
            tried.append(world.now)
        world.now += lane_pause
    pauses = [round(later - earlier) for earlier, later in pairwise(tried)]
    assert pauses[:3] == [0, 1, 30]
    assert pauses[2:] == sorted(pauses[2:])
    assert pauses[-1] >= 240
    assert lane.state.failing_since is None


def test_it_waits_as_long_as_the_receiver_asks_for(tmp_path: Path) -> None:
    script = [DeliveryOutcome("failed", "answered 429", 120.0)]
    world = World(tmp_path, Topic(on_topic([(1, 1, "high", 0)])), Scripted(script))
    world.run()
    assert 119.5 <= world.now <= 121


def test_an_alert_is_set_aside_after_a_day_and_younger_ones_still_arrive(tmp_path: Path) -> None:
    young = (MADE + timedelta(hours=23)).isoformat()
    old = received(alert(1), 0)
    topic = Topic([old, received(alert(2, created_at=young), 1)])

    class Dead(Scripted):
        def deliver(self, notice: Notice) -> DeliveryOutcome:
            return FAILED if world.now < 30 * 3600 else super().deliver(notice)

    world = World(tmp_path, topic, Dead())
    state = world.run(stride=1_000).state
    assert [each.message_id for each in state.set_aside] == [Notice.of(old).message_id]
    assert [each.alert["alert_id"] for each in world.receiver.arrived] == [f"{2:032x}"]
    assert (state.delivered, state.refused, state.failing_since) == (1, 1, None)


def test_a_new_route_takes_what_comes_from_then_on_even_if_it_dies_at_once(tmp_path: Path) -> None:
    topic = Topic(on_topic([(1, 1, "high", 0)]))
    world = World(tmp_path, topic, Scripted(), begins="newest")
    world.lane().begin()  # and dies
    topic.alerts.append(received(alert(2), 1))
    world.run()
    assert [each.alert["alert_id"] for each in world.receiver.arrived] == [f"{2:032x}"]


def test_alerts_that_move_to_another_topic_are_all_taken_there(tmp_path: Path) -> None:
    before = World(tmp_path, Topic(on_topic([(1, 1, "high", 0), (2, 1, "high", 0)])), Scripted())
    before.run()
    after = World(tmp_path, Topic(on_topic([(3, 1, "high", 0)])), Scripted(), begins="newest")
    after.topic_name = "moved"
    assert after.run().state.delivered == 3
    assert [each.alert["alert_id"] for each in after.receiver.arrived] == [f"{3:032x}"]


def test_another_process_for_the_same_route_ends_the_first(tmp_path: Path) -> None:
    world = World(tmp_path, Topic(on_topic([(n, 1, "high", 0) for n in range(3)])), Scripted())
    first, second = world.lane(), world.lane()
    first.begin()
    second.begin()
    second.round()
    with pytest.raises(FencedError, match="another process delivers for this route"):
        first.round()
    ids = [each.message_id for each in world.receiver.arrived]
    assert len(ids) - len(set(ids)) == 1


def test_a_lane_that_is_to_close_begins_no_further_delivery(tmp_path: Path) -> None:
    world = World(tmp_path, Topic(on_topic([(n, 1, "high", 0) for n in range(3)])), Scripted())
    lane = world.lane(lambda: len(world.receiver.arrived) == 2)
    lane.begin()
    lane.round()
    assert len(world.receiver.arrived) == 2
    assert world.run().state.delivered == 3


def test_a_file_that_is_no_state_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "desk.json").write_text('{"places": 7}', encoding="utf-8")
    world = World(tmp_path, Topic([]), Scripted())
    with pytest.raises(ConfigurationError, match=r"desk\.json: not the state of a route"):
        world.lane().begin()
    assert (tmp_path / "desk.json").read_text(encoding="utf-8") == '{"places": 7}'


def test_alerts_of_other_agents_are_passed_over(tmp_path: Path) -> None:
    world = World(tmp_path, Topic([PassedRecord(0, 0, no_alert=False), received(alert(2), 1)]), Scripted())
    state = world.run().state
    assert (state.places, state.unread) == ({0: 2}, 0)
    assert len(world.receiver.arrived) == 1


@settings(max_examples=20)  # each with files that are brought onto the disk
@given(ALERTS)
def test_a_route_of_first_revisions_delivers_each_first_revision_whatever_replaced_it(
    sent: list[tuple[int, int, str, int]],
) -> None:
    topic, receiver = Topic(on_topic(sent)), Scripted()
    with TemporaryDirectory() as folder:
        World(Path(folder), topic, receiver, when={"revisions": "first"}).run()
    arrived = [each.message_id for each in receiver.arrived]
    assert arrived == [f"msg_{number:032x}_1" for number, revision, _, _ in sent if revision == 1]


JUNK: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
READ = [
    "severity", "classification", "classification_source", "currency", "event_time", "created_at", "score",
    "amount", "entities", "rules", "reasons", "agent",
]  # fmt: skip


@settings(max_examples=60)  # as above
@given(st.sampled_from(READ), JUNK, st.booleans())
def test_no_record_stops_a_route_and_what_is_passed_over_is_counted(
    name: str, junk: Any, absent: bool
) -> None:
    odd = alert(1)
    odd = {each: value for each, value in odd.items() if each != name} if absent else {**odd, name: junk}
    records: list[Received | PassedRecord] = [
        received(odd, 0),
        PassedRecord(0, 1, no_alert=True),
        received(alert(2), 2),
    ]

    class Telling(Scripted):
        def deliver(self, notice: Notice) -> DeliveryOutcome:
            assert notice.title and notice.lines(ids=True) and orjson.loads(notice.body)
            return super().deliver(notice)

    with TemporaryDirectory() as folder:
        world = World(Path(folder), Topic(records), Telling())
        state = world.run().state
    assert state.places == {0: 3}
    assert state.delivered + state.unread == 3
    assert world.receiver.arrived[-1].alert["alert_id"] == f"{2:032x}"


@pytest.mark.parametrize("bad", [{"alert_id": "a\r\nb"}, {"alert_id": ""}, {"revision": 0}])
def test_an_alert_without_a_key_of_its_own_is_passed_over(tmp_path: Path, bad: dict[str, Any]) -> None:
    world = World(tmp_path, Topic([received({**alert(1), **bad}), received(alert(2), 1)]), Scripted())
    state = world.run().state
    assert (state.delivered, state.unread) == (1, 1)


def test_how_long_a_receiver_fails_is_counted_anew_by_the_next_process(tmp_path: Path) -> None:
    world = World(tmp_path, Topic([received(alert(1))]), Scripted([FAILED, FAILED]))
    first = world.lane()
    first.begin()
    first.round()
    assert first.state.failing_since is not None
    world.now = timedelta(days=3).total_seconds()
    state = world.run().state
    assert (state.delivered, state.refused) == (1, 0)


def test_who_of_several_has_a_notice_is_known_to_the_next_process_until_it_is_done(tmp_path: Path) -> None:
    partly = DeliveryOutcome("failed", "x", had=("a",))
    seen = list[tuple[str, ...]]()

    class Several(Scripted):
        def deliver(self, notice: Notice) -> DeliveryOutcome:
            seen.append(notice.had)
            return super().deliver(notice)

    world = World(tmp_path, Topic([received(alert(1)), received(alert(2), 1)]), Several([partly]))
    first = world.lane()
    first.begin()
    first.round()
    state = world.run().state
    assert seen == [(), ("a",), ()]
    assert (state.delivered, state.had) == (2, {})


class Comparing:
    """Files as an object store keeps them: two states of one content are the same."""

    def __init__(self) -> None:
        self.held = dict[str, bytes]()
        self.place = Place.local(Path("beside"))

    def read(self, name: str) -> FileState | None:
        return FileState(self.held[name], self.held[name]) if name in self.held else None

    def create(self, name: str, content: bytes) -> FileState | None:
        return self._put(name, content, None)

    def replace(self, name: str, content: bytes, held: FileState) -> FileState | None:
        return self._put(name, content, held.content)

    def remove(self, name: str) -> None:
        del self.held[name]

    def names(self) -> list[str]:
        return sorted(self.held)

    def _put(self, name: str, content: bytes, before: bytes | None) -> FileState | None:
        if self.held.get(name) not in (before, content):
            return None
        self.held[name] = content
        return FileState(content, content)


def test_two_that_write_the_same_state_into_a_store_are_told_apart(tmp_path: Path) -> None:
    world = World(tmp_path, Topic(on_topic([(1, 1, "high", 0)])), Scripted())
    world.files = Comparing()
    first, second = world.lane(), world.lane()
    first.begin()
    second.begin()
    second.round()
    with pytest.raises(FencedError, match="another process delivers for this route"):
        first.round()
