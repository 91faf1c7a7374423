"""Requests hold as many groups as the context does, and their size is never guessed too small."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import settings as tried
from hypothesis import strategies as st

from agent.model.model_client import LOCAL_MODEL, Surcharge
from agent.model.prompt_files import load_prompt
from agent.triage.answers import RATIONALE_CHARACTERS, answers_of
from agent.triage.disclosure import Disclosure
from agent.triage.grouping import group_rows
from agent.triage.packing import Case, Packer, case_of, most_tokens_of, named
from agent.triage.pseudonyms import Pseudonyms
from schemas.alert import CATEGORIES
from schemas.llm import Budget, Llm, PromptReference
from schemas.rules import SEVERITIES
from tests.unit.agent.triage.test_grouping import CLOSED, OPEN, row

PROMPT = load_prompt(PromptReference(), "amount: amount, number")


def cases(count: int, memo: str | None = None) -> list[Case]:
    disclosure = Disclosure(OPEN if memo else CLOSED, Pseudonyms(b"k" * 32))
    texts = {"memo": memo} if memo else {}
    rows = [row(number, rules=("r",) * (number + 1), untrusted=texts) for number in range(count)]
    groups = group_rows(rows, [disclosure.texts_of(each) for each in rows])
    found = [case_of(PROMPT, "local", group, 1.0, disclosure.disclose(group)) for group in groups]
    return [replace(each, key=f"{number:064x}"[::-1]) for number, each in enumerate(found)]


def packer(*, context: int = 100_000, groups: int = 8, calls: int = 100) -> Packer:
    llm = Llm(context_tokens=context, groups_per_request=groups, budget=Budget(calls_per_batch=calls))
    return Packer(llm, PROMPT, LOCAL_MODEL)


def sizes(requests: list[list[Case]]) -> list[int]:
    return [len(each) for each in requests]


def test_requests_fill_up_to_their_groups_and_their_calls() -> None:
    assert sizes(packer(groups=4).pack(cases(10))) == [4, 4, 2]
    assert sizes(packer(groups=4, calls=2).pack(cases(10))) == [4, 4]
    assert sizes(packer(calls=0).pack(cases(10))) == []


def test_the_slow_local_model_is_asked_about_one_group_at_a_time() -> None:
    assert sizes(Packer(Llm(), PROMPT, LOCAL_MODEL).pack(cases(3))) == [1, 1, 1]
    assert sizes(Packer(Llm(context_tokens=100_000), PROMPT, "gpt-4.1").pack(cases(10))) == [8, 2]


def test_no_request_outgrows_the_context() -> None:
    three = packer().most_tokens(cases(3))
    small = packer(context=three)
    assert sizes(small.pack(cases(7))) == [3, 3, 1]
    assert all(small.most_tokens(request) <= three for request in small.pack(cases(7)))
    assert sizes(small.pack(cases(1, memo="x" * 10_000))) == [1], "texts are cut"
    assert packer(context=256).pack(cases(3)) == []


def test_texts_of_outsiders_stand_alone_and_the_others_go_on_filling() -> None:
    plain, same, other = cases(4), cases(2, "one"), cases(1, "two")
    requests = packer().pack([plain[0], same[0], plain[1], *other, plain[2], same[1], plain[3]])
    assert requests == [plain, same, other]


def test_two_groups_of_one_key_never_share_a_request() -> None:
    one, other = cases(2)
    twin = replace(other, key=one.key)
    assert sizes(packer().pack([one, twin])) == [1, 1]


def test_the_question_asks_for_each_id_once() -> None:
    asked = cases(3)
    question = Packer(Llm(context_tokens=100_000), PROMPT, "gpt-4.1").question(asked)
    assert question.schema["required"] == ["g1", "g2", "g3"]
    assert question.max_output_tokens == 3 * 160
    data = json.loads(question.messages.user.removeprefix("<data>").split("</data>")[0])
    assert data == {name: case.disclosed.facts for name, case in named(asked).items()}


def test_questions_to_an_endpoint_have_one_schema_and_one_beginning_whatever_they_are_about() -> None:
    packing = Packer(Llm(context_tokens=100_000), PROMPT, "gpt-4.1")
    one, other = packing.question(cases(2)), packing.question(cases(4, "elsewhere")[2:])
    assert one.messages.user != other.messages.user
    assert (one.messages.system, json.dumps(one.schema)) == (other.messages.system, json.dumps(other.schema))


def test_the_small_local_model_has_its_evidence_spelled_out() -> None:
    asked = cases(3)
    question = packer().question(asked)
    for name, case in named(asked).items():
        classification = question.schema["properties"][name]["properties"]
        assert classification["evidence"]["items"]["enum"] == list(case.disclosed.citable)


def test_what_a_model_takes_besides_is_counted_where_it_costs() -> None:
    asked, llm = cases(2), Llm(context_tokens=100_000)
    plain = Packer(llm, PROMPT, "gpt-4.1")
    dear = Packer(llm, PROMPT, "gpt-4.1", lambda: Surcharge(schema_in_prompt=True, thinking_tokens=4_000))
    assert dear.most_input_tokens(asked) > plain.most_input_tokens(asked) + 200
    assert dear.booked_output_tokens(asked) == plain.booked_output_tokens(asked) + 4_000
    assert dear.question(asked).max_output_tokens == plain.question(asked).max_output_tokens, (
        "the client adds"
    )
    assert dear.question(asked).most_tokens == dear.most_input_tokens(asked) + dear.booked_output_tokens(
        asked
    )


@tried(max_examples=50, deadline=None)
@given(
    st.integers(1, 4),
    st.text(st.sampled_from("0123456789.- ab"), min_size=RATIONALE_CHARACTERS, max_size=RATIONALE_CHARACTERS),
    st.sampled_from([None, 0]),
)
def test_no_answer_that_the_schema_admits_is_cut_off_by_the_local_models_limit(
    groups: int, rationale: str, indent: int | None
) -> None:
    asked = cases(groups, "one")
    longest = {
        name: {
            "evidence": sorted(each.disclosed.citable, key=most_tokens_of)[-3:],
            "classification": max(CATEGORIES, key=most_tokens_of),
            "severity": max(SEVERITIES, key=most_tokens_of),
            "rationale": rationale,
        }
        for name, each in named(asked).items()
    }
    assert not isinstance(answers_of(json.dumps(longest), citable(asked))["g1"], str)
    said = most_tokens_of(json.dumps(longest, indent=indent))
    assert said <= packer().question(asked).max_output_tokens


def test_the_local_model_is_given_what_an_answer_takes_and_an_endpoint_what_the_spec_says() -> None:
    asked = cases(1, "one")
    assert packer().question(asked).max_output_tokens > Llm().max_output_tokens
    assert Packer(Llm(), PROMPT, "gpt-4.1").question(asked).max_output_tokens == Llm().max_output_tokens


def test_a_limit_above_what_an_answer_takes_stays() -> None:
    generous = Packer(Llm(max_output_tokens=2_000), PROMPT, LOCAL_MODEL)
    assert generous.question(cases(1)).max_output_tokens == 2_000


def citable(asked: list[Case]) -> dict[str, tuple[str, ...]]:
    return {name: each.disclosed.citable for name, each in named(asked).items()}


@pytest.mark.parametrize(
    ("text", "least"), [("1234567890", 10), ("\u652f\u4ed8", 6), ("\U0001f600", 4), ("some words", 5)]
)
def test_digits_and_rare_scripts_count_in_full(text: str, least: int) -> None:
    assert most_tokens_of(text) >= least


def test_single_texts_do_not_use_up_the_calls_that_many_groups_wait_for() -> None:
    plain, loud = cases(4), [each for number in range(20) for each in cases(1, f"text {number}")]
    loud = [replace(each, priority=2.0) for each in loud]
    requests = packer(calls=3).pack([*loud, *plain])
    assert requests == [plain, [loud[0]], [loud[1]]]
