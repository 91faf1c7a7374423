"""What may leave the machine and to which model: a small JSON file, denying whatever it does not name."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from pydantic import Field, field_validator

from schemas.errors import ConfigurationError, nearest
from schemas.loading import Document, load_document

SENDABLE = ("amount", "currency", "event_time", "score", "reasons", "explanations", "rules")
_NAMED = re.compile(r"(entities|texts)\.[A-Za-z_][A-Za-z0-9_]*")


class Policy(Document):
    """A policy file. An empty list allows nothing beyond a group's size, label and severity.

    `allowedFields` names the parts of a flagged transaction that may be sent: any of `SENDABLE`, an entity's
    id as `entities.<name>`, and a free text as `texts.<name>`. Explanations name amounts, so they leave only
    where `amount` and `currency` may.
    """

    policyName: str = Field(pattern=r"^[a-z][a-z0-9-]*$")  # noqa: N815 -- the key as written in the file
    allowedModels: tuple[str, ...] = ()  # noqa: N815 -- the key as written in the file
    allowedFields: tuple[str, ...] = ()  # noqa: N815 -- the key as written in the file

    @field_validator("allowedFields")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [name for name in value if name not in SENDABLE and not _NAMED.fullmatch(name)]
        if unknown:
            known = (*SENDABLE, "entities.<name>", "texts.<name>")
            raise ValueError(f"no field {unknown[0]!r} can be sent; {nearest(unknown[0], known)}")
        return value

    @property
    def digest(self) -> str:
        """SHA-256 of the whole policy, hex, as pinned in every batch."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    def allows_model(self, model: str) -> bool:
        """Tell whether anything may be sent to `model`."""
        return model in self.allowedModels

    def allows(self, name: str) -> bool:
        """Tell whether the field `name` may be sent."""
        needed = ("explanations", "amount", "currency") if name == "explanations" else (name,)
        return all(each in self.allowedFields for each in needed)


def load_policy(name: str, folder: Path) -> Policy:
    """Read the policy `name`: a path when it ends in `.json` or holds a slash, else `folder/name.json`.

    Raises:
        ConfigurationError: no such policy, or one with an unknown key, field or value.
    """
    if name.endswith(".json") or "/" in name:
        return load_document(Path(name), Policy)
    shipped = {path.stem: path for path in folder.glob("*.json")}
    if name not in shipped:
        raise ConfigurationError(f"no policy named {name!r}; {nearest(name, shipped)}")
    return load_document(shipped[name], Policy)
