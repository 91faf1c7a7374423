"""The plan of an erasure that is under way: which tokens it has given out, until it has come to its end.

It never holds an id: the command that finishes what an interruption has left is entered with the same ids,
which are known again by a salted hash. With the plan goes all that leads from an id to its token.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from pydantic import ConfigDict

from schemas.counts import count_of
from schemas.documents import decoded, parse_json
from schemas.errors import ConfigurationError
from schemas.loading import Document, parse_document
from streaming.store.opening import files_of
from streaming.store.place import Place

_NAME = "erasure.json"
_SALT_BYTES = 16
_COST = {"n": 2**14, "r": 8, "p": 1}


class Erasable(NamedTuple):
    """An entity somebody wants erased."""

    entity: str
    id: str


class PlannedToken(Document):
    """What stands for an id.

    Attributes:
        entity: the entity's name.
        check: salted hash of the id.
        token: what takes its place.
    """

    entity: str
    check: str
    token: str


class ErasurePlan(Document):
    """An erasure that is under way.

    Attributes:
        number: tells it from others in the audit log.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    number: str
    begun_at: datetime
    who: str
    why: str
    salt: str
    tokens: tuple[PlannedToken, ...]

    def tokens_of(self, wanted: Sequence[Erasable]) -> list[tuple[str, str, str]]:
        """Return entity, id and token of each that is wanted.

        Raises:
            ConfigurationError: the plan is one for others.
        """
        known = {(each.entity, each.check): each.token for each in self.tokens}
        found = [(*each, known.get((each.entity, _check(self.salt, each)), "")) for each in wanted]
        if len(wanted) != len(self.tokens) or not all(token for *_, token in found):
            raise ConfigurationError(
                f"an erasure of {count_of(len(self.tokens), 'id')} was begun on "
                f"{self.begun_at:%Y-%m-%d %H:%M} by {self.who} and is not finished: enter that command once "
                "more, with the same ids",
                where="--entity",
            )
        return found


class PlanFile:
    """Where the plan lies: in the lake, so that whoever opens it knows that an erasure is under way."""

    def __init__(self, lake: Place) -> None:
        self._files = files_of(lake)

    def read(self) -> ErasurePlan | None:
        """Return the plan, None where none is under way.

        Raises:
            ConfigurationError: the file holds something else.
        """
        held, where = self._files.read(_NAME), str(self._files.place / _NAME)
        if held is None:
            return None
        return parse_document(parse_json(decoded(held.content, where), where=where), ErasurePlan, where=where)

    def begin(
        self, wanted: Sequence[Erasable], who: str, why: str, draw: Callable[[Erasable], str]
    ) -> ErasurePlan:
        """Plan an erasure, unless somebody else has just planned one; return the plan that is there.

        Args:
            draw: gives a random token for an id.
        """
        salt = secrets.token_hex(_SALT_BYTES)
        tokens = tuple(
            PlannedToken(entity=each.entity, check=_check(salt, each), token=draw(each)) for each in wanted
        )
        plan = ErasurePlan(
            number=secrets.token_hex(_SALT_BYTES),
            begun_at=datetime.now(UTC),
            who=who,
            why=why,
            salt=salt,
            tokens=tokens,
        )
        self._files.create(_NAME, plan.model_dump_json().encode())
        found = self.read()
        assert found is not None, "it was just written"
        return found

    def remove(self) -> None:
        """End the erasure: from here on nothing leads from an id to its token."""
        self._files.remove(_NAME)


def check_none_under_way(lake: Place) -> None:
    """Check that no erasure was interrupted, which leaves an id in some places and its token in others.

    Raises:
        ConfigurationError: one was.
    """
    plan = PlanFile(lake).read()
    if plan is not None:
        raise ConfigurationError(
            f"an erasure begun on {plan.begun_at:%Y-%m-%d %H:%M} by {plan.who} is not finished: enter the "
            "same `flagstream erase` once more",
            where=str(lake),
        )


def _check(salt: str, wanted: Erasable) -> str:
    content = "\n".join(wanted).encode("utf-8", "surrogatepass")
    return hashlib.scrypt(content, salt=bytes.fromhex(salt), n=_COST["n"], r=_COST["r"], p=_COST["p"]).hex()
