"""Reads a configuration file as plain values: YAML, or JSON where its name says so.

Whatever the bytes are, the outcome is a value or a ConfigurationError that names the file, within a bounded
time: files are regular and of limited size, aliases cannot multiply or form circles, nesting has an end, and
numbers and texts are such as all that comes after can hold.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, cast

import yaml

from schemas.errors import ConfigurationError, nearest

MOST_BYTES = 1 << 20
_MOST_DEPTH = 64
_MOST_NODES = 50_000
_MOST_DIGITS = 64
_TOO_MANY = f"more than {_MOST_NODES:,} values, aliases written out"
_SHOWN_CHARACTERS = 200
_WORDS = frozenset({"tag:yaml.org,2002:str", "tag:yaml.org,2002:binary"})


def read_content(path: Path) -> object:
    """Read a file: JSON where its name ends in `.json`, YAML otherwise.

    Raises:
        ConfigurationError: it is missing, no regular file, too large, or not what its name says.
    """
    parse = parse_json if path.suffix == ".json" else parse_yaml
    return parse(read_text(path), where=str(path))


def read_text(path: Path, most_bytes: int = MOST_BYTES) -> str:
    """Read a regular file of UTF-8.

    Raises:
        ConfigurationError: it is missing, cannot be read, is none, or is larger than `most_bytes`.
    """
    where = str(path)
    try:
        # Opened without waiting: a named pipe that nobody writes to would hold the reader for ever.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:  # noqa: PTH123 -- a descriptor
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise ConfigurationError("expected a regular file", where=where)
            content = file.read(most_bytes + 1)
        if len(content) > most_bytes:
            raise ConfigurationError(f"larger than {most_bytes:,} bytes", where=where)
        return decoded(content, where)
    except FileNotFoundError:
        raise ConfigurationError("no such file", where=where) from None
    except OSError as fault:
        raise ConfigurationError(f"cannot be read: {fault.strerror}", where=where) from None
    except ValueError:
        raise ConfigurationError("no name of a file", where=clipped(where)) from None


def decoded(content: bytes, where: str) -> str:
    """Return text that was stored as UTF-8.

    Raises:
        ConfigurationError: it is none.
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as fault:
        raise ConfigurationError(f"not UTF-8 at byte {fault.start}", where=where) from None


def parse_yaml(text: str, *, where: str) -> object:
    """Read one YAML document; see read_content."""
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _Weights().of(node)
        return checked(loader.construct_document(node), where)
    except ConfigurationError:
        raise
    except yaml.MarkedYAMLError as fault:
        mark, said = fault.problem_mark, clipped(fault.problem or "it cannot be read")
        place = "" if mark is None else f" at line {mark.line + 1}"
        raise ConfigurationError(f"not valid YAML{place}: {said}", where=where) from None
    except Exception as fault:  # the library raises whatever int(), datetime() or a look-up happens to raise
        raise ConfigurationError(f"not valid YAML: {_said(fault)}", where=where) from None


def parse_json(text: str | bytes, *, where: str) -> object:
    """Read one JSON document, of which no key may stand twice; see read_content."""
    try:
        return checked(json.loads(text, object_pairs_hook=_without_repeats, parse_constant=_no_number), where)
    except (ValueError, RecursionError) as fault:
        raise ConfigurationError(f"not valid JSON: {_said(fault)}", where=where) from None


def checked(value: object, where: str) -> object:
    """Return parsed content if all of it can be kept and written again.

    Raises:
        ConfigurationError: it is nested too deeply, a text holds a NUL or half a character, or a number is
            infinite or none; the last two name their key.
    """
    waiting: list[tuple[object, tuple[object, ...]]] = [(value, ())]
    while waiting:
        each, path = waiting.pop()
        if len(path) > _MOST_DEPTH:
            raise ConfigurationError(f"nested deeper than {_MOST_DEPTH} levels", where=where)
        if isinstance(each, str):
            _check_text(each, where)
        elif isinstance(each, float) and not math.isfinite(each):
            raise ConfigurationError(f"expected a finite number, got {each}", where=where, key=_key_of(path))
        elif isinstance(each, dict):
            waiting += ((part, (*path, name)) for name, held in each.items() for part in (name, held))
        elif isinstance(each, list | tuple | set):
            waiting += ((part, (*path, place)) for place, part in enumerate(each))
    return value


def _key_of(path: tuple[object, ...]) -> str:
    return clipped(".".join(map(str, path)))


def _check_text(text: str, where: str) -> None:
    try:
        usable = b"\0" not in text.encode("utf-8")
    except UnicodeEncodeError:
        usable = False
    if not usable:
        raise ConfigurationError(f"a text that is none: {clipped(ascii(text))}", where=where)


def is_path(name: str) -> bool:
    """Return whether a name stands for a file of its own, not for a shipped one."""
    return name.endswith((".yaml", ".yml", ".json")) or "/" in name


def resolve_named(name: str, folder: Path, kind: str, suffix: str = ".yaml") -> Path:
    """Return the file `name` stands for: a path when it looks like one, else `folder/name` with the suffix.

    Raises:
        ConfigurationError: no such name; the nearest shipped one is suggested.
    """
    if is_path(name):
        return Path(name)
    shipped = {path.stem: path for path in folder.glob(f"*{suffix}")}
    if name not in shipped:
        raise ConfigurationError(f"no {kind} named {name!r}; {nearest(name, shipped)}")
    return shipped[name]


