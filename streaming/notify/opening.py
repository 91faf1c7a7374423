"""Receivers made of a routes file: secrets looked up, addresses checked, nothing sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from schemas.addresses import is_loopback
from schemas.errors import ConfigurationError
from schemas.loading import load_document
from schemas.routes import EmailTarget, PagerDutyTarget, Route, Routes, SlackTarget, WebhookTarget
from streaming.home.secret_places import looked_up
from streaming.notify import people
from streaming.notify.outcomes import Receiver, lowered, private_problem, reach_of
from streaming.notify.signing import secret_key
from streaming.notify.webhook import Webhook
from streaming.output.redaction import keep_secret


@dataclass(frozen=True)
class OpenRoute:
    """A route, and whom it leads to."""

    route: Route
    receiver: Receiver

    @property
    def kind(self) -> str:
        """How it is delivered: webhook, slack, email or pagerduty."""
        kinds = ("webhook", "slack", "email", "pagerduty")
        return next(each for each in kinds if getattr(self.route, each) is not None)


def open_routes(file: Path, environ: Mapping[str, str]) -> tuple[OpenRoute, ...]:
    """Read a routes file and make what delivers for it.

    Args:
        file: YAML, or JSON where its name says so.
        environ: where `${env:NAME}` is looked up.

    Raises:
        ConfigurationError: the file, a secret or an address cannot be used, named by its key; neither secrets
            nor addresses are quoted.
    """
    routes = load_document(file, Routes)
    opening = _RouteOpening(str(file), environ, routes.private_hosts)
    return tuple(OpenRoute(each, opening.receiver(each, place)) for place, each in enumerate(routes.routes))


@dataclass(frozen=True)
class _RouteOpening:
    where: str
    environ: Mapping[str, str]
    private_hosts: tuple[str, ...]

    def receiver(self, route: Route, place: int) -> Receiver:
        key, seconds = f"routes.{place}", route.timeout.total_seconds()
        try:
            if route.webhook is not None:
                return self._webhook(route.webhook, seconds, f"{key}.webhook")
            if route.slack is not None:
                return self._slack(route.slack, seconds, f"{key}.slack.url")
            if route.email is not None:
                return self._email(route.email, seconds, f"{key}.email")
            assert route.pagerduty is not None, "a route has one receiver"
            return self._pagerduty(route.pagerduty, seconds, f"{key}.pagerduty.routing_key")
        except ConfigurationError as fault:
            raise fault.within(self.where) from None

    def _webhook(self, target: WebhookTarget, seconds: float, key: str) -> Webhook:
        url = looked_up(target.url, self.environ, self.where, f"{key}.url")
        if url != target.url:
            keep_secret(url)
        reach = reach_of(url, self.private_hosts, http=target.http, key=f"{key}.url")
        keys = []
        for place, each in enumerate(target.secrets):
            name = f"{key}.secrets.{place}"
            try:
                keys.append(secret_key(self._secret(each, name)))
            except ValueError as fault:
                raise ConfigurationError(str(fault), key=name) from None
        return Webhook(url, keys, reach, seconds, f"{key}.url")

    def _slack(self, target: SlackTarget, seconds: float, key: str) -> people.People:
        url = self._secret(target.url, key)
        return people.slack(url, self.private_hosts, seconds, ids=target.ids, key=key)

    def _email(self, target: EmailTarget, seconds: float, key: str) -> people.People:
        problem = private_problem(target.server, self.private_hosts)
        known = target.server.lower() in lowered(self.private_hosts)
        if target.security == "none" and not (known or is_loopback(target.server)):
            problem = "is not this machine, nor in private_hosts: mail is encrypted on its way there"
        if problem is not None:
            raise ConfigurationError(f"the server {problem}", key=f"{key}.server")
        password = None if target.password is None else self._secret(target.password, f"{key}.password")
        return people.email(target, password, self.private_hosts, seconds, key=key)

    def _pagerduty(self, target: PagerDutyTarget, seconds: float, key: str) -> people.People:
        routing_key = self._secret(target.routing_key, key)
        return people.pagerduty(target, routing_key, self.private_hosts, seconds, key=key)

    def _secret(self, place: str, key: str) -> str:
        found = looked_up(place, self.environ, self.where, key)
        keep_secret(found)
        return found
