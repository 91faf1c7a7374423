"""Which files of a table go is decided by their names, their ages, and what entries of the log name."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from streaming.delta.log_files import LOG, POINTER, entry_name
from streaming.delta.needless import IN_FLIGHT_SECONDS, entries_among, needless

NOW = 1_000_000.0
FILES = [f"part-{number}.parquet" for number in range(8)]


def entry(*names: str) -> bytes:
    return "\n".join(json.dumps(each) for each in [{"commitInfo": {}}, *map(added, names)]).encode()


def added(name: str) -> dict[str, dict[str, str]]:
    return {"add": {"path": name}}


@given(
    held=st.lists(st.sets(st.sampled_from(FILES)), min_size=1, max_size=6),
    version=st.integers(0, 5),
    active=st.sets(st.sampled_from(FILES)),
    age=st.floats(0, 10 * IN_FLIGHT_SECONDS),
    shared=st.booleans(),
)
def test_what_the_version_or_a_later_entry_names_is_never_removed(
    held: list[set[str]], version: int, active: set[str], age: float, shared: bool
) -> None:
    version = min(version, len(held) - 1)
    entries = {number: entry(*sorted(names)) for number, names in enumerate(held)}
    log = {f"{LOG}/{entry_name(number)}": NOW - age for number in entries}
    written = {**dict.fromkeys(FILES, NOW - age), **log, f"{LOG}/{POINTER}": NOW}
    found = needless(written, version, active, entries, shared=shared)
    later, before = (
        {name for number, names in enumerate(held) if (number > version) is wanted for name in names}
        for wanted in (True, False)
    )
    gone = set(FILES) - active - later
    young = gone - before if shared and age < IN_FLIGHT_SECONDS else set()
    assert (set(found.files), found.young) == (gone - young, len(young))
    earlier = {f"{LOG}/{entry_name(number)}" for number in range(version)}
    assert (found.entries if age < IN_FLIGHT_SECONDS else found.log) == tuple(sorted(earlier))
    assert {*found.entries, *found.log} == earlier


def test_of_the_log_the_pointer_and_what_is_on_its_way_stay() -> None:
    old, young = NOW - 2 * IN_FLIGHT_SECONDS, NOW - 1
    written = {
        f"{LOG}/{POINTER}": NOW,
        f"{LOG}/_commit_old.tmp": old,
        f"{LOG}/_commit_young.tmp": young,
        f"{LOG}/{3:020}.checkpoint.parquet": old,
        f"{LOG}/{4:020}.checkpoint.parquet": young,
        f"{LOG}/_sidecars/one.parquet": old,
        "_index/id/seed": old,
    }
    found = needless(written, 4, (), {}, shared=False)
    assert (found.files, found.young) == ((), 0)
    assert set(found.log) == {f"{LOG}/_commit_old.tmp", f"{LOG}/{3:020}.checkpoint.parquet"}
    assert entries_among(written) == []
