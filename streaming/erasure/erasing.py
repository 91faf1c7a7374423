"""Erases entities: from the first look to the last file, again and again until it has come to its end.

Every step leaves alone what is done already, so whoever enters the command once more finishes what an
interruption has left. Until then nobody opens the agent: an id would stand in one place, its token in
another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import pyarrow.compute as pc

from schemas.erasure import new_token
from schemas.errors import ConfigurationError
from schemas.lake_tables import lake_schemas
from streaming.batch.deciders import in_share
from streaming.definition.agent_definition import AgentDefinition
from streaming.delta.erasure_plan import Erasable, PlanFile
from streaming.delta.lake import Lake
from streaming.delta.maintenance import tables_below
from streaming.detection import checkpoints
from streaming.erasure.audit_trail import ErasureTrail
from streaming.erasure.decided import DecidedUnder
from streaming.erasure.naming import Subject
from streaming.erasure.places import ErasablePlaces
from streaming.erasure.renaming import Renaming
from streaming.erasure.work import TableWork
from streaming.history.snapshots import PROFILES, remade_snapshot, snapshots
from streaming.home.placed_agent import PlacedAgent
from streaming.run.ownership import owned
from streaming.service.health import is_running
from streaming.store.folders import Folders
from streaming.store.local_folders import LocalFolders
from streaming.store.place import Place
from streaming.store.whole_files import replace_file

Reached = Callable[[str], None]
"""Called before each step with its name; crash tests inject a kill here."""


@dataclass(frozen=True)
class Erased:
    """What an erasure has changed, or would change.

    Attributes:
        tokens: what stands for the ids now, in the order in which they were given; none of a trial.
        rows: table → rows that hold, or held, something of somebody.
        snapshots: how many were made anew.
        checkpoints: how many were written anew.
        kept: table → rows that name somebody and stay, since the table cannot be changed.
        young: files that nobody has committed and that are younger than a minute; they are left.
        unknown: `entity=id` of those that no stored transaction names, so that they may be misspelt. Not
            looked for where an interrupted erasure is finished, which may have replaced them.
    """

    tokens: tuple[str, ...] = ()
    rows: dict[str, int] = field(default_factory=dict)
    snapshots: int = 0
    checkpoints: int = 0
    kept: dict[str, int] = field(default_factory=dict)
    young: int = 0
    unknown: tuple[str, ...] = ()


class Erasure:
    """Erases entities of one agent.

    Args:
        agent: whose data it is.
        reached: see Reached.
    """

    def __init__(self, agent: PlacedAgent, reached: Reached = lambda _: None) -> None:
        self._agent, self._reached = agent, reached
        self._places = ErasablePlaces(agent)
        self._plans = PlanFile(self._places.lake)
        self._decided = DecidedUnder.of(
            self._places.reader, agent.spec, AgentDefinition.of(agent.spec).contract
        )

    def trial(self, wanted: Sequence[Erasable]) -> Erased:
        """Count what an erasure would change, and change nothing.

        Raises:
            ConfigurationError: there is no such entity, or nothing is stored.
        """
        self._check(wanted)
        work = self._work([Subject(*each, new_token()) for each in wanted])
        rows = {place.name: work.count(place) for place in self._places.tables()}
        found = len(snapshots(self._places.snapshots))
        held = sum(map(checkpoints.count, self._places.checkpoints()))
        kept = _found(work.mentions(self._places.reader))
        return Erased((), _found(rows), found, held, kept, unknown=self._unknown(wanted))

    def run(self, wanted: Sequence[Erasable], who: str, why: str) -> Erased:
        """Erase entities, or finish what an interruption has left of the same erasure.

        Raises:
            ConfigurationError: there is no such entity, nothing is stored, the agent runs, an erasure of
                others is not finished, or the reason names somebody.
            DataLossError: a snapshot is damaged.
            FencedError: an agent has taken the lake over at the same moment.
            RetryableError: somebody else has held the agent for a minute, and still does.
        """
        self._check(wanted, begun=self._plans.read() is not None)
        self._check_why(wanted, why)
        for each in snapshots(self._places.snapshots):
            each.check()
        self._check_not_running()
        with owned(self._agent):
            return self._planned(wanted, who, why)

    def _planned(self, wanted: Sequence[Erasable], who: str, why: str) -> Erased:
        left = self._plans.read()
        plan = left or self._plans.begin(wanted, who, why, self._drawn)
        subjects = [Subject(*each) for each in plan.tokens_of(wanted)]
        # Who starts the agent from here on sees the plan; who has started it just before is seen.
        if left is None and is_running(self._agent.settings.health(self._agent.name)):
            self._plans.remove()
        self._check_not_running()
        unknown = self._unknown(wanted) if left is None else ()
        trail = ErasureTrail(self._agent, plan)
        trail.begun()
        erased = self._erase(subjects)
        self._reached("audit")
        trail.done(erased.rows)
        self._reached("end")
        self._plans.remove()
        return replace(erased, unknown=unknown)

    def _erase(self, subjects: Sequence[Subject]) -> Erased:
        contract = AgentDefinition.of(self._agent.spec).contract
        self._reached("claim")
        # Whoever has been driving the agent, and wakes up, writes nothing more.
        Lake.open(
            self._places.lake,
            self._agent.spec,
            lake_schemas(contract),
            retention=self._agent.spec.replay_horizon,
        )
        work = self._work(subjects)
        rows, young = dict[str, int](), 0
        for place in self._places.tables():
            self._reached(place.name)
            rows[place.name], left = work.table(place, shared=self._places.is_shared(place))
            young += left
        held = sum(self._checkpoints(folder, work) for folder in self._places.checkpoints())
        copies = self._snapshots(work)
        self._leftovers(work)
        kept = _found(work.mentions(self._places.reader))
        return Erased(tuple(each.token for each in subjects), _found(rows), copies, held, kept, young)

    def _work(self, subjects: Sequence[Subject]) -> TableWork:
        return TableWork.of(self._decided, self._places, subjects)

    def _checkpoints(self, folders: Folders, work: TableWork) -> int:
        self._reached("checkpoints")
        folders.tidy()  # what a crash has left half-written is never read again
        return checkpoints.change_all(folders, work.states)

    def _snapshots(self, work: TableWork) -> int:
        # An interruption may have left one that is there under another name, and would come back later.
        self._places.snapshots.tidy()
        found = snapshots(self._places.snapshots)
        for each in found:
            self._reached(f"snapshot {each.name}")
            with remade_snapshot(each) as folder:
                for place in tables_below(Place.local(folder)):
                    work.table(place, shared=False)
                for profiles in checkpoints.all_below(LocalFolders.of(folder / PROFILES)):
                    checkpoints.change_all(profiles, work.states)
        return len(found)

    def _leftovers(self, work: TableWork) -> None:
        """What is kept beside tables: conditions may name an entity, notices what a plan has found."""
        self._reached("leftovers")
        self._agent.settings.health(self._agent.name).unlink(missing_ok=True)
        if self._places.notices.exists():
            before = self._places.notices.read_text(encoding="utf-8")
            replace_file(self._places.notices, work.renaming.text(before).encode())

    def _check(self, wanted: Sequence[Erasable], *, begun: bool = False) -> None:
        """Check who is to be erased; what is begun may be of a version that took ids as they came."""
        if self._places.reader.table("transactions") is None:
            raise ConfigurationError("nothing is stored yet", where=str(self._places.lake))
        for each in wanted:
            self._decided.naming.check(each.entity) if begun else self._decided.check(*each)
        self._decided.aliases(self._agent.settings, [])  # without their key nothing is begun

    def _check_why(self, wanted: Sequence[Erasable], why: str) -> None:
        subjects = [Subject(*each, "") for each in wanted]
        if Renaming(subjects, self._decided.naming).is_mentioned(why):
            raise ConfigurationError(
                "it names whom to erase, and would stay in the audit log, which allows no change: "
                "say why without the id",
                where="--why",
            )

    def _unknown(self, wanted: Sequence[Erasable]) -> tuple[str, ...]:
        return tuple("=".join(each) for each in wanted if not self._is_stored(each))

    def _is_stored(self, wanted: Erasable) -> bool:
        """Whether a transaction names somebody, under any of the entities that share ids."""
        table = self._places.reader.table("transactions")
        names = self._decided.naming.alike[wanted.entity]
        return table is not None and any(
            part.num_rows
            for name in names.intersection(table.schema.names)
            for part in table.parts([name], pc.field(name) == wanted.id)
        )

    def _check_not_running(self) -> None:
        if not is_running(self._agent.settings.health(self._agent.name)):
            return
        raise ConfigurationError(
            f"the agent {self._agent.name} is running: end it, erase, and start it again; what comes "
            "meanwhile waits on the topic",
            where=str(self._places.lake),
        )

    def _drawn(self, wanted: Erasable) -> str:
        """Draw a token that a canary decides for where it has decided for the id, so that replays agree."""
        percents = self._decided.percents
        while True:
            token = new_token()
            if all(in_share(token, each) == in_share(wanted.id, each) for each in percents):
                return token


def _found(rows: dict[str, int]) -> dict[str, int]:
    return {name: count for name, count in rows.items() if count}
