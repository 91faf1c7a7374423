"""The files of one checkpoint: written, described in a manifest, checked and read."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from streaming.arrays.arrow_arrays import Saved
from streaming.arrays.compilation import Floats
from streaming.detection.alert_budget import StreamRate
from streaming.detection.calibration import TotalsHistogram
from streaming.detection.tails import DEPTHS, Counts
from streaming.profiles.entity_half import ProfileSnapshot
from streaming.profiles.profile_kernels import State
from streaming.profiles.saved_profiles import entities_of, entity_batch

_FORMAT = 4
MANIFEST = "manifest.json"
_CALIBRATION = "calibration.arrow"
_CHUNK = 1 << 24


@dataclass(frozen=True)
class ScorerSnapshot:
    """The state as of `next_sequence`; its arrays are never changed, so any thread may write it.

    `patterns` are those in force then, by the digest of their rules; the scorer itself has none.
    `computed_on` are the fingerprints of the machines that have computed it, see
    streaming.arrays.fingerprint; checkpoints of before name none.
    """

    next_sequence: int
    definition_hash: str
    profiles: dict[str, ProfileSnapshot]
    histogram: TotalsHistogram
    tails: dict[str, Counts]
    pace: StreamRate
    detectors: dict[str, Saved]
    patterns: Mapping[str, Saved] = field(default_factory=dict)
    computed_on: tuple[str, ...] = ()


def write_files(snapshot: ScorerSnapshot, folder: Path) -> None:
    """Write all files of a state into a folder, the manifest last."""
    files: dict[str, dict[str, Any]] = {}
    for position, (kind, profiles) in enumerate(snapshot.profiles.items()):
        name = f"entities-{position}.arrow"
        _write_arrow(folder / name, [entity_batch(profiles.ids, profiles.state)])
        files[name] = {"kind": kind, **_size_and_crc32(folder / name)}
    histograms = {_CALIBRATION: snapshot.histogram, **{_tail_file(k): v for k, v in snapshot.tails.items()}}
    for name, histogram in histograms.items():
        _write_arrow(folder / name, [_histogram_batch(histogram)])
        files[name] = _size_and_crc32(folder / name)
    files |= _write_saved(snapshot.detectors, "detector", folder)
    files |= _write_saved(snapshot.patterns, "pattern", folder)
    manifest = {**_described(snapshot), "files": files}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")


def _described(snapshot: ScorerSnapshot) -> dict[str, Any]:
    """Return what the manifest says of a state beside its files."""
    return {
        "format": _FORMAT,
        "next_sequence": snapshot.next_sequence,
        "definition_hash": snapshot.definition_hash,
        "population": {kind: _population(part) for kind, part in snapshot.profiles.items()},
        "tails": list(snapshot.tails),
        "pace": {
            "seen": _hex(snapshot.pace.seen),
            "clocks": [str(int(each)) for each in snapshot.pace.clocks],
        },
        "computed_on": list(snapshot.computed_on),
    }


def _write_saved(memories: Mapping[str, Saved], kind: str, folder: Path) -> dict[str, dict[str, Any]]:
    files: dict[str, dict[str, Any]] = {}
    for owner, saved in memories.items():
        for part, batch in saved.items():
            name = f"{kind}-{owner}-{part}.arrow"
            _write_arrow(folder / name, [batch])
            files[name] = {kind: owner, "part": part, **_size_and_crc32(folder / name)}
    return files


def _population(profiles: ProfileSnapshot) -> dict[str, list[str]]:
    state = profiles.state
    return {
        "current": _hex(state.population),
        "pending": _hex(state.pending),
        "verdicts": _hex(state.labels),
        "frontier": [str(int(state.frontier[0]))],
    }


def _hex(values: Floats) -> list[str]:
    return [float(value).hex() for value in values]


def _floats(texts: list[str]) -> Floats:
    return np.array([float.fromhex(text) for text in texts])


def _tail_file(name: str) -> str:
    return f"tail-{name}.arrow"


def _histogram_batch(histogram: tuple[Floats, Floats]) -> pa.RecordBatch:
    counts, pending = (part.reshape(-1) for part in histogram)
    return pa.RecordBatch.from_pydict({"counts": pa.array(counts), "pending": pa.array(pending)})


def _write_arrow(path: Path, batches: list[pa.RecordBatch]) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, batches[0].schema) as writer:
        for batch in batches:
            writer.write_batch(batch)


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk


def _size_and_crc32(path: Path) -> dict[str, int]:
    crc = 0
    for chunk in _chunks(path):
        crc = zlib.crc32(chunk, crc)
    return {"bytes": path.stat().st_size, "crc32": crc}


def check_manifest(manifest: dict[str, Any], definition_hash: str | None) -> None:
    """Check that a checkpoint is of the format known here, and of the definition that is wanted, if any.

    Raises:
        ValueError: it is not.
    """
    if manifest["format"] != _FORMAT:
        raise ValueError(f"format {manifest['format']} is not {_FORMAT}")
    if definition_hash not in {None, manifest["definition_hash"]}:
        raise ValueError(f"made under another profile definition ({manifest['definition_hash']})")


def read_files(path: Path) -> ScorerSnapshot:
    """Read the state that a folder holds.

    Raises:
        ValueError: a file is torn. What else is not as it was written raises whatever its reading raises.
    """
    manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    _check_files(path, manifest["files"])
    profiles = {
        noted["kind"]: _read_profiles(path / name, manifest["population"][noted["kind"]])
        for name, noted in manifest["files"].items()
        if "kind" in noted
    }
    histogram = TotalsHistogram(*_read_histogram(path / _CALIBRATION))
    tails = {
        name: Counts(*(part.reshape(DEPTHS, -1) for part in _read_histogram(path / _tail_file(name))))
        for name in manifest["tails"]
    }
    noted = manifest["pace"]
    pace = StreamRate(_floats(noted["seen"]), np.array(noted["clocks"], np.int64))
    detectors, patterns = (_read_saved(path, manifest["files"], kind) for kind in ("detector", "pattern"))
    return ScorerSnapshot(
        manifest["next_sequence"],
        manifest["definition_hash"],
        profiles,
        histogram,
        tails,
        pace,
        detectors,
        patterns,
        tuple(manifest.get("computed_on", ())),
    )


def _check_files(path: Path, files: dict[str, Any]) -> None:
    for name, noted in files.items():
        actual = _size_and_crc32(path / name)
        if any(noted[key] != actual[key] for key in actual):
            raise ValueError(f"{name} is torn: size or checksum differs from the manifest")


def _read_histogram(path: Path) -> tuple[Floats, Floats]:
    batch = _read_arrow(path)
    return batch["counts"].to_numpy(), batch["pending"].to_numpy()


def _read_arrow(path: Path) -> pa.RecordBatch:
    # Memory-mapped: restoring copies once, from the page cache into the scorer's own arrays.
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).get_batch(0)


def _read_profiles(path: Path, population: dict[str, list[str]]) -> ProfileSnapshot:
    ids, entities = entities_of(_read_arrow(path))
    state = State(
        **entities,
        labels=_floats(population["verdicts"]),
        frontier=np.array([int(population["frontier"][0])]),
        population=_floats(population["current"]),
        pending=_floats(population["pending"]),
    )
    return ProfileSnapshot(ids, state)


def _read_saved(path: Path, files: dict[str, dict[str, Any]], kind: str) -> dict[str, Saved]:
    found: dict[str, dict[str, pa.RecordBatch]] = {}
    for name, noted in files.items():
        if kind in noted:
            found.setdefault(noted[kind], {})[noted["part"]] = _read_arrow(path / name)
    return dict(found)
