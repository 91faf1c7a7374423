"""The files of a new agent: contract, spec, rules and policy, each with comments that say what to decide."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass

from schemas.contract import EventContract
from schemas.documents import parse_yaml
from schemas.errors import ConfigurationError

CONTRACT, SPEC, RULES, POLICY = "contract.yaml", "agent.yaml", "rules.yaml", "policy.yaml"
_STEPS = (1, 2, 5, 10)
_UNSEEN_AMOUNT = 10_000.0
_LEAST_LIMIT, _MOST_LIMIT = 1e-300, 1e307  # beyond them floats hold no round numbers


@dataclass(frozen=True)
class NewAgent:
    """What a new agent is made of.

    Attributes:
        name: of the agent.
        topic: that it reads.
        alerts_per_day: how many alerts people can deal with.
        contract: what its events mean.
        contract_text: the same, as it is written.
        largest: the largest amount of a sample, None without one.
    """

    name: str
    topic: str
    alerts_per_day: float
    contract: EventContract
    contract_text: str
    largest: float | None

    def files(self) -> Mapping[str, str]:
        """Return what each file holds, by its name."""
        name, topic = _as_text(self.name), _as_text(self.topic)
        return {
            CONTRACT: self.contract_text,
            SPEC: _SPEC.format(made=self, name=name, read_topic=topic, alerts=f"{self.alerts_per_day:.15g}"),
            RULES: _RULES.format(
                most=f"{round_amount(self.largest):.15g}", entity=self.contract.primary_entity
            ),
            POLICY: _POLICY.format(name=name, texts=self._texts()),
        }

    def _texts(self) -> str:
        names = ", ".join(f"texts.{name}" for name in self.contract.untrusted_text)
        return f" Free texts of this contract: {names}." if names else ""


def contract_template(name: str) -> str:
    """Return a contract to be filled in, as it is written."""
    return _TEMPLATE.format(name=_as_text(name))


def _as_text(word: str) -> str:
    """Return a text as YAML reads it back: in quotes where it looks like something else."""
    try:
        is_plain = parse_yaml(word, where=SPEC) == word
    except ConfigurationError:
        is_plain = False
    return word if is_plain else json.dumps(word)


def round_amount(largest: float | None) -> float:
    """Return a round amount that none of a sample reaches: 1, 2 or 5 times a power of ten, twice the largest.

    Args:
        largest: of the sample; without one, ten thousand.
    """
    if largest is None or not 0 < largest < math.inf:
        return _UNSEEN_AMOUNT
    twice = min(max(2 * largest, _LEAST_LIMIT), _MOST_LIMIT)
    power = 10.0 ** math.floor(math.log10(twice))
    return next(step * power for step in _STEPS if step * power >= twice)


_TEMPLATE = """\
# What an event means. Replace each field name by that of your events; `a.b` steps into objects.
# `flagstream contract infer sample.csv`, or `--topic NAME`, drafts one from your own data.
name: {name}
version: 1
# Comes once per transaction; a second event with the same id within the horizon below is a duplicate.
transaction_id: {{field: id}}
# iso8601, or epoch with a unit (s, ms, us); more formats: docs/contracts.md
event_time: {{field: created, format: epoch, unit: ms}}
# In units of the currency; `unit: minor` where whole numbers are cents.
amount: {{field: amount.value}}
currency: {{field: amount.currency}}
# Whose habits are learned; the first is the one that the topic is keyed by.
entities:
  customer: {{field: customer_id}}
  merchant: {{field: merchant_id}}
# Written by people outside: kept, and shown to a model only where the policy says so.
untrusted_text:
  memo: {{field: reference, max_length: 200}}
duplicates: {{horizon: 1h}}
"""

_SPEC = """\
# The agent: what it reads, how it decides, where it writes. All keys: `flagstream spec reference`.
name: {name}
# Raise it with every change; `flagstream registry add` keeps the versions.
version: 1.0.0

data_sources:
  transactions:
    contract: contract.yaml
    topic: {read_topic}
    # Where it begins on its first run: earliest or latest. After `flagstream backfill`, latest: what the
    # topic holds of the history would be stored twice.
    starting_offsets: earliest
  # Labels (fraud or not) make scores better as they come: a topic, or `flagstream labels import`.
  # labels: {{topic: {made.name}-labels}}

# About so many a day: the threshold moves with the traffic. Nothing is flagged by its score until the first
# 2,048 transactions are known (two blocks of rows); rules alert from the first one on.
alerts_per_day: {alerts}
# Or a fixed share instead, here one transaction in a thousand:
# threshold: 0.999

# Read again whenever it changes, also while the agent runs.
rules_file: rules.yaml

# Classifies alerts after they have left. Without an endpoint and a key the local model answers, which is
# small and no judge of fraud; `provider: none` asks nobody.
llm:
  provider: openai
  # base_url: https://llm.example.org/v1
  # model: gpt-4o-mini
  # The name of the variable that holds the key, never the key itself.
  # api_key_env: OPENAI_API_KEY
  budget: {{tokens_per_day: 1000000}}

# What may leave this machine, and what the planning agent may do.
policy: policy.yaml

alerts:
  topic: {made.name}-alerts

# For so long yesterday can be re-run exactly.
replay_horizon: 30d
# How long rows stay; without an age they stay for ever. docs/retention-and-erasure.md
# retention: {{transactions: 400d, alerts: 400d, quarantine: 30d}}
# Where tables lie, if not below the home on this machine. docs/stores.md
# store: s3://bucket/prefix
"""

_RULES = """\
# Rules alert whatever the score. What a condition can use: `flagstream spec columns agent.yaml`.
# Severities: low, medium, high, critical.
rules:
  - name: large_amount
    when: amount > {most}
    severity: high
    reason: the amount exceeds {most}
  - name: many_in_an_hour
    when: count_{entity}_1_hour >= 20
    severity: medium
    reason: this {entity} has 20 transactions within an hour
  # Two events of one entity, one soon after the other:
  # - name: emptied_after_test_payment
  #   sequence: {{entity: {entity}, first: amount < 1, then: amount > 500, within: 10m}}
  #   severity: high
  #   reason: a large payment soon after a tiny one
"""

_POLICY = """\
# What may leave this machine, to which model; what is not named here is denied.
policyName: {name}
allowedModels:
  - {{name: local, provenance: "a small open model, from a wheel that set-up installs", region: this machine}}
  # - {{name: gpt-4o-mini, provenance: "OpenAI, hosted", region: as agreed with the endpoint's operator}}
# Ids of entities leave as tokens where they are named (entities.<name>).{texts}
allowedFields: [amount, currency, event_hour, score, reasons, explanations, rules]
auditLogging: true
# Whether `flagstream erase` may take a person's id out of all tables, which cannot be undone.
# erasure: true
# What a plan of `flagstream agent run` may do, and how often.
dataAccess:
  readOnlyPaths: [lake, candidates]
  tables: [transactions, alerts, labels, batches, quarantine]
actions:
  query_aggregates: {{calls: 4, rows: 100, seconds: 10, megabytes: 256}}
  entity_profile: {{calls: 3}}
  entity_history: {{calls: 3, rows: 20}}
  similar_alerts: {{calls: 2, rows: 10}}
  replay_preview: {{calls: 1, transactions: 100000}}
  post_finding: {{calls: 1}}
  notify: {{calls: 1, targets: {{log: log}}}}
# Of one run of the agent.
budgets: {{steps: 8, tokens: 20000, seconds: 120}}
"""
