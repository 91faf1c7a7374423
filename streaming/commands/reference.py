"""The reference page, from the code: every key of a document, every variable, every command and option."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

import yaml
from pydantic_core import PydanticUndefined
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from schemas.contract import EventContract
from schemas.loading import Document, document_in, format_duration
from schemas.policy import Policy
from schemas.routes import Routes
from schemas.rules import RuleFile
from schemas.spec import AgentSpec
from streaming.home.variables import ANCHOR_PREFIX, VARIABLES
from streaming.output.terminal import say_line
from streaming.store.options import DEFAULTS, MEANINGS

_DOCUMENTS: Mapping[str, type[Document]] = {
    "Spec": AgentSpec,
    "Rules file": RuleFile,
    "Contract": EventContract,
    "Policy": Policy,
    "Routes file": Routes,
}
_BOUNDS = {
    "minimum": "at least",
    "exclusiveMinimum": "above",
    "maximum": "at most",
    "exclusiveMaximum": "below",
    "minLength": "characters at least",
    "maxLength": "characters at most",
}
_PREFACE = """# Reference

Every key of spec, contract, policy and routes file, every variable of the environment, every command and
option. This page is made from the code:
`flagstream spec reference > docs/reference.md`.

A duration is a number and a unit: `250ms`, `20s`, `10m`, `1.5h`, `30d`, `2w`. Unknown keys are errors.
"""
_ENVIRONMENT = f"""## Environment variables

Any other variable that begins with `FLAGSTREAM_` is an error, but for those that begin with
`{ANCHOR_PREFIX}AWS_` or `{ANCHOR_PREFIX}AZURE_`: what of a store's own variables is to
hold for the audit log's anchor alone.
"""
_STORE_OPTIONS = """`FLAGSTREAM_STORE_OPTIONS` takes these, with commas between them, such as
`timeout=10s,max_retries=8`. A duration is a whole number and `ms`, `s` or `m`.
"""


def show_reference(program: TyperGroup) -> None:
    """Print the page."""
    say_line(reference_page(program), end="")


def reference_page(program: TyperGroup) -> str:
    """Return the page as Markdown; `program` is the command line's root."""
    parts = [_PREFACE]
    seen: set[type[Document]] = set()
    for title, model in _DOCUMENTS.items():
        parts += _sections(title, model, seen)
    parts += [_environment(), "## Commands\n"]
    parts += [_command(" ".join(path), command) for path, command in commands_of(program)]
    return "\n".join(parts)


def commands_of(
    command: TyperGroup | TyperCommand, path: tuple[str, ...] = ("flagstream",)
) -> Iterator[tuple[tuple[str, ...], TyperCommand]]:
    """Yield every command that is shown to people, with the words that call it."""
    if isinstance(command, TyperGroup):
        for name, inner in command.commands.items():
            assert isinstance(inner, TyperGroup | TyperCommand)
            yield from commands_of(inner, (*path, name))
    elif not command.hidden:
        yield path, command


def _environment() -> str:
    variables = _table(("variable", "meaning"), [(f"`{name}`", said) for name, said in VARIABLES.items()])
    options = [
        (f"`{name}`", f"`{DEFAULTS[name]}`" if name in DEFAULTS else "the library's", meaning)
        for name, meaning in MEANINGS.items()
    ]
    head = ("option", "default", "meaning")
    return f"{_ENVIRONMENT}\n{variables}\n{_STORE_OPTIONS}\n{_table(head, options)}"


def _sections(title: str, model: type[Document], seen: set[type[Document]]) -> Iterator[str]:
    """Yield a document's section, then those of the documents within it that have had none."""
    seen.add(model)
    level = "##" if title in _DOCUMENTS else "###"
    yield f"{level} {title}\n\n{inspect.cleandoc(model.__doc__ or '')}\n\n{_keys(model)}"
    for field in model.model_fields.values():
        inner = document_in(field.annotation)
        if inner is not None and inner not in seen:
            yield from _sections(inner.__name__, inner, seen)


def _keys(model: type[Document]) -> str:
    properties = model.model_json_schema(by_alias=False)["properties"]
    rows = [_key(name, properties[name], model) for name in model.model_fields]
    return _table(("key", "value", "default", "meaning"), rows)


def _key(name: str, described: Mapping[str, Any], model: type[Document]) -> tuple[str, ...]:
    field = model.model_fields[name]
    default = "required" if field.is_required() else _default(field.get_default(call_default_factory=True))
    return f"`{field.alias or name}`", _value(described), default, field.description or ""


def _value(described: Mapping[str, Any]) -> str:
    """Say in words what a JSON Schema admits."""
    if "anyOf" in described:
        return " or ".join(dict.fromkeys(_value(each) for each in described["anyOf"]))
    if "$ref" in described:
        name = described["$ref"].rsplit("/", 1)[1]
        return f"[{name}](#{name.lower()})"
    if "enum" in described or "const" in described:
        return ", ".join(f"`{each}`" for each in described.get("enum", [described.get("const")]))
    bounds = [f"{words} {described[key]}" for key, words in _BOUNDS.items() if key in described]
    return ", ".join([_kind(described), *bounds])


def _kind(described: Mapping[str, Any]) -> str:
    kind = str(described.get("type", "any"))
    if kind == "array":
        inner: Mapping[str, Any] = described.get("items") or next(iter(described.get("prefixItems", [])), {})
        return f"list of {_value(inner)}"
    if kind == "object":
        return f"name → {_value(described.get('additionalProperties') or {})}"
    return {"string": str(described.get("format", "text")).replace("-", " "), "null": "null"}.get(kind, kind)


def _default(value: object) -> str:
    if isinstance(value, Document):
        return "see there"
    plain = yaml.safe_dump(_plain(value), default_flow_style=True, width=1_000).strip()
    return f"`{plain.removesuffix('...').strip()}`"


def _plain(value: object) -> object:
    if isinstance(value, timedelta):
        return format_duration(value)
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _command(called: str, command: TyperCommand) -> str:
    help_text = inspect.cleandoc(command.help or "")
    rows = [_parameter(each) for each in command.params if isinstance(each, TyperArgument | TyperOption)]
    return f"### {called}\n\n{help_text}\n\n{_table(('option', 'default', 'meaning'), rows)}"


def _parameter(each: TyperArgument | TyperOption) -> tuple[str, ...]:
    shown = (
        ", ".join(f"`{name}`" for name in each.opts) if isinstance(each, TyperOption) else f"`{each.name}`"
    )
    default = "required" if each.required else _option_default(each.default)
    return shown, default, each.help or ""


def _option_default(value: object) -> str:
    return "" if value in (None, PydanticUndefined, ()) or callable(value) else f"`{value}`"


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    if not rows:
        return ""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(each) for each in line) + " |" for line in lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
