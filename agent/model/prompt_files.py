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

from pydantic import Field

from schemas.alert import CATEGORIES
from schemas.documents import parse_yaml, read_text
from schemas.errors import ConfigurationError, nearest
from schemas.llm import Llm, PromptReference
from schemas.loading import Document, parse_document
from schemas.rules import SEVERITIES

PROMPTS = Path(__file__).parent.parent / "prompts"
_LAYOUT = re.compile(r"---\n(.*?)\n---\n+# system\n+(.*?)\n+# user\n+(.*)", re.DOTALL)
_SYSTEM_NAMES = frozenset({"classifications", "severities", "fields"})
_USER_NAMES = frozenset({"data", "ids"})


class ModelNeeds(Document):
    """What a model must offer to be asked with a prompt; output tokens are counted per group."""

    least_context_tokens: int = Field(ge=1)
    least_output_tokens: int = Field(ge=1)


class FrontMatter(Document):
    """What stands above a prompt: its id, its version, what it needs, and what changed in each version."""

    id: str = Field(pattern=r"^[a-z][a-z0-9_-]*$")
    version: int = Field(ge=1)
    model: ModelNeeds
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
    needs: ModelNeeds
    digest: str


@dataclass(frozen=True)
class Prompt:
    """A loaded prompt. `system` is complete, `user` still wants `$data` and `$ids`."""

    id: str
    version: int
    system: str
    user: Template
    needs: ModelNeeds
    digest: str

    def render(self, groups: Mapping[str, str]) -> Messages:
        """Put the data of groups, request id → its JSON, into the user message."""
        data = ",".join(f'"{request_id}":{facts}' for request_id, facts in groups.items())
        return Messages(self.system, self.user.substitute(data=f"{{{data}}}", ids=", ".join(groups)))


def load_prompt(reference: PromptReference, fields: str, folder: Path = PROMPTS) -> Prompt:
    """Load `folder/<id>/v<version>.md`; `fields` are the contract's notes on its fields.

    Raises:
        ConfigurationError: no such file, a broken layout, front matter at odds with the file's name, or
            a part that lacks a placeholder or names an unknown one.
    """
    found = load_wording(reference, _SYSTEM_NAMES, _USER_NAMES, folder)
    system = found.system.substitute(_definitions(), fields=fields)
    return Prompt(found.id, found.version, system, found.user, found.needs, found.digest)


def load_wording(
    reference: PromptReference,
    system_names: frozenset[str],
    user_names: frozenset[str],
    folder: Path = PROMPTS,
) -> Wording:
    """Load a prompt file whose parts hold exactly these placeholders; see load_prompt."""
    path = _path(reference, folder)
    if not path.exists():
        raise _absent(reference, folder)
    text = read_text(path)
    wording = _parse(text, reference, str(path))
    _check(wording.system, system_names, f"{path}: system")
    _check(wording.user, user_names, f"{path}: user")
    return wording


def check_needs(prompt: Prompt, llm: Llm) -> None:
    """Check that what a spec says of its model is enough for the prompt.

    Raises:
        ConfigurationError: its context, or the answer it may give about a group, is too short.
    """
    needs = prompt.needs
    if llm.context_tokens < needs.least_context_tokens:
        raise ConfigurationError(f"it needs llm.context_tokens of {needs.least_context_tokens} or more")
    if llm.max_output_tokens < needs.least_output_tokens:
        raise ConfigurationError(f"it needs llm.max_output_tokens of {needs.least_output_tokens} or more")


def is_shipped(reference: PromptReference, folder: Path = PROMPTS) -> bool:
    """Return whether a prompt is still there: the wording of an old version may have gone."""
    return _path(reference, folder).is_file()


def _path(reference: PromptReference, folder: Path) -> Path:
    return folder / reference.id / f"v{reference.version}.md"


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
    parts = (Template(layout[2].strip()), Template(layout[3].strip()))
    return Wording(matter.id, matter.version, *parts, matter.model, digest)


def _front_matter(text: str, where: str) -> FrontMatter:
    return parse_document(parse_yaml(text, where=where), FrontMatter, where=where)


def _check(part: Template, names: frozenset[str], where: str) -> None:
    found = set(part.get_identifiers()) if part.is_valid() else set()
    if found != names:
        wanted = ", ".join(f"${name}" for name in sorted(names))
        raise ConfigurationError(f"expected exactly the placeholders {wanted}", where=where)


def _definitions() -> dict[str, str]:
    return {
        "classifications": "\n".join(f"- {name}: {meaning}" for name, meaning in CATEGORIES.items()),
        "severities": ", ".join(SEVERITIES),
    }
