"""What an agent cannot begin without: how it is looked for, and how what a run has started is revived."""

from __future__ import annotations

from agent.model.local_llm import weights_file
from schemas.errors import MachineError, StoreError
from streaming.batch.mending import mend
from streaming.definition.agent_definition import AgentDefinition
from streaming.delta.faults import unusable
from streaming.home.placed_agent import PlacedAgent
from streaming.kafka.broker import EmbeddedBroker
from streaming.kafka.presence import broker_away
from streaming.kafka.schema_registry import schema_source
from streaming.service.health import Condition
from streaming.service.supervisor import Need
from streaming.service.worker import cause_of
from streaming.setup.cluster import check_cluster, master_away
from streaming.store.place import Place
from streaming.store.presence import store_away
from streaming.versions.clients import Clients
from streaming.versions.registry_table import read_entries, registry_place
from streaming.versions.registry_watch import spec_in_force

_REVIVE_SECONDS = 5.0


class Needs:
    """Disk, store, registry, broker, schema registry, cluster and model of one agent.

    Args:
        bootstrap: address of the broker.
        clients: know whom the agent asks.

    Attributes:
        lake_is_known: the lake has been there, so that its absence means that its disk is gone.
    """

    def __init__(self, agent: PlacedAgent, bootstrap: str, clients: Clients) -> None:
        self._agent = agent
        self._bootstrap, self._clients = bootstrap, clients
        self.lake_is_known = False

    def all(self) -> list[Need]:
        """Return them in the order in which they need each other."""
        return [
            Need(Condition.DISK_UNUSABLE, self.disk_fault),
            Need(Condition.STORE_AWAY, self.store_fault),
            Need(Condition.REGISTRY_UNREADABLE, self.registry_fault),
            Need(Condition.BROKER_AWAY, self.broker_fault),
            Need(Condition.SCHEMA_REGISTRY_AWAY, self.schema_registry_fault),
            Need(Condition.CLUSTER_AWAY, self.cluster_fault),
            Need(Condition.MODEL_AWAY, self.model_fault),
        ]

    def disk_fault(self) -> str | None:
        """Say why a batch could not be stored."""
        lake, checkpoint = self._lake, self._agent.settings.checkpoint(self._agent.name)
        faults = (
            unusable(lake.path, known=self.lake_is_known) if lake.is_local else None,
            unusable(checkpoint.parent),
        )
        return next((each for each in faults if each is not None), None)

    def store_fault(self) -> str | None:
        """Say why the store does not answer that the lake lies in.

        Raises:
            ConfigurationError: it does not admit this process, or there is no such bucket.
        """
        return store_away(self._lake)

    def registry_fault(self) -> str | None:
        """Say why the versions of the spec cannot be read.

        Raises:
            DataLossError: a power cut has torn what something rests on, see streaming.batch.mending.
        """
        try:
            mend(self._agent)
            read_entries(registry_place(self._agent))
        except (MachineError, StoreError, OSError) as fault:
            return cause_of(fault)
        return None

    def broker_fault(self) -> str | None:
        """Say why no broker can be reached; an embedded one that has died is started again."""
        try:
            self._revive_broker()
        except MachineError as fault:
            return cause_of(fault)
        return broker_away(self._bootstrap)

    def schema_registry_fault(self) -> str | None:
        """Say why the schema registry cannot be asked; None where the contract asks none.

        Raises:
            ConfigurationError: nobody has named one, it does not admit this agent, or is none.
        """
        if not AgentDefinition.of(self._agent.spec).contract.asks_registry:
            return None
        return schema_source(self._agent.settings).away()

    def cluster_fault(self) -> str | None:
        """Say why no master of the Spark cluster can be reached; None where none is used.

        Raises:
            ConfigurationError: executors cannot do what this agent needs.
        """
        settings = self._agent.settings
        if settings.cluster is None:
            return None
        contract = AgentDefinition.of(self._agent.spec).contract
        check_cluster(contract, self._bootstrap, settings.environ)
        return master_away(settings.cluster)

    def model_fault(self) -> str | None:
        """Say why the local model cannot be started; one that is wrongly configured raises.

        Raises:
            ConfigurationError: the endpoint cannot be used.
            MachineError: the weights are not installed.
        """
        try:
            self._clients.revive()
            self._clients.of(spec_in_force(self._agent))
        except StoreError as fault:
            return cause_of(fault)
        except MachineError as fault:
            weights_file()  # without them it never can
            return cause_of(fault)
        return None

    def revive(self) -> float:
        """Start the services again that this run has brought along and that have died.

        Returns:
            The seconds until it should be done again.

        Raises:
            MachineError: one of them does not come up.
        """
        self._revive_broker()
        self._clients.revive()
        return _REVIVE_SECONDS

    @property
    def _lake(self) -> Place:
        return self._agent.lake

    def _revive_broker(self) -> None:
        if self._agent.settings.kafka == "embedded":
            EmbeddedBroker.of(self._agent.settings).revive(self._bootstrap)
