"""What tests start beside them is never held up by what it prints."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streaming.testing.drivers import Child

SECONDS = 30.0
PIPE_BYTES = 1 << 16
TALKS = """
import sys
for line in range(2_000):
    for place in (sys.stdout, sys.stderr):
        print(f"{line} {sys.argv[1]}", file=place)
"""
FORKS = "import os, time; os.fork() or time.sleep(1) or print('the child of the child', flush=True)"


@settings(max_examples=5)
@given(width=st.integers(PIPE_BYTES // 2_000, 500), apart=st.booleans())
def test_a_process_that_nobody_reads_prints_more_than_a_pipe_holds_and_all_is_kept(
    width: int, apart: bool
) -> None:
    child = Child([sys.executable, "-c", TALKS, "x" * width], apart=apart)
    assert child.wait(SECONDS) == 0
    printed, errors = child.communicate(timeout=SECONDS)
    wanted = [f"{line} {'x' * width}" for line in range(2_000)]
    assert errors.splitlines() == (wanted if apart else [])
    assert sorted(printed.splitlines()) == sorted(wanted if apart else 2 * wanted)


def test_what_is_no_text_is_printed_all_the_same() -> None:
    child = Child([sys.executable, "-c", "import os; os.write(1, b'caf\\xe9\\n')"])
    assert child.communicate(timeout=SECONDS) == ("caf\\xe9\n", "")


def test_a_line_is_waited_for_while_the_process_goes_on() -> None:
    child = Child([sys.executable, "-c", "print('ready', flush=True); input()"], stdin=subprocess.PIPE)
    child.wait_for(lambda line: line == "ready\n", SECONDS)
    assert child.poll() is None
    assert child.stdin is not None
    child.stdin.close()
    child.communicate(timeout=SECONDS)
    with pytest.raises(AssertionError, match="ready"):
        child.wait_for(lambda line: "never said" in line, SECONDS)


def test_the_end_is_that_of_its_own_children_too() -> None:
    """A killed driver's JVM prints where the driver did: the next one starts when it is gone."""
    child = Child([sys.executable, "-c", FORKS])
    assert child.wait(SECONDS) == 0
    assert child.communicate(timeout=SECONDS)[0] == "the child of the child\n"
