"""Rules in a file of their own: read again whenever the file changes, the last good ones staying in force."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from schemas.documents import place_of
from schemas.errors import ConfigurationError
from schemas.loading import load_document, parse_document
from schemas.rules import Rule, RuleFile
from schemas.spec import AgentSpec
from streaming.rules.rule_set import RuleSet
from streaming.service.health import Condition, Health
from streaming.service.last_read import LastRead

_Mark = tuple[int, int] | None


class RuleWatch:
    """Knows the rules in force under a spec: its own, then those of its file.

    Args:
        spec: names the file, if any.
        schema: what rules can use.
        entities: what rules over two events can be about.
        health: notified when the file cannot be used.
        last_read: what the run has read of it before.
    """

    def __init__(
        self,
        spec: AgentSpec,
        schema: pa.Schema,
        entities: Sequence[str] = (),
        health: Health | None = None,
        last_read: LastRead | None = None,
    ) -> None:
        self._spec, self.schema, self._entities = spec, schema, entities
        self._health, self._last_read = health or Health(), last_read or LastRead()
        self._key = ("rules", spec.model_dump_json())
        self._path = None if spec.rules_file is None else Path(spec.rules_file)
        self._seen: _Mark = None
        self._checked_mark: _Mark = None

    def load(self) -> AgentSpec:
        """Return the spec with all rules in it, and no file any more: complete, as batches pin it.

        Raises:
            ConfigurationError: a rule that cannot be used, with the file's line.
        """
        if self._path is None:
            RuleSet.compile(self._spec.rules, self.schema, self._entities)
            return self._spec
        self._seen = self._checked_mark = _mark(self._path)
        return self._with(self._read(self._path), self._path)

    def begin(self) -> AgentSpec:
        """Return the spec as `load` does; in a run that goes on, by the last good rules where it cannot.

        Raises:
            ConfigurationError: a rule that cannot be used, and none were read before.
        """
        return self._last_read.or_before(self._key, self._loaded, self._note_broken)

    def check(self) -> None:
        """Say whether the file as it now is can be used, without taking it: `changed` does, at a batch.

        Another thread may call it. What it says of a file that changes meanwhile, the next look puts right.
        """
        mark = None if self._path is None else _mark(self._path)
        if self._path is None or mark == self._checked_mark:
            return
        self._checked_mark = mark
        try:
            self._with(self._read(self._path), self._path)
        except ConfigurationError as fault:
            self._note_broken(fault)
        else:
            self._health.ends(Condition.RULES_FILE_BROKEN)

    def changed(self) -> AgentSpec | None:
        """Return the spec with the rules as they now are, None when the file is as it was, or broken.

        A broken one is a condition until the file can be used again.
        """
        if self._path is None or _mark(self._path) == self._seen:
            return None
        try:
            spec = self._loaded()
        except ConfigurationError as fault:
            self._note_broken(fault)
            return None
        self._last_read.note(self._key, spec)
        return spec

    def _loaded(self) -> AgentSpec:
        spec = self.load()
        self._health.ends(Condition.RULES_FILE_BROKEN)
        return spec

    def _note_broken(self, fault: ConfigurationError) -> None:
        self._health.begins(Condition.RULES_FILE_BROKEN, f"{fault}; the rules in force stay")

    def _read(self, path: Path) -> tuple[Rule, ...]:
        try:
            more = load_document(path, RuleFile).rules
            RuleSet.compile(more, self.schema, self._entities)
        except ConfigurationError as fault:
            raise self._placed(fault, path) from None
        return more

    def _with(self, more: tuple[Rule, ...], path: Path) -> AgentSpec:
        whole = {**self._spec.model_dump(), "rules": (*self._spec.rules, *more), "rules_file": None}
        return parse_document(whole, AgentSpec, where=str(path))

    @staticmethod
    def _placed(fault: ConfigurationError, path: Path) -> ConfigurationError:
        place = fault.where or str(path)
        return ConfigurationError(fault.problem, where=place_of(place, fault.key), key=fault.key)


def _mark(path: Path) -> _Mark:
    """What tells one state of a file from another; None when it is not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size
