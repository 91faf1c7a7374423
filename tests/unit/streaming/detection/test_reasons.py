from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.durations import duration_text
from streaming.detection.detectors import Evidence
from streaming.detection.feature_phrases import phrase
from streaming.detection.reasons import Payment, habit_sentence, sentence, travel_sentence

MONTH = 30 * 86_400.0
PAYMENT = Payment(412.0, "EUR", MONTH, "Friday 03:12 UTC")
SEEN = Evidence(usual=45.2, events=37.2, horizon=3600.0, recent=6.1, expected=0.31, one_in=250.4)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (MONTH, "30 days"),
        (86_400.0, "1 day"),
        (3600.0, "1 hour"),
        (90.0, "90 seconds"),
        (0.25, "0.25 seconds"),
    ],
)
def test_durations_use_the_largest_unit_that_divides_them(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def test_amount_sentence_compares_with_the_entitys_usual() -> None:
    assert sentence("amount", "customer", PAYMENT, SEEN, 5.0) == (
        "412.00 EUR is 9.1\N{MULTIPLICATION SIGN} this customer's usual 45.20 EUR (37 payments in 30 days)"
    )


def test_amount_sentence_of_a_new_entity_compares_with_others() -> None:
    assert sentence("amount", "card", PAYMENT, SEEN._replace(events=0.0), 5.0) == (
        "412.00 EUR is 9.1\N{MULTIPLICATION SIGN} the 45.20 EUR usual for a new card"
    )


def test_amount_sentence_without_currency_or_usual_amount_still_reads() -> None:
    payment, seen = Payment(412.0, "", MONTH, ""), SEEN._replace(usual=0.0, events=1.2)
    assert sentence("amount", "card", payment, seen, 5.0) == (
        "412.00 is far above this card's usual 0.00 (1 payment in 30 days)"
    )


def test_rate_sentence_gives_count_and_expectation() -> None:
    assert sentence("rate", "terminal", PAYMENT, SEEN, 5.0) == (
        "6 payments of this terminal in the last 1 hour before this one where 0.31 would be usual"
    )


def test_novelty_sentence_gives_the_share() -> None:
    assert sentence("novelty", "customer", PAYMENT, SEEN, 5.0) == (
        "first payment of this customer; 1 in 250 payments comes from a new one"
    )


def test_a_sentence_on_the_population_and_on_recurrence() -> None:
    assert sentence("amount", "population", PAYMENT, None, 5.0) == (
        "412.00 EUR is among the largest of all payments"
    )
    assert "more than most payments" in sentence("amount", "population", PAYMENT, None, 0.05)
    assert "makes this one 54.6 times likelier" in sentence("recurrence", "card", PAYMENT, SEEN, 4.0)


_FEATURES = (
    "log_amount",
    "count",
    "gap",
    "log_ratio",
    "log_deviation",
    "counterparties",
    "distance",
    "speed",
)
NUMBERS = st.floats(0, sys.float_info.max)


@given(NUMBERS, NUMBERS, NUMBERS, st.floats(-1e308, 1e308), st.sampled_from(sorted(_FEATURES)))
def test_no_number_is_too_large_for_a_sentence(
    amount: float, usual: float, many: float, nats: float, feature: str
) -> None:
    payment, seen = Payment(amount, "EUR", MONTH, "Friday 03:12 UTC"), SEEN._replace(usual=usual, events=many)
    for detector in ("amount", "rate", "novelty", "recurrence", "risk", "habit"):
        assert sentence(detector, "customer", payment, seen, nats)
    assert sentence("amount", "population", payment, None, nats)
    assert travel_sentence("card", amount, usual, nats) and habit_sentence("card", 0, "UTC", nats)
    assert phrase(f"{feature}.customer.1_hour", min(amount, 3.4e38) if nats > 0 else -1.0)


def test_an_amount_above_all_others_of_the_smallest_is_still_put_into_words() -> None:
    """The ratio of the largest number to the smallest is more than there is a number for."""
    assert (
        phrase("log_ratio.customer", 1453.0) == "1.8e+308\N{MULTIPLICATION SIGN} this customer's usual amount"
    )
