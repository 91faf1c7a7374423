"""What may leave the machine, to which model, and what the agent may do; what is not named is denied."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from schemas.addresses import is_loopback, origin_of
from schemas.document_kinds import Kind
from schemas.documents import named_file, resolve_named
from schemas.errors import nearest
from schemas.loading import Document, load_document

SENDABLE = (
    "amount",
    "currency",
    "event_time",
    "score",
    "reasons",
    "explanations",
    "rules",
)
SHOWN_BY_ACTIONS = ("event_hour", "transaction_id")
_NAMED = re.compile(r"(entities|extra|texts)\.[A-Za-z_][A-Za-z0-9_]*")

CuratedTable = Literal["transactions", "alerts", "labels", "batches", "quarantine"]
Text = Annotated[str, Field(min_length=1, max_length=200)]
LOG = "log"
ENTITIES = "entities."


class AllowedModel(Document):
    """A model that may be asked: its name, who made it and how it comes here, and where it runs.

    `origin` (scheme, host and port) binds it to one endpoint, `api_key_env` names the variable whose value
    is sent there; without one no key is. `http` admits an origin that is not encrypted.
    """

    LATER: ClassVar[frozenset[str]] = frozenset({"origin", "api_key_env", "http"})

    name: Text
    provenance: Text
    region: Text
    origin: str | None = None
    api_key_env: str | None = Field(default=None, pattern=r"^[A-Z_][A-Z0-9_]*$")
    http: bool = False

    @field_validator("origin")
    @classmethod
    def _an_origin(cls, value: str | None) -> str | None:
        return None if value is None else checked_origin(value)

    @model_validator(mode="after")
    def _bound(self) -> AllowedModel:
        if self.origin is None and (self.api_key_env is not None or self.http):
            raise ValueError("'api_key_env' and 'http' need the 'origin' that they are for")
        parts = urlsplit(self.origin or "https://")
        if parts.scheme == "http" and not self.http and not is_loopback(parts.hostname or ""):
            raise ValueError("an origin that is not encrypted needs `http: true`")
        return self


class DataAccess(Document):
    """What actions may read: folders, relative to the state's folder or absolute, and tables."""

    readOnlyPaths: tuple[Annotated[Text, Field(pattern=r"^[^\x00]*$")], ...] = ()
    tables: tuple[CuratedTable, ...] = ()


class ActionLimits(Document):
    """How often a plan may hold an action."""

    calls: int = Field(default=1, ge=1, le=100)


class RowLimits(ActionLimits):
    """Limits of an action that lists rows."""

    rows: int = Field(default=20, ge=1, le=10_000)


class QueryLimits(RowLimits):
    """Limits of a query; what it holds in memory beyond `megabytes` fails it."""

    seconds: float = Field(default=10, gt=0, le=600)
    megabytes: int = Field(default=256, ge=32, le=65_536)


class ReplayLimits(ActionLimits):
    """Limits of a replay: transactions decided anew."""

    transactions: int = Field(default=100_000, ge=1)


class JobLimits(ActionLimits):
    """Jobs that may be started on a Databricks workspace; without `submit` each is a dry run.

    `notebooks` are the paths that may run, `workspace` the address of the workspace, `token_env` the
    environment variable that holds its token, and `cluster` an existing cluster's id; without one the job
    runs on serverless compute.
    """

    notebooks: tuple[Text, ...] = ()
    submit: bool = False
    workspace: str | None = None
    token_env: str = Field(default="DATABRICKS_TOKEN", pattern=r"^[A-Z_][A-Z0-9_]*$")
    cluster: str | None = None

    @field_validator("workspace")
    @classmethod
    def _safe(cls, value: str | None) -> str | None:
        return None if value is None else checked_address(value)

    @model_validator(mode="after")
    def _has_a_workspace(self) -> JobLimits:
        if self.submit and self.workspace is None:
            raise ValueError("'submit' needs the address of a 'workspace'")
        return self


class NotifyLimits(ActionLimits):
    """Who may be notified: name → address of a webhook, or `log` for the agent's own log."""

    targets: Mapping[str, str] = {}

    @field_validator("targets")
    @classmethod
    def _addresses(cls, value: Mapping[str, str]) -> Mapping[str, str]:
        return {name: each if each == LOG else checked_address(each) for name, each in value.items()}


class AllowedActions(Document):
    """The actions that may stand in a plan, each with its limits; one that is left out is denied."""

    query_aggregates: QueryLimits | None = None
    entity_profile: ActionLimits | None = None
    entity_history: RowLimits | None = None
    similar_alerts: RowLimits | None = None
    replay_preview: ReplayLimits | None = None
    post_finding: ActionLimits | None = None
    run_job: JobLimits | None = None
    notify: NotifyLimits | None = None

    def limits(self, action: str) -> ActionLimits | None:
        """Return the limits of an action, None when it is denied or unknown."""
        found = getattr(self, action, None) if action in AllowedActions.model_fields else None
        return found if isinstance(found, ActionLimits) else None


class Budgets(Document):
    """What one run of the agent may use; nothing unless given."""

    steps: int = Field(default=0, ge=0, le=100)
    tokens: int = Field(default=0, ge=0)
    seconds: float = Field(default=0, ge=0)


