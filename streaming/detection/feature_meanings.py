"""What each feature means, in words without a number: for whoever writes a rule about it."""

from __future__ import annotations

from collections.abc import Mapping

from streaming.profiles.directions import named_kind

_MEANINGS: Mapping[str, str] = {
    "hour": "hour of the day in UTC, with fractions",
    "weekday": "day of the week in UTC, 0 is Monday",
    "log_amount": "natural logarithm of the amount",
    "evidence": "what all reasons add to the score, in nats",
    "count": "{what}s of this {who} that are remembered, older ones for less, over about {span}",
    "mean_amount": "mean amount of these {what}s",
    "log_ratio": "natural logarithm of the amount over this {who}'s usual one",
    "amount_nats": "how rare so large an amount is for this {who}: minus the logarithm of its share",
    "rate_nats": "how rare so many {what}s in so short a time are for this {who}, in nats",
    "log_deviation": "standard deviations of the logarithm of the amount from this {who}'s mean",
    "age": "seconds for which this {who} has been known",
    "gap": "seconds since this {who}'s last {what}",
    "memory": "how unusual other recent {what}s of this {who} were, in nats",
    "risk": "what labels of this {who}'s earlier {what}s say, in nats; above 0 for fraud",
    "frauds": "frauds among them, older ones for less, over about {span}",
    "judged": "labels of this {who}'s earlier {what}s, older ones for less, over about {span}",
    "counterparties": "about how many others this {who} had to do with in {span}",
    "known": "1 where the two have met before, else 0",
    "returned": "1 where money goes back to whom it came from, else 0",
    "habit_nats": "how unusual hour and weekday are for this {who}, in nats",
    "distance": "km from where this {who} was before",
    "speed": "km/h at which this {who} must have moved since",
    "window_count": "{what}s of this {who} in the last {span}, exactly",
    "window_mean_amount": "mean amount of these {what}s",
    "delayed_count": "{what}s of this {who} in {span}, up to the delay after which labels are known",
    "fraud_share": "share of frauds among these {what}s",
}


def meaning(feature: str) -> str:
    """Say what a feature, by its name in `features`, is: `seconds since this customer's last payment`."""
    what, _, rest = feature.partition(".")
    kind, _, span = rest.partition(".")
    named = named_kind(kind)
    return _MEANINGS[what].format(who=named.entity, what=named.transaction, span=span.replace("_", " "))
