from __future__ import annotations

from datetime import UTC, date, datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import ConfigurationError
from schemas.rules import Rule
from streaming.rules.rule_set import RuleSet

SCHEMA = pa.schema(
    [
        ("transaction_id", pa.string()),
        ("event_time", pa.timestamp("us", "UTC")),
        ("amount", pa.float64()),
        ("currency", pa.string()),
        ("customer", pa.string()),
        ("age", pa.int32()),
        ("vip", pa.bool_()),
        ("opened", pa.date32()),
        ("memo", pa.string()),
    ]
)
ROWS = pa.Table.from_pylist(
    [
        {
            "event_time": datetime(2020, 1, 1, 3, tzinfo=UTC),
            "amount": 12_000.0,
            "currency": "EUR",
            "customer": "17",
            "age": 40,
            "vip": True,
            "opened": date(2019, 1, 1),
            "memo": "gift card",
        },
        {
            "event_time": datetime(2020, 6, 1, 15, tzinfo=UTC),
            "amount": 3.5,
            "currency": "USD",
            "customer": "x",
            "age": 20,
            "vip": False,
            "opened": date(2020, 1, 1),
            "memo": "rent",
        },
        {},
    ],
    SCHEMA,
)


def rule(when: str, name: str = "tested") -> Rule:
    return Rule(name=name, when=when, severity="high", reason="because")


def hits(when: str, table: pa.Table = ROWS) -> list[bool]:
    return [bool(hit) for hit in RuleSet.compile([rule(when)], SCHEMA).hits(table)[:, 0]]


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ("amount > 10000", [True, False, False]),
        ("currency IN ('USD', 'GBP') AND amount < 5", [False, True, False]),
        ("EXTRACT(hour FROM event_time) < 5", [True, False, False]),
        ("event_time >= TIMESTAMP '2020-02-01 00:00:00'", [False, True, False]),
        ("opened < DATE '2019-06-01'", [True, False, False]),
        ("memo ILIKE '%GIFT%'", [True, False, False]),
        ("regexp_like(lower(memo), 'gift|card')", [True, False, False]),
        ("memo ~ '^r'", [False, True, False]),
        ("TRY_CAST(customer AS INT) = 17", [True, False, False]),
        ("amount BETWEEN 1 AND 5 OR vip", [True, True, False]),
        ("CASE WHEN vip THEN amount > 1 ELSE FALSE END", [True, False, False]),
        ("NOT vip", [False, True, False]),
        ("amount / age > 10", [True, False, False]),
        ("coalesce(amount, 0) = 0", [False, False, True]),
        ("customer IS NULL", [False, False, True]),
        ("\"currency\" <> 'EUR'", [False, True, False]),
        ("length(memo) > 5 and starts_with(memo, 'gift')", [True, False, False]),
    ],
)
def test_conditions_hold_where_they_should_and_null_is_false(when: str, expected: list[bool]) -> None:
    assert hits(when) == expected


@pytest.mark.parametrize(
    ("when", "explanation"),
    [
        ("amonut > 1", "unknown column 'amonut'; did you mean 'amount'?"),
        ('"amonut" > 1', "did you mean 'amount'?"),
        ("lenght(memo) > 1", "did you mean 'length'?"),
        ("amount", "true or false"),
        ("1 = 1", "names no column"),
        ("amount > 'x'", "not usable"),
        ("amount >", "not usable"),
        ("", "not usable"),
        ("amount > avg(amount)", "function 'avg'"),
        ("sum(amount) OVER (PARTITION BY customer) > 3", "function 'sum'"),
        ("first(amount) > 1", "function 'first'"),
        ("row_number() OVER () > 1", "function 'row_number'"),
        ("read_csv('/etc/passwd') > 1", "function 'read_csv'"),
        ("amount IN (SELECT amount FROM self)", "unknown column 'SELECT'"),
        ("random() > 0.5", "function 'random'"),
        ("current_timestamp > event_time", "unknown column 'current_timestamp'"),
        ("COLUMNS('a.*') > 1", "function 'COLUMNS'"),
        ("CAST(memo AS INT) > 1", "did you mean 'try_cast'?"),
        ("amount::int > 1", "cannot read"),
        ("amount > 1; DROP", "cannot read"),
        ("amount > 1 -- comment", "cannot read"),
        ("regexp_like(memo, customer)", "regular expression"),
        ("regexp_like(memo, substr(customer, 5, 1))", "regular expression"),
        ("memo ~ customer", "regular expression"),
        ("regexp_like(memo, '(')", "not usable"),
    ],
)
def test_anything_else_is_refused_with_the_key_and_the_reason(when: str, explanation: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        RuleSet.compile([rule("amount > 1", "fine"), rule(when)], SCHEMA)
    assert refused.value.key == "rules.1.when"
    assert explanation in str(refused.value)
    assert "'tested'" in str(refused.value)


def test_hits_has_one_column_per_rule_in_the_specs_order() -> None:
    rules = RuleSet.compile([rule("amount > 10000", "large"), rule("age < 30", "young")], SCHEMA)
    assert rules.hits(ROWS).tolist() == [[True, False], [False, True], [False, False]]
    assert [known.name for known in rules.rules] == ["large", "young"]


def test_no_rules_and_no_rows_are_fine() -> None:
    none = RuleSet.compile([], SCHEMA).hits(ROWS)
    assert none.shape == (3, 0)
    assert none.dtype == np.bool_
    assert RuleSet.compile([rule("vip")], SCHEMA).hits(ROWS.slice(0, 0)).shape == (0, 1)


def test_version_follows_every_part_of_every_rule() -> None:
    first = RuleSet.compile([rule("amount > 1")], SCHEMA).version
    assert first == RuleSet.compile([rule("amount > 1")], SCHEMA).version
    changed = [rule("amount > 2"), rule("amount > 1", "renamed")]
    changed.append(Rule(name="tested", when="amount > 1", severity="low", reason="because"))
    assert len({first, *(RuleSet.compile([other], SCHEMA).version for other in changed)}) == 4


TEXT = st.none() | st.text(max_size=8)
TRANSACTIONS = st.lists(
    st.fixed_dictionaries(
        {
            "amount": st.none() | st.floats(allow_nan=False, allow_infinity=False),
            "memo": TEXT,
            "customer": TEXT,
            "age": st.none() | st.integers(-(2**31), 2**31 - 1),
            "vip": st.none() | st.booleans(),
            "event_time": st.none() | st.datetimes(timezones=st.just(UTC)),
        }
    ),
    max_size=12,
)


@given(TRANSACTIONS)
@settings(deadline=None, derandomize=True, max_examples=40)
def test_a_row_is_judged_alone_and_no_row_can_make_a_rule_fail(transactions: list[dict[str, object]]) -> None:
    conditions = [
        "round(amount, 2) > age AND length(memo) > 2",
        "memo LIKE 'a%_' OR memo ~ '[0-9]+'",
        "TRY_CAST(memo AS INT) % age = 0",
        "extract(dow FROM event_time) = 1 OR event_time < TIMESTAMP '1970-01-01 00:00:00'",
        "CASE WHEN vip THEN left(memo, 2) = 'ab' ELSE sqrt(amount) > ln(age) END",
    ]
    rules = RuleSet.compile([rule(when, f"r{place}") for place, when in enumerate(conditions)], SCHEMA)
    table = pa.Table.from_pylist(transactions, SCHEMA)
    together = rules.hits(table)
    assert together.shape == (len(transactions), len(conditions))
    for row in range(len(transactions)):
        assert np.array_equal(rules.hits(table.slice(row, 1))[0], together[row])
