"""The routes file: which alerts are sent where, and how each receiver is reached."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

from schemas.alert import Category
from schemas.cases import CaseChange
from schemas.loading import Document, Duration
from schemas.rules import Severity

_PLACE = re.compile(r"\$\{(?:env|file):[^}]+\}")
_MOST_SECRETS = 2


def _a_place(value: str) -> str:
    if not _PLACE.fullmatch(value):
        raise ValueError("a secret does not stand in this file: write ${env:NAME} or ${file:/path}")
    return value


SecretPlace = Annotated[
    str, AfterValidator(_a_place), Field(description="the place of a secret: ${env:NAME} or ${file:/path}")
]
Host = Annotated[str, Field(min_length=1, max_length=253)]


class When(Document):
    """Which alerts a route takes; a list that is empty admits all.

    A route that names changes of cases (`case`) takes these and no alerts; `severity` is then the case's.
    """

    severity: tuple[Severity, ...] = ()
    classification: tuple[Category, ...] = ()
    revisions: Literal["all", "first"] = Field(
        default="all", description="`first` leaves out the model's late answers"
    )
    case: tuple[CaseChange, ...] = Field(
        default=(), description="changes of cases, which are taken in the place of alerts"
    )

    @model_validator(mode="after")
    def _of_cases_or_of_alerts(self) -> When:
        if self.case and (self.classification or self.revisions != "all"):
            raise ValueError("`classification` and `revisions` are of alerts, and `case` takes none")
        return self


class WebhookTarget(Document):
    """An address that takes alerts as signed requests.

    The newest secret stands first; while a receiver goes over to it, the one before stands second and signs,
    too. Secrets are `whsec_` and base64 of 24 to 64 bytes. An address that is itself a secret may be given by
    its place.
    """

    url: Annotated[str, Field(min_length=1, max_length=2_000)]
    secrets: tuple[SecretPlace, ...] = Field(min_length=1, max_length=_MOST_SECRETS)
    http: bool = Field(default=False, description="the address may be one that is not encrypted")


class SlackTarget(Document):
    """An incoming webhook of Slack. `ids` admits ids of entities to the text."""

    url: SecretPlace
    ids: bool = False


class EmailTarget(Document):
    """Addresses that alerts are mailed to. `ids` admits ids of entities to the text."""

    server: Host
    port: int | None = Field(default=None, ge=1, le=65_535, description="587, 465 for `tls`, 25 for `none`")
    security: Literal["starttls", "tls", "none"] = Field(
        default="starttls", description="`none` for this machine alone, or a host among `private_hosts`"
    )
    user: str | None = None
    password: SecretPlace | None = None
    sender: Annotated[str, Field(pattern=r"^[^@\s<>]+@[^@\s<>]+$")]
    to: tuple[Annotated[str, Field(pattern=r"^[^@\s<>,]+@[^@\s<>,]+$")], ...] = Field(
        min_length=1, max_length=50
    )
    ids: bool = False

    @model_validator(mode="after")
    def _a_whole_login(self) -> EmailTarget:
        if (self.user is None) != (self.password is None):
            raise ValueError("a login is a user and a password")
        return self


class PagerDutyTarget(Document):
    """A service of PagerDuty, by its integration key. `ids` admits ids of entities to the text."""

    routing_key: SecretPlace
    region: Literal["us", "eu"] = "us"
    ids: bool = False


class Route(Document):
    """Alerts of one kind on their way to one receiver, in order, each until it has arrived.

    Exactly one of `webhook`, `slack`, `email` and `pagerduty` says who receives them.
    """

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,40}$")]
    when: When = When()
    webhook: WebhookTarget | None = None
    slack: SlackTarget | None = None
    email: EmailTarget | None = None
    pagerduty: PagerDutyTarget | None = None
    begins: Literal["newest", "oldest"] = Field(
        default="newest", description="a new route takes what comes from now on, or all that the topic holds"
    )
    timeout: Duration = Field(default=timedelta(seconds=10), gt=timedelta(0), le=timedelta(minutes=1))
    give_up_after: Duration = Field(
        default=timedelta(days=1),
        gt=timedelta(0),
        description="an alert that has not arrived for so long is set aside",
    )

    @model_validator(mode="after")
    def _one_receiver(self) -> Route:
        given = [each for each in (self.webhook, self.slack, self.email, self.pagerduty) if each is not None]
        if len(given) != 1:
            raise ValueError("name exactly one of webhook, slack, email and pagerduty")
        return self


class Routes(Document):
    """Where alerts are sent. `private_hosts` names hosts that may lie in a private network."""

    SECRETIVE: ClassVar[bool] = True

    private_hosts: tuple[Host, ...] = ()
    routes: tuple[Route, ...] = Field(min_length=1, max_length=50)

    @model_validator(mode="after")
    def _names_of_their_own(self) -> Routes:
        names = [each.name for each in self.routes]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"two routes are called {repeated[0]!r}")
        return self
