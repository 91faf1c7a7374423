"""A schema registry with Confluent's interface: schemas by their ids, each asked for once.

A registry never changes what stands under an id, so an answer is kept for as long as the process lives.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

import httpx2

from schemas.errors import ConfigurationError, RetryableError
from schemas.schema_texts import SchemaText
from streaming.events.writer_schemas import NO_REGISTRY, SchemaSource, UnreadableError, WriterSchemas
from streaming.home.settings import Settings

_SECONDS = 5.0
_UNKNOWN_SECONDS = 60.0
# Bytes that are no ids must not keep a batch asking for hours.
_MOST_UNKNOWN = 256
# Nor must they pile up in memory, as long as the process lives.
_MOST_REMEMBERED = 16 * _MOST_UNKNOWN
_MOST_BYTES = 4 << 20
_MOST_REFERENCES = 256
_OK, _UNAUTHORIZED, _FORBIDDEN, _NOT_FOUND = 200, 401, 403, 404
_QUESTIONS_FAULT, _PASSING = range(400, 500), (408, 429)
_LAST_ID = 2**31 - 1  # a registry's ids are int32
_UNKNOWN = UnreadableError("unknown_schema")


class _NotFoundError(Exception):
    """The registry has nothing of that name."""


class _RefusedError(RetryableError):
    """The registry takes the question for a wrong one: asking it again changes nothing."""


class SchemaRegistry:
    """A writer_schemas.SchemaSource that asks a registry.

    Args:
        address: of its interface, such as `https://host/apis/ccompat/v7`.
        login: user and password, None where it asks for none.
    """

    def __init__(self, address: str, login: tuple[str, str] | None = None) -> None:
        self._address = address.rstrip("/")
        self._login = login
        self._known: dict[tuple[str, int], SchemaText | UnreadableError] = {}
        self._unknown: dict[int, float] = {}

    def schemas(self, kind: str, ids: Iterable[int]) -> WriterSchemas:
        """See SchemaSource.

        Raises:
            ConfigurationError: it does not admit this agent, or is no registry.
            RetryableError: it is away.
        """
        found, unknown = dict[int, SchemaText | UnreadableError](), 0
        for each in ids:
            known = self._known.get((kind, each))
            if known is None and not self._is_unknown(each) and unknown < _MOST_UNKNOWN:
                known = self._schema(kind, each)
                unknown += known is _UNKNOWN
            found[each] = _UNKNOWN if known is None else known
        return found

    def away(self) -> str | None:
        """Say why the registry cannot be asked, None when it answers.

        Raises:
            ConfigurationError: it does not admit this agent, or is no registry.
        """
        try:
            self._get("/schemas/types")
        except RetryableError as fault:
            return str(fault)
        except _NotFoundError:
            raise ConfigurationError(
                "no schema registry with Confluent's interface answers here",
                where="FLAGSTREAM_SCHEMA_REGISTRY",
            ) from None
        return None

    def _is_unknown(self, number: int) -> bool:
        return (
            number > _LAST_ID
            or time.monotonic() - self._unknown.get(number, -_UNKNOWN_SECONDS) < _UNKNOWN_SECONDS
        )

    def _schema(self, kind: str, number: int) -> SchemaText | UnreadableError:
        try:
            self._known[kind, number] = self._fetched(kind, number)
        except (_NotFoundError, _RefusedError):
            self._remember_unknown(number)
            return _UNKNOWN
        return self._known[kind, number]

    def _remember_unknown(self, number: int) -> None:
        """Note that there is no such schema for now, and forget of whom that is no longer said."""
        if len(self._unknown) >= _MOST_REMEMBERED:
            self._unknown = {each: at for each, at in self._unknown.items() if self._is_unknown(each)}
        self._unknown[number] = time.monotonic()

    def _fetched(self, kind: str, number: int) -> SchemaText | UnreadableError:
        answer = self._get(f"/schemas/ids/{number}")
        if not isinstance(answer, dict) or not isinstance(answer.get("schema"), str):
            raise RetryableError("the schema registry's answer holds no schema")
        if answer.get("schemaType", "AVRO") != kind:
            return UnreadableError("unusable_schema", f"not a schema of {kind.capitalize()}")
        texts: dict[str, str] = {}
        try:
            self._refer(answer, texts, set())
        except (_NotFoundError, AttributeError, KeyError, TypeError, ValueError):
            return UnreadableError("unusable_schema", "refers to a schema that the registry does not have")
        return SchemaText(answer["schema"], tuple(texts.values()), tuple(texts))

    def _refer(self, answer: Mapping[str, Any], texts: dict[str, str], open_: set[str]) -> None:
        """Add what a schema refers to, each after those that it refers to itself."""
        for each in answer.get("references") or ():
            name = str(each["name"])
            if name in texts or name in open_ or len(open_) >= _MOST_REFERENCES:
                continue
            open_.add(name)
            subject = quote(str(each["subject"]), safe="")
            inner = self._get(f"/subjects/{subject}/versions/{int(each['version'])}")
            self._refer(inner, texts, open_)
            texts[name] = str(inner.get("schema", ""))

    def _client(self) -> httpx2.Client:
        """Return a client for one question: questions are too rare for a connection to be kept."""
        return httpx2.Client(auth=self._login, timeout=_SECONDS, follow_redirects=False, trust_env=False)

    def _get(self, path: str) -> Any:
        """Return the registry's answer.

        Raises:
            RetryableError: none came, or one of a registry that is not well, or that refuses the question.
        """
        try:
            with self._client() as client, client.stream("GET", self._address + path) as response:
                status, body = response.status_code, b""
                for part in response.iter_bytes():
                    body += part
                    if len(body) > _MOST_BYTES:
                        raise RetryableError("the schema registry answers with more than a schema")
        except httpx2.HTTPError as fault:
            raise RetryableError(f"the schema registry does not answer: {type(fault).__name__}") from None
        if status in (_UNAUTHORIZED, _FORBIDDEN):
            raise ConfigurationError(
                f"the schema registry refuses ({status}); set user:password",
                where="FLAGSTREAM_SCHEMA_REGISTRY_LOGIN",
            )
        if status == _NOT_FOUND:
            raise _NotFoundError
        if status in _QUESTIONS_FAULT and status not in _PASSING:
            raise _RefusedError(f"the schema registry answered {status}")
        if status != _OK:
            raise RetryableError(f"the schema registry answered {status}")
        try:
            return json.loads(body)
        except ValueError:
            raise RetryableError("the schema registry's answer is no JSON") from None


def schema_source(settings: Settings) -> SchemaSource:
    """Return the registry that the settings name, or what says that they name none."""
    if settings.schema_registry is None:
        return NO_REGISTRY
    login = settings.schema_registry_login
    user, _, password = ("" if login is None else login.get_secret_value()).partition(":")
    return SchemaRegistry(settings.schema_registry, (user, password) if user else None)
