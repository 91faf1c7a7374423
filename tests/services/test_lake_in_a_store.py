"""What is promised of a lake's tables on a disk holds in object stores, by the same tests."""

from __future__ import annotations

import pytest

from streaming.store.place import Place
from streaming.testing.stores import RunningStore
from tests.unit.streaming.delta.test_lake import (  # noqa: F401 -- run here over stores
    test_a_new_stream_starts_its_batches_at_zero_again,
    test_a_repeated_append_writes_nothing,
    test_a_superseded_driver_is_refused_whatever_the_age_of_its_handle,
    test_a_table_from_before_a_column_came_is_given_it_and_reads_as_without_a_value,
    test_a_table_of_many_columns_is_read_by_its_last_one,
    test_a_table_with_other_columns_is_refused_by_name,
    test_an_empty_batch_is_decided_too,
    test_compaction_keeps_rows_stamps_and_the_fence,
    test_files_without_statistics_are_opened_rather_than_passed_over,
    test_metadata_is_found_however_many_takeovers_lie_behind_it,
    test_metadata_of_an_unknown_batch_is_an_error,
    test_reads_by_time_are_exact_to_the_microsecond,
    test_reads_come_back_in_order_from_the_files_that_matter,
    test_two_drivers_cannot_claim_the_same_epoch,
    test_two_threads_commit_through_one_handle_while_it_is_tidied,
)


@pytest.fixture
def where(store: RunningStore) -> Place:
    """An empty prefix of each store in turn."""
    return store.place
