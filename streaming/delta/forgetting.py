"""Makes every version of a table but the newest unreadable: removes its older entries and their files.

Statistics in the log quote the rows: the least and largest text of a column. So it is not enough to remove
data files.
"""

from __future__ import annotations

import pyarrow as pa

from streaming.delta.durable import sync
from streaming.delta.faults import table_faults
from streaming.delta.index_files import remove_indexes
from streaming.delta.needless import entries_among, needless
from streaming.delta.table_files import files_below
from streaming.delta.table_versions import newest_version
from streaming.store.place import Place


def forget_versions(place: Place, *, shared: bool) -> int:
    """Leave of a table its newest version alone; return how many files nobody may have named yet have stayed.

    Args:
        place: where the table lies; the caller maintains it alone.
        shared: others may be about to commit files that they have just written, which stay for a minute.

    Raises:
        DataLossError: the newest log entry is torn.
        DiskError: the disk takes nothing.
        ConfigurationError: the store does not admit this process.
        StoreError: it does not answer, or is busy.
    """
    with table_faults(place):
        table = newest_version(place)
        table.create_checkpoint()
        sync(place)
        version = table.version()
        active = set(pa.table(table.get_add_actions())["path"].to_pylist())
        files = files_below(place)
        written = files.written()
        found = needless(written, version, active, files.entries(entries_among(written)), shared=shared)
        # Data files go first: what is left of them where this ends half-way is named by entries still there.
        files.remove(found.files)
        files.void(found.entries)
        files.remove(found.log)
        remove_indexes(place)
        sync(place)
    return found.young
