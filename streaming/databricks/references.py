"""References in a bundle, `${…}`: followed until none is left."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from schemas.errors import ConfigurationError

_REFERENCE = re.compile(r"\$\{([A-Za-z_][\w.-]*)\}")
_MOST_STEPS = 16

Lookup = Callable[[str], object]


def followed(value: Any, lookup: Lookup, place: str = "") -> Any:
    """Return a value with every reference in it replaced by what it names.

    Args:
        value: texts, numbers, lists and mappings.
        lookup: gives what a dotted name stands for.
        place: where the value stands, for errors.

    Raises:
        ConfigurationError: a reference that leads nowhere, or in a circle.
    """
    if isinstance(value, Mapping):
        return {key: followed(each, lookup, f"{place}.{key}".lstrip(".")) for key, each in value.items()}
    if isinstance(value, list):
        return [followed(each, lookup, f"{place}.{at}") for at, each in enumerate(value)]
    return _text(value, lookup, place) if isinstance(value, str) else value


def _text(value: str, lookup: Lookup, place: str) -> object:
    for _ in range(_MOST_STEPS):
        whole = _REFERENCE.fullmatch(value)
        found: object = (
            lookup(whole[1]) if whole else _REFERENCE.sub(lambda each: str(lookup(each[1])), value)
        )
        if not isinstance(found, str):
            return found
        value = found
        if not _REFERENCE.search(value):
            return value
    raise ConfigurationError("refers to itself, in a circle", key=place)


def in_tree(tree: Mapping[str, Any], name: str) -> object:
    """Return what a dotted name leads to; `var.x` is the value of a variable.

    Raises:
        ConfigurationError: it leads nowhere, or to a variable without a value.
    """
    parts = name.split(".")
    if parts[0] == "var":
        return _variable(tree, ".".join(parts[1:]))
    found: Any = tree
    for part in parts:
        if not isinstance(found, Mapping) or part not in found:
            raise ConfigurationError(f"${{{name}}} leads nowhere", where="databricks.yml")
        found = found[part]
    return found


def _variable(tree: Mapping[str, Any], name: str) -> object:
    known = (tree.get("variables") or {}).get(name)
    if known is None:
        raise ConfigurationError(f"no variable {name!r}", where="databricks.yml", key="variables")
    value = known.get("default")
    if value in (None, ""):
        meaning = known.get("description")
        raise ConfigurationError(
            f"has no value: give it with --var {name}=…, as BUNDLE_VAR_{name}, or as its default here"
            + (f" ({meaning})" if meaning else ""),
            where="databricks.yml",
            key=f"variables.{name}",
        )
    return value
