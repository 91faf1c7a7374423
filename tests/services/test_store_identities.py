"""Tokens of Azure's identities are fetched anew in time; who is refused waits, or ends with a sentence.

The emulator checks who has issued a token, for what and until when; who gives them belongs to the tests.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from functools import partial
from itertools import count
from pathlib import Path

import pyarrow as pa
import pytest

from schemas.errors import ConfigurationError, StoreError
from streaming.delta.lake_table import LakeTable, Stamp
from streaming.delta.table_versions import open_for_reading
from streaming.delta.whole_tables import read_stored
from streaming.home.settings import Settings
from streaming.service.health import Condition
from streaming.store.object_files import ObjectFiles
from streaming.store.options import store_options
from streaming.store.place import Place
from streaming.testing.drivers import wait_until
from streaming.testing.spoiled_store import SpoiledStore, token_key
from streaming.testing.stores import RunningStore, azurite_of_identities, surroundings
from tests.azure_identity import RENEWED_BEFORE_SECONDS, WAYS, Identities, identities
from tests.integration.test_command_line import Topic
from tests.secured_broker import make_certificates
from tests.services.test_store_agent import texts_of
from tests.services.test_store_outages import all_is_well
from tests.waiting_agent import WaitingAgent

SCHEMA = pa.schema([("n", pa.int64())])
SOON = store_options("timeout=5s,max_retries=2,retry_timeout=2s,backoff_config.max_backoff=100ms", "test")
RENEWALS = 3
every_way = pytest.mark.parametrize("store", WAYS, indirect=True)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("authority") / "certificates"
    make_certificates(folder)
    return folder


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory, certificates: Path) -> Iterator[RunningStore]:
    folder = tmp_path_factory.mktemp("emulator")
    cache = Settings.load(folder, os.environ).cache
    with azurite_of_identities(cache, folder, certificates / "broker.pem", certificates / "ca.pem") as store:
        yield store


@pytest.fixture
def tokens(tmp_path: Path, certificates: Path) -> Iterator[Identities]:
    with identities(tmp_path, certificates / "broker.pem") as found:
        yield found


@pytest.fixture
def store(
    request: pytest.FixtureRequest, emulator: RunningStore, tokens: Identities
) -> Iterator[RunningStore]:
    """An empty prefix of the emulator, whose environment names an identity."""
    way = getattr(request, "param", "workload identity")
    own = replace(emulator.elsewhere(), environment={**emulator.environment, **tokens.environment(way)})
    with surroundings(own):
        yield own


def table(place: Place) -> LakeTable:
    return LakeTable(place / "rows", SCHEMA, "agent/epoch", timedelta(days=30))


def claimed(store: RunningStore) -> LakeTable:
    found = table(replace(store.place, options=SOON))
    found.claim(1)
    return found


def row(number: int) -> pa.Table:
    return pa.table({"n": [number]}, schema=SCHEMA)


def keys(spoiled: SpoiledStore, below: str) -> set[str]:
    return {each.key for each in spoiled.requests if below in f"{each.path}?{each.query}"}


@every_way
def test_tokens_are_fetched_anew_by_both_libraries(
    store: RunningStore, spoiled: SpoiledStore, tokens: Identities
) -> None:
    driver, files, numbers = claimed(store), ObjectFiles(store.place / "files"), count()

    def renewed() -> bool:
        number = next(numbers)
        driver.append(row(number), Stamp("q", number))
        assert files.create(f"{number}", b"") is not None
        return all(len(keys(spoiled, below)) > RENEWALS for below in ("/rows/", "/files/"))

    wait_until(renewed, 60, "tokens to be renewed")
    assert {each.key for each in spoiled.requests} <= {token_key(each) for each in tokens.given}
    found = read_stored(store.place / "rows")
    assert found is not None
    assert sorted(found["n"].to_pylist()) == list(range(next(numbers)))


def test_a_token_is_used_for_as_long_as_it_is_good(store: RunningStore, tokens: Identities) -> None:
    """Straight to the emulator, whose certificate an authority of our own has issued."""
    tokens.good_for(3_600.0, told=3_600)
    driver, files = claimed(store), ObjectFiles(store.place / "files")
    files.names()
    begun = len(tokens.given)
    for number in range(10):
        driver.append(row(number), Stamp("q", number))
        files.create(f"{number}", b"")
    assert len(tokens.given) == begun


def acts(store: RunningStore, tokens: Identities) -> list[Callable[[], object]]:
    """A commit, a table that is opened and a listing, each of which asks for a token of its own."""
    tokens.good_for(3_600.0, told=0)
    place = replace(store.place, options=SOON)
    driver = claimed(store)
    commit = partial(driver.append, row(0), Stamp("q", 0))
    return [commit, partial(open_for_reading, place / "rows"), ObjectFiles(place).names]


def refused_in(
    acts: list[Callable[[], object]], tokens: Identities, kind: type[Exception], says: str
) -> None:
    for act in acts:
        with pytest.raises(kind, match=says) as fault:
            act()
        assert not [each for each in tokens.hidden if each in str(fault.value)]


def test_a_token_that_has_expired_is_waited_for(store: RunningStore, tokens: Identities) -> None:
    several = acts(store, tokens)
    tokens.good_for(-1.0, told=0)
    refused_in(several, tokens, StoreError, "AuthenticationFailed")
    tokens.good_for(3_600.0, told=0)
    assert [bool(act()) for act in several] == [True, True, False]


REFUSALS = [
    ("service principal", 401, "invalid_client", "AADSTS7000222: The secret is over."),
    ("workload identity", 400, "unauthorized_client", "AADSTS700016: Application was not found."),
    ("managed identity", 400, "invalid_request", "Identity not found"),
]


@pytest.mark.parametrize(("store", "status", "code", "says"), REFUSALS, indirect=["store"])
def test_who_is_given_no_token_is_told_so(
    store: RunningStore, tokens: Identities, status: int, code: str, says: str
) -> None:
    several = acts(store, tokens)
    tokens.refuse(status, code, says)
    refused_in(several, tokens, ConfigurationError, f"is given no token: {says}; see")


def test_a_pod_without_its_file_is_told_so(store: RunningStore, tokens: Identities) -> None:
    several = acts(store, tokens)
    Path(store.environment["AZURE_FEDERATED_TOKEN_FILE"]).unlink()
    refused_in(several, tokens, ConfigurationError, "is given no token: .*federated token file")


@every_way
def test_an_endpoint_that_is_busy_is_waited_for(store: RunningStore, tokens: Identities) -> None:
    several = acts(store, tokens)
    tokens.refuse(503, "temporarily_unavailable", "busy")
    refused_in(several, tokens, StoreError, "token request")
    tokens.mend()
    assert [bool(act()) for act in several] == [True, True, False]


@pytest.fixture
def agent(
    store: RunningStore,
    bootstrap: str,
    topic: Topic,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[WaitingAgent]:
    for name, value in (
        ("FLAGSTREAM_KAFKA", bootstrap),
        ("FLAGSTREAM_STORE", str(store.place)),
        ("FLAGSTREAM_STORE_OPTIONS", "timeout=3s,max_retries=2,retry_timeout=4s"),
        ("FLAGSTREAM_AUDIT_KEY", "a" * 32),
    ):
        monkeypatch.setenv(name, value)
    found = WaitingAgent(Settings.load(tmp_path / "home", os.environ), tmp_path, topic, bootstrap)
    yield found
    found.drivers.end()


def beats(spoiled: SpoiledStore) -> set[str]:
    """The tokens with which the agent has said that it lives."""
    return {each.key for each in spoiled.requests if each.verb == "PUT" and "/owner/" in each.path}


@pytest.mark.timeout(900)
def test_a_running_agent_outlives_its_tokens_and_ends_where_it_is_given_none(
    spoiled: SpoiledStore, agent: WaitingAgent, store: RunningStore, tokens: Identities
) -> None:
    lasts, told = 20.0, RENEWED_BEFORE_SECONDS + 5
    tokens.good_for(lasts, told)
    agent.stream.send(100)
    driver = agent.start()
    agent.catches_up(driver)
    first, until = {token_key(each) for each in tokens.given}, time.time() + lasts
    wait_until(lambda: time.time() > until, 3 * lasts, "the first tokens to expire")
    wait_until(lambda: len(beats(spoiled) - first) > RENEWALS, 90, "tokens to be renewed")
    agent.stream.send(100)
    agent.catches_up(driver)
    tokens.good_for(-1.0, told)
    agent.stream.send(100)
    agent.says(Condition.STORE_AWAY, 90)
    tokens.good_for(60.0, told)
    agent.catches_up(driver)
    tokens.refuse(401, "invalid_client", "AADSTS7000222: The secret is over.")
    agent.stream.send(100)
    assert agent.drivers.outcome(driver) == ConfigurationError.exit_code, agent.drivers.outputs[-1]
    said = agent.drivers.outputs[-1]
    assert "AuthenticationFailed" in said
    assert "store_away: over" in said
    assert "is given no token" in said.splitlines()[-1]
    tokens.good_for(3_600.0, told=3_600)
    tokens.mend()
    assert agent.drivers.run(agent.spec_file) == 0, agent.drivers.outputs[-1]
    all_is_well(agent)
    files = [path for path in agent.settings.home.rglob("*") if path.is_file()]
    texts = [*agent.drivers.outputs, *(path.read_bytes().decode("latin-1") for path in files)]
    texts += texts_of(store)
    assert not [each for each in tokens.hidden for text in texts if each in text]
