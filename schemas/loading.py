"""Reads documents into frozen pydantic models, turning every fault into a ConfigurationError.

Used for contracts, specs and policies alike, so that each of them names the file, the key, what was
expected and the nearest right name in the same words.
"""

from __future__ import annotations

import hashlib
import re
from datetime import date, timedelta
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainSerializer,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from schemas.document_kinds import Kind, mistaken
from schemas.documents import clipped, place_of, read_content
from schemas.errors import ConfigurationError, nearest

_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_MOST_SAID = 1000
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)")


def parse_duration(value: object) -> timedelta:
    """Parse `90s`, `1.5h` or `30d` (units ms, s, m, h, d, w).

    Raises:
        ValueError: `value` is not a number followed by one of the units.
    """
    if isinstance(value, timedelta):
        return value
    match = _DURATION.fullmatch(str(value).strip())
    if match is None:
        raise ValueError(f"expected a duration such as 20s, 1h or 30d, got {value!r}")
    try:
        return timedelta(seconds=float(match[1]) * _UNITS[match[2]])
    except OverflowError:
        raise ValueError(f"expected a duration of at most some million years, got {value!r}") from None


def format_duration(value: timedelta) -> str:
    """Write a duration so that parse_duration reads it back: the largest unit that divides it."""
    seconds = value.total_seconds()
    for unit, size in sorted(_UNITS.items(), key=lambda item: -item[1]):
        if seconds and seconds % size == 0:
            return f"{int(seconds / size)}{unit}"
    return f"{seconds:.6f}".rstrip("0").rstrip(".") + "s"


Duration = Annotated[timedelta, BeforeValidator(parse_duration), PlainSerializer(format_duration)]


# Where people paste secrets by mistake.
_NEVER_SHOWN = frozenset(
    {"api_key_env", "base_url", "workspace", "url", "secrets", "password", "routing_key"}
)
_OF_SECTIONS = frozenset({"model_type", "model_attributes_type", "dict_type"})
_WORD = re.compile(r"[a-z_]{1,30}")
_QUOTED = re.compile(r"""['"].*['"]""", re.DOTALL)


class Document(BaseModel):
    """Base of all configuration models: frozen, unknown keys and numbers that are not finite refused.

    `LATER` names keys that came after batches had pinned digests: while one stands at its default it is left
    out of what is dumped, so that documents which do not use it keep their digest. Of a document that is
    `SECRETIVE` no value is ever quoted: people paste secrets into it, and not always where they belong.
    `KIND` is what a file of it is called, None where it is no file that people take for another.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    LATER: ClassVar[frozenset[str]] = frozenset()
    SECRETIVE: ClassVar[bool] = False
    KIND: ClassVar[Kind | None] = None

    @property
    def digest(self) -> str:
        """SHA-256 of the whole document, hex, as batches pin it."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    @model_serializer(mode="wrap")
    def _without_unused(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields = type(self).model_fields
        unused = {
            called
            for name in self.LATER
            if getattr(self, name) == fields[name].get_default(call_default_factory=True)
            for called in (name, fields[name].alias)
        }
        return {name: value for name, value in dump(self).items() if name not in unused}


Model = TypeVar("Model", bound=Document)


def load_document(path: Path, model: type[Model]) -> Model:
    """Read one file, JSON where its name says so and YAML otherwise, into `model`.

    Raises:
        ConfigurationError: the file is missing, is not what its name says, or does not fit the model.
    """
    try:
        content = read_content(path)
    except ConfigurationError as fault:
        if not model.SECRETIVE:
            raise
        problem = _QUOTED.sub("…", fault.problem)
        raise ConfigurationError(problem, where=str(path)) from None
    return parse_document(content, model, where=str(path))


def parse_document(content: object, model: type[Model], *, where: str) -> Model:
    """Validate already parsed content against `model`; see load_document."""
    if not isinstance(content, dict):
        raise ConfigurationError("expected a mapping of keys to values", where=where)
    try:
        return model.model_validate(content)
    except ValidationError as fault:
        another = None if model.KIND is None else mistaken(content, model.KIND)
        if another is not None:
            raise ConfigurationError(another, where=where) from None
        faults = sorted(fault.errors(), key=lambda error: error["type"] != "extra_forbidden")
        found = _explain(faults[0], model, where)
        raise ConfigurationError(found.problem, where=place_of(where, found.key), key=found.key) from None
    except (ArithmeticError, AttributeError, TypeError, RecursionError, re.error) as fault:
        # A check met a value that nobody thought of: still the document's fault, whatever it raised.
        said = type(fault).__name__ if model.SECRETIVE else clipped(repr(fault))
        raise ConfigurationError(f"cannot be used: {said}", where=where) from None


def _explain(fault: ErrorDetails, model: type[Document], where: str) -> ConfigurationError:
    key = clipped(".".join(_shown_part(part, model) for part in fault["loc"]))
    if fault["type"] == "extra_forbidden":
        hint = nearest(clipped(str(fault["loc"][-1])), _known_keys(model, fault["loc"][:-1]))
        return ConfigurationError(f"unknown key; {hint}", where=where, key=key)
    if fault["type"] == "missing":
        return ConfigurationError("this key is required", where=where, key=key)
    hidden = model.SECRETIVE or _may_be_secret(fault)
    if fault["type"] == "string_type" and not hidden and (quoted := _quoted(fault)) is not None:
        return ConfigurationError(f"expected text: put it in quotes, {quoted}", where=where, key=key)
    given = fault["input"]
    message = fault["msg"].removeprefix("Value error, ").replace("valid tuple", "list")
    message = (message.replace(repr(given), "…") if hidden else message)[:_MOST_SAID]
    plain = isinstance(given, str | int | float | bool) and not hidden and repr(given) not in message
    shown = f" (got {clipped(repr(given))})" if plain else ""
    return ConfigurationError(message + shown, where=where, key=key)


def _shown_part(part: int | str, model: type[Document]) -> str:
    """Return a key as it is shown: `{https://…}` in YAML has the address for a key."""
    hidden = model.SECRETIVE and isinstance(part, str) and not _WORD.fullmatch(part)
    return "…" if hidden else str(part)


def _may_be_secret(fault: ErrorDetails) -> bool:
    """Say whether a value may be one: it stands at a key that has secrets, or in place of a section."""
    return fault["type"] in _OF_SECTIONS or not _NEVER_SHOWN.isdisjoint(fault["loc"])


def _quoted(fault: ErrorDetails) -> str | None:
    """Return a value in quotes that was meant as text and is taken for something else, None for others."""
    given, place = fault["input"], fault["loc"][-1:]
    if not isinstance(given, bool | int | float | date | None):
        return None
    if given is None:
        return '"null"' if place and isinstance(place[0], int) else None
    return f'"{clipped(str(given).lower() if isinstance(given, bool) else str(given))}"'


def _known_keys(model: type[Document], path: tuple[int | str, ...]) -> list[str]:
    current: Any = model
    for part in path:
        field = next((field for name, field in _fields(current).items() if part in (name, field.alias)), None)
        annotation = current if field is None else field.annotation
        current = document_in(annotation) or current
    return [field.alias or name for name, field in _fields(current).items()]


def _fields(model: Any) -> dict[str, FieldInfo]:
    return getattr(model, "model_fields", {})


def document_in(annotation: Any) -> type[Document] | None:
    """Return the first document that a type annotation holds, None where it holds none."""
    if isinstance(annotation, type) and issubclass(annotation, Document):
        return annotation
    for inner in get_args(annotation):
        found = document_in(inner)
        if found is not None:
            return found
    return None
