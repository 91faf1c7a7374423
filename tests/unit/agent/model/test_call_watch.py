"""Each request to a model is noted, with the batches that it is about, whichever way it was asked."""

from __future__ import annotations

from datetime import timedelta

from agent.model.call_watch import MOST_BATCHES, FinishedCall, asked_about, asking_about
from agent.model.llm_client import LlmClient
from schemas.batch_key import BatchKey
from schemas.llm import Llm
from streaming.testing import scripted_llm as scripted
from tests.unit.agent.model.test_llm_client import question

FIRST, SECOND = BatchKey("q", 1), BatchKey("q", 2)


def test_requests_of_a_batch_and_those_beside_it_are_noted() -> None:
    noted: list[FinishedCall] = []
    with scripted.scripted_llm(scripted.refused()) as server:
        llm = Llm(deadline=timedelta(seconds=1), max_concurrency=1, base_url=server.base_url)
        with LlmClient(llm, model="m", watch=noted.append) as client:
            with asking_about([FIRST]):
                client.ask([question(1)], 5)
            with asking_about([SECOND]):
                asking = client.begin(question(2), 5)
            asking.result(5)
            client.ask([question(3)], 5)
    assert [each.about for each in noted] == [(FIRST,), (SECOND,), ()]
    assert [each.outcome for each in noted][1:] == ["answered", "answered"]
    assert noted[0].outcome == "refused"
    assert all(each.model == "m" and each.most_output_tokens == 160 for each in noted)
    assert noted[1].input_tokens > 0
    assert all(0 <= each.seconds < 5 for each in noted)


def test_of_many_batches_the_first_ones_are_noted_and_none_outside() -> None:
    with asking_about(BatchKey("q", number) for number in range(1_000)):
        assert len(asked_about()) == MOST_BATCHES
    assert asked_about() == ()
