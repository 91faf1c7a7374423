"""What an agent remembers of its entities, with tokens in the place of ids.

Entities go by their order of appearance, never by what they are called, so the state under the token is the
one to which the same rows lead where the token has stood in them from the beginning.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pyarrow as pa

from streaming.arrays.arrow_arrays import Saved, id_column, ids_of
from streaming.detection.checkpoint_files import ScorerSnapshot
from streaming.detection.detectors import COUNTERPARTIES
from streaming.erasure.columns import may_hold
from streaming.erasure.naming import Naming
from streaming.erasure.renaming import Renaming
from streaming.erasure.rows import RowChange

_ID, _KEPT = "id", "kept"

Rename = Callable[[str], str]


class StateChange:
    """Changes what a checkpoint holds.

    Args:
        renaming: what becomes of ids.
        rows: changes the transactions that rules over two events remember.
    """

    def __init__(self, renaming: Renaming, rows: RowChange) -> None:
        self._renaming, self._rows = renaming, rows

    def __call__(self, state: ScorerSnapshot) -> ScorerSnapshot:
        """Return a state as it is to be."""
        profiles = {
            kind: replace(part, ids=ids_of(self._ids(id_column(part.ids), self._of_kind(kind))))
            for kind, part in state.profiles.items()
        }
        detectors = {
            name: self._saved(part, self._of_detector(name)) for name, part in state.detectors.items()
        }
        patterns = {
            digest: self._saved(part, self._of_pattern(digest)) for digest, part in state.patterns.items()
        }
        return replace(state, profiles=profiles, detectors=detectors, patterns=patterns)

    def _of_kind(self, kind: str) -> Rename:
        entities = Naming.of_kind(kind)
        return lambda text: self._renaming.of_kind(entities, text)

    def _of_detector(self, name: str) -> Rename:
        """Detectors are called after the kind of entities that they remember, but for one that has two."""
        if name == COUNTERPARTIES and self._renaming.naming.accounts:
            return self._of_accounts
        _, dash, kind = name.partition("-")
        return self._of_kind(kind) if dash else self._renaming.of_somebody

    def _of_accounts(self, text: str) -> str:
        named = (self._renaming.id(name, text) for name in sorted(self._renaming.naming.accounts))
        return next((each for each in named if each != text), text)

    def _of_pattern(self, digest: str) -> Rename:
        entities = self._renaming.naming.patterns.get(digest)
        if entities is None:
            return self._renaming.of_somebody
        return lambda text: self._renaming.of_kind(entities, text)

    def _saved(self, parts: Saved, rename: Rename) -> Saved:
        return {name: self._part(name, batch, rename) for name, batch in parts.items()}

    def _part(self, name: str, batch: pa.RecordBatch, rename: Rename) -> pa.RecordBatch:
        if name == _KEPT:
            rows = pa.Table.from_batches([batch])
            changed = self._rows(rows)
            return batch if changed is rows else changed.combine_chunks().to_batches()[0]
        if _ID not in batch.schema.names:
            return batch
        place = batch.schema.get_field_index(_ID)
        return batch.set_column(place, batch.schema.field(place), self._ids(batch[_ID], rename))

    def _ids(self, ids: pa.Array, rename: Rename) -> pa.Array:
        if not may_hold(pa.chunked_array([ids]), self._renaming.needles):
            return ids
        texts = (each.decode("utf-8", "surrogatepass") for each in ids.to_pylist())
        return pa.array([rename(each).encode("utf-8", "surrogatepass") for each in texts], ids.type)
