"""Prompt files: versioned Markdown with YAML front matter, a system part and a user part.

A prompt never changes under its version: a new wording is a new file, because answers on record are found
again by prompt id and version.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template

import yaml
from pydantic import Field

from schemas.alert import CLASSIFICATIONS
from schemas.errors import ConfigurationError, nearest
from schemas.loading import Document, parse_document
from schemas.spec import SEVERITIES, PromptReference

PROMPTS = Path(__file__).parent / "prompts"
_LAYOUT = re.compile(r"---\n(.*?)\n---\n+# system\n+(.*?)\n+# user\n+(.*)", re.DOTALL)
_SYSTEM_NAMES = frozenset({"classifications", "severities", "fields"})
_USER_NAMES = frozenset({"data", "id"})


class FrontMatter(Document):
    """What stands above a prompt: its id, its version and what changed in each version."""

    id: str = Field(pattern=r"^[a-z][a-z0-9_-]*$")
    version: int = Field(ge=1)
    changelog: Mapping[int, str]


@dataclass(frozen=True)
class Messages:
    """The two messages of one request."""

    system: str
    user: str


@dataclass(frozen=True)
class Wording:
    """A prompt file as it stands; both parts still want their placeholders."""

    id: str
    version: int
    system: Template
    user: Template
    digest: str


@dataclass(frozen=True)
class Prompt:
    """A loaded prompt. `system` is complete, `user` still wants `$data` and `$id`."""

    id: str
    version: int
    system: str
    user: Template
    digest: str

    def render(self, data: str, request_id: str) -> Messages:
        """Put one group's data, already encoded as JSON, into the user message."""
        return Messages(self.system, self.user.substitute(data=data, id=request_id))


def load_prompt(reference: PromptReference, fields: str, folder: Path = PROMPTS) -> Prompt:
    """Load `folder/<id>/v<version>.md`; `fields` are the contract's notes on its fields.

    Raises:
        ConfigurationError: no such file, a broken layout, front matter at odds with the file's name, or
            a part that lacks a placeholder or names an unknown one.
    """
    found = load_wording(reference, _SYSTEM_NAMES, _USER_NAMES, folder)
    system = found.system.substitute(_definitions(), fields=fields)
    return Prompt(found.id, found.version, system, found.user, found.digest)


def load_wording(
    reference: PromptReference,
    system_names: frozenset[str],
    user_names: frozenset[str],
    folder: Path = PROMPTS,
) -> Wording:
    """Load a prompt file whose parts hold exactly these placeholders; see load_prompt."""
    path = folder / reference.id / f"v{reference.version}.md"
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise _absent(reference, folder) from None
    wording = _parse(text, reference, str(path))
    _check(wording.system, system_names, f"{path}: system")
    _check(wording.user, user_names, f"{path}: user")
    return wording


def _absent(reference: PromptReference, folder: Path) -> ConfigurationError:
    prompts = [each.name for each in folder.iterdir() if each.is_dir()]
    if reference.id not in prompts:
        return ConfigurationError(f"no prompt {reference.id!r}; {nearest(reference.id, prompts)}")
    there = ", ".join(sorted(each.stem for each in (folder / reference.id).glob("v*.md")))
    return ConfigurationError(f"no version {reference.version} of prompt {reference.id!r}, only: {there}")


def _parse(text: str, reference: PromptReference, where: str) -> Wording:
    layout = _LAYOUT.fullmatch(text)
    if layout is None:
        raise ConfigurationError("expected front matter, then '# system' and '# user'", where=where)
    matter = _front_matter(layout[1], where)
    if (matter.id, matter.version) != (reference.id, reference.version) or (
        matter.version not in matter.changelog
    ):
        raise ConfigurationError("front matter and file name disagree, or no changelog entry", where=where)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return Wording(
        matter.id, matter.version, Template(layout[2].strip()), Template(layout[3].strip()), digest
    )


def _front_matter(text: str, where: str) -> FrontMatter:
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as fault:
        raise ConfigurationError(f"front matter is not valid YAML: {fault}", where=where) from None
    return parse_document(content, FrontMatter, where=where)


def _check(part: Template, names: frozenset[str], where: str) -> None:
    found = set(part.get_identifiers()) if part.is_valid() else set()
    if found != names:
        wanted = ", ".join(f"${name}" for name in sorted(names))
        raise ConfigurationError(f"expected exactly the placeholders {wanted}", where=where)


def _definitions() -> dict[str, str]:
    return {
        "classifications": "\n".join(f"- {name}: {meaning}" for name, meaning in CLASSIFICATIONS.items()),
        "severities": ", ".join(SEVERITIES),
    }
