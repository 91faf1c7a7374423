"""Erasure on a real lake: nothing of an id is left anywhere, and everything that follows from rows stays."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import hypothesis
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.triage.ledger import Intent, RecordedAnswer
from agent.triage.pseudonyms import Pseudonyms
from schemas.erasure import is_token
from schemas.errors import ConfigurationError
from schemas.lake_tables import Table
from schemas.spec import AgentSpec
from schemas.tables import LEDGER
from streaming.audit.audit_check import check_audit
from streaming.audit.audit_log import AuditPlaces
from streaming.audit.audit_reading import newest_events
from streaming.definition.agent_definition import AgentDefinition
from streaming.delta.erasure_plan import Erasable
from streaming.delta.lake_reader import LakeReader
from streaming.delta.lake_table import LakeTable
from streaming.delta.ledger import LakeLedger
from streaming.erasure.erasing import Erased, Erasure
from streaming.history.replay_runs import ReplaySpan, run_replay
from streaming.history.snapshot_copy import create_snapshot
from streaming.home.placed_agent import PlacedAgent
from streaming.home.pseudonym_key import pseudonym_key
from streaming.home.settings import Settings
from streaming.service.health import Health
from streaming.testing.live_lake import CONTRACT, agent, events, judge, run_live, without_broker

pytestmark = pytest.mark.timeout(300)
ROWS = 700
# Whom to erase: an id as most are, one that JSON and composed ids write otherwise, and one of another kind.
SUBJECTS = (
    Erasable("customer", "kundin-4711x"),
    Erasable("customer", 'K|"ä"\\9'),
    Erasable("terminal", "kiosk-0815"),
)
IDS = tuple(each.id for each in SUBJECTS)
SAID = "call me at home"
OTHERS = 120  # a payment of somebody else that mentions the first of them


def spec() -> AgentSpec:
    return agent(
        profiles={"block_rows": 64, "checkpoint_rows": 150, "pairs": [["customer", "terminal"]]},
        detectors={"habit": {"enabled": True, "entities": ["customer"]}},
    )


def told(count: int = ROWS, ids: Sequence[str] = IDS, *, texts: bool = True) -> list[dict[str, Any]]:
    """Return payments of three entities with these ids; texts, and ids of payments, mention them."""
    first, second, kiosk = ids
    found = events(count)
    for number, each in enumerate(found):
        if each["customer_id"] in ("c1", "c2"):
            each["customer_id"] = mine = first if each["customer_id"] == "c1" else second
            each["memo"] = f"{SAID}, {mine}" if texts else None
        if each["customer_id"] == first:
            each["tx_id"] = f"{first}-{number}"
        if each["terminal_id"] == "m3":
            each["terminal_id"] = kiosk
            each["memo"] = f"{SAID} at {kiosk}" if texts else None
        if number == OTHERS:
            each.update(customer_id="c5", terminal_id="m7", memo=f"sent on to {first}, thanks")
    return found


def broken(names: Sequence[str] = IDS) -> list[dict[str, Any]]:
    """Return payments that are rejected, since their amount is none."""
    return [
        {**events(1)[0], "tx_id": f"r{n}", "customer_id": name, "amount": -1} for n, name in enumerate(names)
    ]


def ask(settings: Settings, name: str) -> None:
    """Have a model asked about somebody under a pseudonym, and answer."""
    pseudonym = Pseudonyms(pseudonym_key(settings)).token("customer", name, {})
    place = tables(settings).place("ledger")
    opened = LakeTable(place, LEDGER, "tester/epoch", spec().replay_horizon)
    opened.claim(opened.epoch + 1)
    ledger = LakeLedger(opened, "tester", lambda: datetime(2026, 5, 2, tzinfo=UTC))
    facts = {"alerts": 1, "examples": [{"entities": {"customer": pseudonym}, "texts": {"memo": SAID}}]}
    asked = Intent(
        key="k1", prompt_id="p", prompt_version=1, model="m", canonical_input=json.dumps(facts)
    )  # fmt: skip
    ledger.intend([asked])
    answer = RecordedAnswer(
        key="k1", prompt_id="p", prompt_version=1, model="m", input_tokens=1, output_tokens=1,
        classification="needs_review", severity="high", rationale=f"{pseudonym} says {SAID}",
        evidence=(f"customer={pseudonym}",),
    )  # fmt: skip
    ledger.record([answer])


def live(settings: Settings, ids: Sequence[str], count: int) -> None:
    """Have an agent live with labels, a snapshot, rejected records, and answers of a model."""
    home, stream = settings.home, told(count, ids)
    half = count // 180 * 90
    with pytest.MonkeyPatch.context() as patch:
        without_broker(patch)
        run_live(PlacedAgent(settings, spec()), stream[:half])
        judge(PlacedAgent(settings, spec()), [each["tx_id"] for each in stream[:half:9]])
        run_live(PlacedAgent(settings, spec()), [*stream[half:], *broken(ids)], first_batch=10)
    ask(settings, ids[0])
    wanted = ReplaySpan(from_version=0)
    span = wanted.span(wanted.history(PlacedAgent(settings, spec())))
    create_snapshot(settings, AgentDefinition.pinned(spec(), CONTRACT), "kept", span)
    (home / "notices").mkdir()
    (home / "notices" / "tester.jsonl").write_text(json.dumps({"message": f"mind {ids[0]}"}) + "\n")


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    live(Settings.load(home, {}), IDS, ROWS)
    return home


@pytest.fixture
def settings(lived: Path, tmp_path: Path) -> Settings:
    shutil.copytree(lived, tmp_path / "home")
    return Settings.load(tmp_path / "home", {})


def tables(settings: Settings) -> LakeReader:
    return LakeReader(settings.lake("tester"), spec().tables)


def erase(settings: Settings) -> Erased:
    return Erasure(PlacedAgent(settings, spec())).run(SUBJECTS, "anna", "asked for it by letter")


def texts_in(path: Path) -> Iterator[str]:
    """Yield all that a file says: its bytes, and what is compressed or encoded in it."""
    raw = path.read_bytes()
    yield raw.decode("utf-8", "replace")
    if path.suffix == ".parquet":
        yield repr(pq.read_table(path).to_pylist())
        meta = pq.read_metadata(path)
        yield repr([meta.row_group(n).to_dict() for n in range(meta.num_row_groups)])
    if path.suffix == ".arrow":
        with pa.ipc.open_file(path) as reader:
            yield repr(reader.read_all().to_pylist())


def naming(home: Path, ids: Sequence[str]) -> list[str]:
    forms = {
        form
        for each in ids
        for form in (each, json.dumps(each)[1:-1], repr(each)[1:-1], repr(each.encode())[2:-1])
    }
    files = sorted(path for path in home.rglob("*") if path.is_file())
    return [
        f"{path.relative_to(home)}: {form}"
        for path in files
        for text in texts_in(path)
        for form in forms
        if form in text
    ]


def test_ids_stand_in_every_place_before(lived: Path) -> None:
    held = {each.split("/")[2] for each in naming(lived, IDS) if each.startswith("lake/tester/")}
    assert {"transactions", "alerts", "labels", "quarantine", "snapshots", "duplicates"} - {
        "duplicates"
    } <= held
    assert any(each.startswith("profiles/") for each in naming(lived, IDS))


def test_nothing_of_an_id_or_its_texts_is_left(settings: Settings) -> None:
    pseudonym = Pseudonyms(pseudonym_key(settings)).token("customer", IDS[0], {})
    erased = erase(settings)
    assert all(map(is_token, erased.tokens))
    assert len(set(erased.tokens)) == len(SUBJECTS)
    assert naming(settings.home, (*IDS, SAID, pseudonym)) == []
    assert not erased.kept
    assert erased.young == 0
    rows = erased.rows
    assert rows["quarantine"] == len(SUBJECTS)
    assert rows["transactions"] > 50
    assert rows["ledger"] == 2


def test_what_had_made_room_when_a_process_ended_is_erased_as_well(settings: Settings) -> None:
    """A snapshot, and a checkpoint: each is there under another name, and would be put back later."""
    kept = settings.snapshots("tester").path / "kept"
    kept.rename(kept.with_name(".replaced-kept"))
    newest = max(settings.profiles("tester").path.glob("**/manifest.json")).parent
    newest.rename(newest.with_name(f".replaced-{newest.name}"))
    assert erase(settings).snapshots == 1
    assert (kept / "manifest.json").is_file()
    assert naming(settings.home, (*IDS, SAID)) == []


LETTERS = "abcdefgh0123456789-_.|\"\\ /äß€🙂'%"
NAMES = st.text(LETTERS, min_size=1, max_size=12).map(lambda text: f"zq{text}7v")


@given(st.lists(NAMES, min_size=3, max_size=3, unique=True))
@hypothesis.settings(max_examples=3, deadline=None)
def test_nothing_is_left_of_any_id_in_any_role(ids: list[str]) -> None:
    wanted = [Erasable("customer", ids[0]), Erasable("customer", ids[1]), Erasable("terminal", ids[2])]
    with tempfile.TemporaryDirectory() as folder:
        live(Settings.load(Path(folder), {}), ids, 270)
        held = {each.split("/")[2] for each in naming(Path(folder), ids) if each.startswith("lake/tester/")}
        assert {"transactions", "alerts", "labels", "quarantine", "snapshots"} <= held
        Erasure(PlacedAgent(Settings.load(Path(folder), {}), spec())).run(
            wanted, "anna", "asked for it by letter"
        )
        assert naming(Path(folder), (*ids, SAID)) == []
        assert (
            run_replay(PlacedAgent(Settings.load(Path(folder), {}), spec()), ReplaySpan()).differences == ()
        )


def test_counts_numbers_amounts_and_times_stay(settings: Settings, lived: Path) -> None:
    erased = erase(settings)
    kept: dict[Table, list[str]] = {
        "transactions": ["sequence", "event_time", "amount", "offset", "batch_id"],
        "alerts": ["outbox_seq", "alert_id", "sequence", "score", "amount", "classification"],
        "quarantine": ["offset", "reason"],
        "labels": ["label_sequence", "is_fraud"],
        "ledger": ["commit", "key", "classification", "severity"],
    }
    for table, columns in kept.items():
        after = tables(settings).frame(table, columns).sort(columns[:1])
        before = tables(Settings.load(lived, {})).frame(table, columns)
        assert after.equals(before.sort(columns[:1])), table
    customers = tables(settings).frame("transactions", ["customer", "memo"])
    own = customers.filter(pl.col("customer").is_in(erased.tokens))
    assert own.height > 40
    assert own["memo"].null_count() == own.height
    other = customers.filter(pl.col("memo").is_not_null())
    assert other["memo"].to_list() == [f"sent on to {erased.tokens[0]}, thanks"]


def test_an_erased_lake_replays_without_a_difference_and_says_what_it_reads(settings: Settings) -> None:
    before = run_replay(PlacedAgent(settings, spec()), ReplaySpan())
    assert (before.differences, before.reads_newest) == ((), False)
    erase(settings)
    after = run_replay(PlacedAgent(settings, spec()), ReplaySpan())
    assert after.differences == ()
    assert after.reads_newest
    assert (after.rows, after.alerts) == (before.rows, before.alerts)
    kept = run_replay(PlacedAgent(settings, spec()), ReplaySpan(snapshot="kept"))
    assert kept.differences == ()
    assert kept.rows > 0


def test_all_is_as_if_the_token_had_been_there_from_the_beginning(settings: Settings, tmp_path: Path) -> None:
    erased = erase(settings)
    other = Settings.load(tmp_path / "other", {})
    stream, half = told(ids=erased.tokens, texts=False), ROWS // 180 * 90
    with pytest.MonkeyPatch.context() as patch:
        without_broker(patch)
        run_live(PlacedAgent(other, spec()), stream[:half])
        judge(PlacedAgent(other, spec()), [each["tx_id"] for each in stream[:half:9]])
        run_live(PlacedAgent(other, spec()), [*stream[half:], *broken(erased.tokens)], first_batch=10)
    ours, theirs = (LakeReader(each.lake("tester"), spec().tables) for each in (settings, other))
    columns = [
        "outbox_seq",
        "transaction_id",
        "entities",
        "score",
        "log_odds",
        "reasons",
        "rules",
        "severity",
    ]
    alerts = [pl.DataFrame(reader.rows("alerts", columns)).sort("outbox_seq") for reader in (ours, theirs)]
    assert alerts[0].height > 20
    assert alerts[0].to_dicts() == alerts[1].to_dicts()
    states = [newest_state(each) for each in (settings, other)]
    assert states[0] == states[1]


def newest_state(settings: Settings) -> dict[str, bytes]:
    """Return the files of the newest checkpoint; its manifest holds all else of the state."""
    folder = settings.profiles("tester").path
    newest = max(path for path in folder.iterdir() if path.name.isdecimal())
    return {path.name: path.read_bytes() for path in sorted(newest.iterdir())}


def test_new_payments_of_the_same_id_begin_a_new_profile(settings: Settings) -> None:
    erased = erase(settings)
    again = told(ROWS + 60)[ROWS:]
    assert any(each["customer_id"] == IDS[0] for each in again)
    with pytest.MonkeyPatch.context() as patch:
        without_broker(patch)
        run_live(PlacedAgent(settings, spec()), again, first_batch=30)
    rows = tables(settings).frame("transactions", ["customer"])
    assert set(rows["customer"]) >= {IDS[0], erased.tokens[0]}
    assert run_replay(PlacedAgent(settings, spec()), ReplaySpan()).differences == ()


def test_interrupted_anywhere_it_is_finished_by_the_same_command(settings: Settings) -> None:
    steps: list[str] = []
    before = decided(settings)

    def fall(step: str) -> None:
        if step not in steps:
            steps.append(step)
            raise KeyboardInterrupt

    tokens = set[tuple[str, ...]]()
    while True:
        try:
            tokens.add(
                Erasure(PlacedAgent(settings, spec()), fall)
                .run(SUBJECTS, "anna", "asked for it by letter")
                .tokens
            )
            break
        except KeyboardInterrupt:
            plan = (settings.lake("tester") / "erasure.json").path.read_text()
            assert not any(each in plan for each in IDS)
            with pytest.MonkeyPatch.context() as patch, pytest.raises(ConfigurationError, match="once more"):
                without_broker(patch)
                run_live(PlacedAgent(settings, spec()), told()[:1], first_batch=40)
            with pytest.raises(ConfigurationError, match="with the same ids"):
                Erasure(PlacedAgent(settings, spec())).run(
                    [Erasable("customer", "c5")], "anna", "asked for it by letter"
                )
    assert {"claim", "transactions", "checkpoints", "snapshot kept", "leftovers", "audit", "end"} <= set(
        steps
    )
    assert len(tokens) == 1
    assert naming(settings.home, (*IDS, SAID)) == []
    assert not (settings.lake("tester") / "erasure.json").path.exists()
    assert run_replay(PlacedAgent(settings, spec()), ReplaySpan()).differences == ()
    assert decided(settings) == before


def decided(settings: Settings) -> dict[str, Any]:
    """Return what decided the newest batch, by which a restart goes on."""
    table = tables(settings).table("transactions")
    assert table is not None
    facts = table.newest_metadata()
    assert facts is not None
    return facts


def test_a_restart_goes_on_also_where_nothing_was_anybodys(settings: Settings) -> None:
    before = decided(settings)
    erased = Erasure(PlacedAgent(settings, spec())).run(
        [Erasable("customer", "nobody")], "anna", "asked for it by letter"
    )
    assert erased.rows == {}
    assert decided(settings) == before


def test_versions_pinned_by_batches_are_known_to_be_gone_where_no_row_was_anybodys(tmp_path: Path) -> None:
    """An agent without alerts: nothing is on record there that would have to be carried on."""
    settings, calm = Settings.load(tmp_path / "home", {}), agent(threshold=0.999999999, rules=[])
    with pytest.MonkeyPatch.context() as patch:
        without_broker(patch)
        run_live(PlacedAgent(settings, calm), events(120))
    wanted = [Erasable("customer", "nobody")]
    assert Erasure(PlacedAgent(settings, calm)).run(wanted, "anna", "asked for it by letter").rows == {}
    found = run_replay(PlacedAgent(settings, calm), ReplaySpan())
    assert (found.differences, found.rows, found.alerts, found.reads_newest) == ((), 120, 0, True)


def test_the_audit_log_says_who_and_why_and_never_the_id(settings: Settings) -> None:
    erased = erase(settings)
    places = AuditPlaces(PlacedAgent(settings, spec()))
    assert check_audit(places).sound
    told_of = [each for each in newest_events(places, "action", 9) if each["subject"] == "erase"]
    assert [each["detail"]["reason"] for each in told_of] == ["begun", "done"]
    assert told_of[1]["detail"]["tokens"] == list(erased.tokens)
    assert told_of[1]["detail"]["who"] == "anna"
    assert told_of[1]["detail"]["scope"] == "erasure"
    assert told_of[1]["detail"]["rows"] == sum(erased.rows.values())


def test_a_trial_counts_what_an_erasure_changes_and_changes_nothing(settings: Settings) -> None:
    before = {path: path.read_bytes() for path in settings.home.rglob("*") if path.is_file()}
    counted = Erasure(PlacedAgent(settings, spec())).trial(SUBJECTS)
    assert {path: path.read_bytes() for path in settings.home.rglob("*") if path.is_file()} == before
    erased = erase(settings)
    assert (counted.rows, counted.snapshots, counted.checkpoints) == (
        erased.rows,
        erased.snapshots,
        erased.checkpoints,
    )


def test_a_running_agent_is_not_erased_from(settings: Settings) -> None:
    running = Health(settings.health("tester"))
    try:
        with pytest.raises(ConfigurationError, match="is running: end it"):
            erase(settings)
    finally:
        running.close()
    assert not (settings.lake("tester") / "erasure.json").path.exists()
    assert erase(settings).tokens


def test_an_entity_that_is_not_there_is_named(settings: Settings) -> None:
    with pytest.raises(ConfigurationError, match="did you mean 'customer'"):
        Erasure(PlacedAgent(settings, spec())).run(
            [Erasable("custmer", "c1")], "anna", "asked for it by letter"
        )


def test_shared_ids_are_left_to_others(settings: Settings) -> None:
    erased = Erasure(PlacedAgent(settings, spec())).run(
        [Erasable("customer", "c5")], "anna", "asked for it by letter"
    )
    rows = tables(settings).frame("transactions", ["customer", "terminal"])
    assert "c5" not in set(rows["customer"])
    assert {"c50", "c6", "c15"} & set(rows["customer"])
    assert erased.tokens[0] in set(rows["customer"])
    assert run_replay(PlacedAgent(settings, spec()), ReplaySpan()).differences == ()
