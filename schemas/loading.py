"""Reads YAML documents into frozen pydantic models, turning every fault into a ConfigurationError.

Used for contracts, specs and policies alike, so that each of them names the file, the key, what was
expected and the nearest right name in the same words.
"""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar, cast, get_args

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainSerializer,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)
from pydantic_core import ErrorDetails

from schemas.errors import ConfigurationError, nearest

_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
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
_NEVER_SHOWN = (("api_key_env",), ("base_url",), ("workspace",))


class Document(BaseModel):
    """Base of all configuration models: frozen, unknown keys refused.

    `LATER` names keys that came after batches had pinned digests: while one stands at its default it is left
    out of what is dumped, so that documents which do not use it keep their digest.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    LATER: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _without_unused(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields = type(self).model_fields
        unused = {
            name
            for name in self.LATER
            if getattr(self, name) == fields[name].get_default(call_default_factory=True)
        }
        return {name: value for name, value in dump(self).items() if name not in unused}


Model = TypeVar("Model", bound=Document)


def load_document(path: Path, model: type[Model]) -> Model:
    """Read one YAML file into `model`.

    Raises:
        ConfigurationError: the file is missing, is not YAML, or does not fit the model.
    """
    return parse_document(_read(path), model, where=str(path))


def parse_document(content: object, model: type[Model], *, where: str) -> Model:
    """Validate already parsed content against `model`; see load_document."""
    if not isinstance(content, dict):
        raise ConfigurationError("expected a mapping of keys to values", where=where)
    try:
        return model.model_validate(content)
    except ValidationError as fault:
        faults = sorted(fault.errors(), key=lambda error: error["type"] != "extra_forbidden")
        raise _explain(faults[0], model, where) from None


def _read(path: Path) -> object:
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except FileNotFoundError:
        raise ConfigurationError("no such file", where=str(path)) from None
    except OSError as fault:
        raise ConfigurationError(f"cannot be read: {fault.strerror}", where=str(path)) from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as fault:
        raise ConfigurationError(f"not valid YAML: {fault}", where=str(path)) from None


def line_of(path: Path, key: str) -> int | None:
    """Return the line, from 1, at which a dotted key such as `rules.2.when` stands in a YAML file.

    Of a key that is not there it is the line of what would hold it; None when the file cannot be read.
    """
    try:
        node = yaml.compose(path.read_text(encoding="utf-8"), _Loader)
    except (OSError, yaml.YAMLError, UnicodeDecodeError):
        return None
    line = None if node is None else node.start_mark.line + 1
    for part in key.split("."):
        node = _child(node, part)
        if node is None:
            break
        line = node.start_mark.line + 1
    return line


def _child(node: yaml.Node | None, part: str) -> yaml.Node | None:
    if isinstance(node, yaml.MappingNode):
        return next((value for key, value in node.value if key.value == part), None)
    if isinstance(node, yaml.SequenceNode) and part.isdecimal() and int(part) < len(node.value):
        return cast("yaml.Node", node.value[int(part)])
    return None


class _Loader(yaml.SafeLoader):
    """A safe loader that refuses a key given twice, of which plain YAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in keys:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} is given twice", key_node.start_mark
                )
            keys.add(key)
        return super().construct_mapping(node, deep)


def _explain(fault: ErrorDetails, model: type[Document], where: str) -> ConfigurationError:
    key = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        hint = nearest(str(fault["loc"][-1]), _known_keys(model, fault["loc"][:-1]))
        return ConfigurationError(f"unknown key; {hint}", where=where, key=key)
    if fault["type"] == "missing":
        return ConfigurationError("this key is required", where=where, key=key)
    message = fault["msg"].removeprefix("Value error, ").replace("valid tuple", "list")
    given = fault["input"]
    shown_elsewhere = repr(given) in message or fault["loc"][-1:] in _NEVER_SHOWN
    plain = isinstance(given, str | int | float | bool) and not shown_elsewhere
    shown = f" (got {given!r})" if plain else ""
    return ConfigurationError(message + shown, where=where, key=key)


def _known_keys(model: type[Document], path: tuple[int | str, ...]) -> list[str]:
    current: Any = model
    for part in path:
        fields = getattr(current, "model_fields", {})
        annotation = fields[part].annotation if part in fields else current
        current = document_in(annotation) or current
    return list(getattr(current, "model_fields", {}))


def document_in(annotation: Any) -> type[Document] | None:
    """Return the first document that a type annotation holds, None where it holds none."""
    if isinstance(annotation, type) and issubclass(annotation, Document):
        return annotation
    for inner in get_args(annotation):
        found = document_in(inner)
        if found is not None:
            return found
    return None
