"""The loop that programs of others run over alerts."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from schemas.errors import ConfigurationError
from streaming.consume.reader import AlertReader
from streaming.consume.received import Alert, Received
from streaming.consume.revisions import NewestRevisions
from streaming.home.settings import Settings
from streaming.kafka.broker import bootstrap_for

_OUR_GROUPS = "flagstream-"


def alerts(
    topic: str,
    *,
    group: str,
    brokers: str | None = None,
    config: Path | str | None = None,
    agent: str | None = None,
    follow: bool = True,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[Alert]:
    """Iterate over the alerts of a topic, from where this group was; streaming.consume has what is promised.

    An alert counts as done when the next one is asked for. The one at which a loop is left, by `break` or by
    an error, comes again.

    Args:
        topic: that alerts leave on.
        group: Kafka's consumer group, by which the place is kept; it begins at the topic's first alert.
            Several programs of one group share the partitions.
        brokers: their address; that of FLAGSTREAM_KAFKA unless given.
        config: a client.properties that says how to reach them; that of FLAGSTREAM_KAFKA_CONFIG unless given.
        agent: only alerts of this one.
        follow: wait for more; else end where the topic ends.
        stop: asked about five times a second; ends the loop.

    Returns:
        Alerts as documents, see `flagstream spec alert-schema`.

    Raises:
        ConfigurationError: brokers or group cannot be used, a right is missing, or an alert is of a later
            version than this reader knows.
        RetryableError: the broker does not answer, or without `follow` the topic is not there.
    """
    if group.startswith(_OUR_GROUPS):
        raise ConfigurationError(
            f"groups that begin with {_OUR_GROUPS} are flagstream's own: name another", key="group"
        )
    settings = _settings(brokers, config)
    return _alerts(settings, topic, group, agent, follow=follow, stop=stop)


def _alerts(
    settings: Settings, topic: str, group: str, agent: str | None, *, follow: bool, stop: Callable[[], bool]
) -> Iterator[Alert]:
    with bootstrap_for(settings) as bootstrap:
        reader = AlertReader(bootstrap, topic, group, agent, follow=follow)
        try:
            yield from _done_one_by_one(reader, stop)
        finally:
            reader.close()


def _settings(brokers: str | None, config: Path | str | None) -> Settings:
    """Return the settings of the environment, those given in the place of its own."""
    environ = dict(os.environ)
    if config is not None:
        environ.pop("FLAGSTREAM_KAFKA", None)
        environ["FLAGSTREAM_KAFKA_CONFIG"] = str(config)
    if brokers is not None:
        environ["FLAGSTREAM_KAFKA"] = brokers
    return Settings.load(Path(environ.get("FLAGSTREAM_HOME") or "var"), environ)


def _done_one_by_one(reader: AlertReader, stop: Callable[[], bool]) -> Iterator[Alert]:
    newest = NewestRevisions()
    while not stop() and not reader.at_end:
        fetched = reader.fetch()
        for each, is_newest in zip(fetched, newest.among(fetched), strict=True):
            if is_newest and isinstance(each, Received):
                yield each.alert
            reader.done(each)
