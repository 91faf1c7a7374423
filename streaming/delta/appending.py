"""How rows are appended to an open table by Delta's library, wherever that lies."""

from __future__ import annotations

import pyarrow as pa
from deltalake import (
    CommitProperties,
    DeltaTable,
    PostCommitHookProperties,
    WriterProperties,
    write_deltalake,
)

# Groups of rows are what a look-up of single rows reads of a file.
WRITER = WriterProperties(compression="ZSTD", compression_level=1, max_row_group_size=65_536)
NO_HOOKS = PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)


def append_rows(table: DeltaTable, rows: pa.Table, properties: CommitProperties) -> None:
    """Commit rows, or the application transactions alone where there are none."""
    if rows.num_rows == 0:
        table.create_write_transaction(
            [], "append", table.schema(), commit_properties=properties, post_commithook_properties=NO_HOOKS
        )
        table.update_incremental()
    else:
        write_deltalake(
            table,
            rows,
            mode="append",
            commit_properties=properties,
            writer_properties=WRITER,
            post_commithook_properties=NO_HOOKS,
        )
