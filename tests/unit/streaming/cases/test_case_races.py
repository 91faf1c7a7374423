"""Two processes over one table: every case is claimed by one of them, and everything they say is there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from streaming.cases.choosing import CaseFilter
from tests.unit.streaming.cases.case_samples import Desk, alert_row

CASES = 12
PERSON = """
import json, sys
from datetime import datetime
from pathlib import Path
from streaming.cases.orders import Order
from tests.unit.streaming.cases.case_samples import Desk

book, who = Desk(Path(sys.argv[1])).book(), sys.argv[2]
print("ready", flush=True)
sys.stdin.readline()
book.group()
taken = []
while (case := book.claim_next(who)) is not None:
    book.act(case.case_id, Order("comment", text=who), who)
    taken.append(case.case_id)
print(json.dumps(taken))
"""


@pytest.mark.long
def test_two_people_in_two_processes_never_take_one_case(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.alert(*(alert_row(n, f"c{n}", n) for n in range(CASES)))
    people = ["anna", "bert"]
    running = [
        subprocess.Popen(
            [sys.executable, "-c", PERSON, str(tmp_path), who],
            cwd=Path(__file__).parents[4],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for who in people
    ]
    for each in running:
        assert each.stdout is not None
        assert each.stdout.readline() == "ready\n"
    taken = [json.loads(each.communicate("go\n", timeout=200)[0]) for each in running]
    assert [each.returncode for each in running] == [0, 0]
    assert sorted(taken[0] + taken[1]) == sorted(set(taken[0] + taken[1]))
    book = desk.grouped()
    found = {
        each.case_id: (each.assignee, each.comments, each.alerts) for each in book.page(CaseFilter()).cases
    }
    expected = {case: (who, 1, 1) for who, own in zip(people, taken, strict=True) for case in own}
    assert found == expected
    assert len(found) == CASES
