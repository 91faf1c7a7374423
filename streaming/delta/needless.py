"""What of a table its newest version does not need, by the names and ages of its files, wherever they lie."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain

from streaming.delta.log_files import LOG, POINTER, is_of_a_version, version_of, versions_of
from streaming.delta.log_tail import names_in

IN_FLIGHT_SECONDS = 60.0

Written = Mapping[str, float]
"""When each file below a table was written, in seconds since 1970 UTC, by its name relative to it."""


@dataclass(frozen=True)
class Needless:
    """What a version does not need.

    Attributes:
        files: data files.
        log: files of the log.
        entries: of the log, so young that somebody may not know of them and commit under their numbers.
        young: how many data files stay besides, since they may be on their way into a commit.
    """

    files: tuple[str, ...]
    log: tuple[str, ...]
    entries: tuple[str, ...]
    young: int


def needless(
    written: Written, version: int, active: Collection[str], entries: Mapping[int, bytes], *, shared: bool
) -> Needless:
    """Choose what can be removed of a table, to which others may have committed since it was opened.

    Args:
        written: what lies there; the pointer to the newest checkpoint was just written.
        version: has a checkpoint.
        active: its data files.
        entries: of the log, as far as they are there, by version; later ones than `version`, too.
        shared: others may be about to commit files that they have just written.
    """
    named = {number: names_in(entry) for number, entry in entries.items()}
    needed = {*active, *chain.from_iterable(names for number, names in named.items() if number > version)}
    known = set(chain.from_iterable(names for number, names in named.items() if number <= version))
    besides = [name for name in written if _is_data(name) and name not in needed]
    since = written[f"{LOG}/{POINTER}"] - IN_FLIGHT_SECONDS
    young = {name for name in besides if shared and name not in known and written[name] > since}
    files = tuple(name for name in besides if name not in young)
    log = list(_log_before(version, written, since))
    fresh = {name for name in log if entries_among([name]) and written[name] > since}
    older = tuple(name for name in log if name not in fresh)
    return Needless(files, older, tuple(sorted(fresh)), len(young))


def entries_among(names: Collection[str]) -> list[int]:
    """Return the versions of the log entries among the files below a table."""
    return versions_of(name.removeprefix(f"{LOG}/") for name in names if name.startswith(f"{LOG}/"))


def _is_data(name: str) -> bool:
    return name.endswith(".parquet") and not name.startswith("_")


def _log_before(version: int, written: Written, since: float) -> Iterator[str]:
    """Yield what a version's checkpoint stands for, and what nobody has made an entry of."""
    for name in (each for each in sorted(written) if each.startswith(f"{LOG}/")):
        number = version_of(file := name.removeprefix(f"{LOG}/"))
        is_left = not is_of_a_version(file) and file != POINTER and written[name] < since
        if is_left or (number is not None and number < version):
            yield name