class KafkaSecret(Document):
    """A secret that a spec's client.properties may use, and whom it may be shown to.

    `secret` is `env:NAME`, `file:/path` or `aws`, AWS's own login; `to` holds brokers as `host:port` and,
    where tokens are fetched, the issuer as `https://host`.
    """

    secret: str = Field(pattern=r"^(env:[A-Za-z_][A-Za-z0-9_]*|file:/.+|aws)$")
    to: tuple[str, ...] = Field(min_length=1)


class Policy(Document):
    """A policy file. An empty list allows nothing beyond a group's size, label and severity.

    `allowedFields` names the parts of transactions and alerts that may be sent: any of `SENDABLE` or of
    `SHOWN_BY_ACTIONS` (which triage never sends), an entity's id as `entities.<name>`, a further field as
    `extra.<name>`, and a free text as `texts.<name>`. Explanations name amounts, so they leave only where
    `amount` and `currency` may. Ids of entities leave as tokens, those that `rawFields` names as they are.
    With `erasure` somebody may erase entities, which cannot be undone (`flagstream erase`).
    """

    LATER: ClassVar[frozenset[str]] = frozenset({"rawFields", "kafkaSecrets", "erasure"})
    KIND: ClassVar[Kind | None] = "policy"

    policyName: str = Field(pattern=r"^[a-z][a-z0-9-]*$")
    allowedModels: tuple[AllowedModel, ...] = ()
    allowedFields: tuple[str, ...] = ()
    rawFields: tuple[str, ...] = ()
    auditLogging: bool = True
    dataAccess: DataAccess = DataAccess()
    actions: AllowedActions = AllowedActions()
    budgets: Budgets = Budgets()
    kafkaSecrets: tuple[KafkaSecret, ...] = ()
    erasure: bool = False

    @field_validator("allowedModels", mode="before")
    @classmethod
    def _described(cls, value: object) -> object:
        bare = [each for each in value if isinstance(each, str)] if isinstance(value, list) else []
        if bare:
            raise ValueError(f"expected each model as {{name, provenance, region}}, got {bare[0]!r}")
        return value

    @field_validator("allowedModels")
    @classmethod
    def _each_once(cls, value: tuple[AllowedModel, ...]) -> tuple[AllowedModel, ...]:
        names = [model.name for model in value]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"the model {repeated[0]!r} is named twice")
        return value

    @field_validator("allowedFields")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [
            name
            for name in value
            if name not in (*SENDABLE, *SHOWN_BY_ACTIONS) and not _NAMED.fullmatch(name)
        ]
        if unknown:
            known = (*SENDABLE, *SHOWN_BY_ACTIONS, "entities.<name>", "extra.<name>", "texts.<name>")
            raise ValueError(f"no field {unknown[0]!r} can be sent; {nearest(unknown[0], known)}")
        return value

    @model_validator(mode="after")
    def _raw_ones_are_allowed(self) -> Policy:
        for name in self.rawFields:
            if not name.startswith(ENTITIES) or name not in self.allowedFields:
                raise ValueError(f"rawFields: {name!r} is no entity's id that `allowedFields` names")
        return self

    @property
    def model_names(self) -> tuple[str, ...]:
        """Names of the models that may be asked."""
        return tuple(model.name for model in self.allowedModels)

    def model(self, name: str) -> AllowedModel | None:
        """Return what is known of a model that may be asked, None when it may not."""
        return next((model for model in self.allowedModels if model.name == name), None)

    def allows_model(self, model: str) -> bool:
        """Return whether anything may be sent to `model`."""
        return self.model(model) is not None

    def allows(self, name: str) -> bool:
        """Return whether the field `name` may be sent."""
        needed = ("explanations", "amount", "currency") if name == "explanations" else (name,)
        return all(each in self.allowedFields for each in needed)

    def as_token(self, name: str) -> bool:
        """Return whether the field `name` may be sent as a token alone, never as it is."""
        return name.startswith(ENTITIES) and name not in self.rawFields


def checked_address(value: str) -> str:
    """Return an address that data may go to: https, or plain http on this machine, without credentials.

    Raises:
        ValueError: it is none; the message does not quote it, since webhooks hold secrets.
    """
    parts = urlsplit(value)
    encrypted = parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or ""))
    if not encrypted or not parts.hostname or parts.username is not None or parts.password is not None:
        raise ValueError("expected an https address without user or password")
    origin_of(value)
    return value


def checked_origin(value: str) -> str:
    """Return an origin as it is compared: scheme, host and port in lower case.

    Raises:
        ValueError: it is none; the message does not quote it.
    """
    parts = urlsplit(value)
    more = parts.path.rstrip("/") or parts.query or parts.fragment or parts.username is not None
    if parts.scheme not in ("http", "https") or more:
        raise ValueError("expected scheme, host and port, such as https://llm.example.org:8443")
    return origin_of(value)


def load_policy(name: str, folder: Path) -> Policy:
    """Read the policy `name`: a path when it looks like one, else `folder/name.json`.

    Raises:
        ConfigurationError: no such policy, or one with an unknown key, field or value.
    """
    path = resolve_named(name, folder, "policy", ".json")
    return load_document(named_file(path, "policy"), Policy)
