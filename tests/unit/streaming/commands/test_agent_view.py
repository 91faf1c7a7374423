"""What a finding says is read first; what it rests on stands below, by number."""

from __future__ import annotations

from agent.planning.finding import Claim, Finding
from streaming.commands.agent_view import finding_lines


def test_sentences_cite_by_number_what_stands_below() -> None:
    claims = (
        Claim(
            text="Terminal m1 has 40 alerts.", evidence=("s1.rows.0.n", "s1.rows.0.terminal", "s1.row_count")
        ),
        Claim(text="2 of them are frauds.", evidence=("s2.known_frauds", "s1.rows.0.n")),
        Claim(text="All is well.", evidence=("s9.gone",)),
    )
    cited = {
        "s1.rows.0.n": 40,
        "s1.rows.0.terminal": "m1",
        "s1.row_count": 1,
        "s2.known_frauds": 2,
    }
    assert list(finding_lines(Finding("why", claims, cited, "local", ("cites s9.gone",)))) == [
        "why (by local, NOT VALID)",
        "- Terminal m1 has 40 alerts. [1-3]",
        "- 2 of them are frauds. [1, 4]",
        "- All is well. [5]",
        "[1] s1.rows.0.n = 40",
        "[2] s1.rows.0.terminal = m1",
        "[3] s1.row_count = 1",
        "[4] s2.known_frauds = 2",
        "[5] s9.gone = nothing: no result holds it",
    ]