def named_file(path: Path, kind: str) -> Path:
    """Return a path that somebody gave, if something is there.

    Args:
        kind: what it was named as, such as `contract`, for the error.

    Raises:
        ConfigurationError: there is no such file.
    """
    if path.exists():
        return path
    raise ConfigurationError(f"{kind} {path}: no such file")


def line_of(path: Path, key: str) -> int | None:
    """Return the line, from 1, at which a dotted key such as `rules.2.when` stands in a YAML file.

    Of a key that is not there it is the line of what would hold it; None when the file cannot be read.
    """
    try:
        node = _Loader(read_text(path)).get_single_node()
    except (ConfigurationError, yaml.YAMLError, RecursionError):
        return None
    line = None if node is None else node.start_mark.line + 1
    for part in key.split("."):
        node = _child(node, part)
        if node is None:
            break
        line = node.start_mark.line + 1
    return line


def place_of(where: str, key: str) -> str:
    """Return a place for an error: of a rule in a YAML file with its line, for there are many alike."""
    if not key.startswith("rules.") or not where.endswith((".yaml", ".yml")):
        return where
    line = line_of(Path(where), key)
    return where if line is None else f"{where}:{line}"


def clipped(text: str, characters: int = _SHOWN_CHARACTERS) -> str:
    """Return what is shown of a text in an error: its beginning."""
    return text if len(text) <= characters else f"{text[:characters]}…"


def _said(fault: Exception) -> str:
    if isinstance(fault, RecursionError):
        return "nested too deeply"
    plain = isinstance(fault, yaml.YAMLError | ValueError)
    return clipped(str(fault) if plain else f"{type(fault).__name__} {fault}")


def _child(node: yaml.Node | None, part: str) -> yaml.Node | None:
    if isinstance(node, yaml.MappingNode):
        return next((value for key, value in node.value if key.value == part), None)
    if isinstance(node, yaml.SequenceNode) and part.isdecimal() and int(part) < len(node.value):
        return cast("yaml.Node", node.value[int(part)])
    return None


_PLAIN: dict[str, re.Pattern[str]] = {
    "tag:yaml.org,2002:bool": re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z"),
    "tag:yaml.org,2002:int": re.compile(r"(?:0|-?[1-9][0-9]*)\Z"),
    "tag:yaml.org,2002:float": re.compile(
        r"(?:[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+][0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z"
    ),
}


def _resolvers() -> dict[str, list[tuple[str, re.Pattern[str]]]]:
    """Return what plain words are taken for, by their first character."""
    known = yaml.SafeLoader.yaml_implicit_resolvers
    return {first: [(tag, _PLAIN.get(tag, form)) for tag, form in each] for first, each in known.items()}


class _Loader(yaml.SafeLoader):
    """A safe loader that refuses a key given twice, of which plain YAML would silently keep the last.

    Plain words are what they look like: `yes`, `no`, `on` and `off` are texts, which YAML 1.1 takes for true
    and false, and so are `0010`, `0x1F` and `1:30`, which it takes for other numbers. Where a truth or a
    number is wanted, these texts are read as such.
    """

    yaml_implicit_resolvers = _resolvers()
    _composed = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self._composed += 1
        if self._composed > _MOST_NODES:
            raise yaml.YAMLError(_TOO_MANY)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys: set[Any] = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise _fault("expected a plain key", key_node)
            key = self.construct_object(key_node, deep=True)
            if key in keys:
                raise _fault(f"key {clipped(repr(key))} is given twice", key_node)
            keys.add(key)
        return super().construct_mapping(node, deep)


class _Weight(NamedTuple):
    nodes: int
    height: int


class _Weights:
    """How large the parts of a document are once every alias is written out."""

    def __init__(self) -> None:
        self._known: dict[int, _Weight | None] = {}

    def of(self, node: yaml.Node) -> _Weight:
        """Return the weight of a node.

        Raises:
            yaml.YAMLError: it is too large, too deep, or holds itself.
        """
        place = id(node)
        if place not in self._known:
            self._known[place] = None
            self._known[place] = self._whole(node)
        found = self._known[place]
        if found is None:
            raise _fault("an alias stands within what it names", node)
        return found

    def _whole(self, node: yaml.Node) -> _Weight:
        parts = [self.of(part) for part in _parts(node)]
        nodes = 1 + sum(part.nodes for part in parts)
        height = 1 + max((part.height for part in parts), default=0)
        if nodes > _MOST_NODES:
            raise _fault(_TOO_MANY, node)
        if height > _MOST_DEPTH:
            raise _fault(f"nested deeper than {_MOST_DEPTH} levels", node)
        return _Weight(nodes, height)


def _parts(node: yaml.Node) -> Sequence[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    if isinstance(node, yaml.SequenceNode):
        return cast("Sequence[yaml.Node]", node.value)
    if node.tag not in _WORDS and len(node.value) > _MOST_DIGITS:
        raise _fault(f"a number or date of more than {_MOST_DIGITS} characters", node)
    return ()


def _fault(problem: str, node: yaml.Node) -> yaml.YAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


def _without_repeats(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError("a key is given twice")
    return content


def _no_number(token: str) -> NoReturn:
    raise ValueError(f"{token} is no number")
