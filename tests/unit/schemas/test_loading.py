"""Documents are read or refused in words that name file, key, expectation and nearest right name."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import ConfigurationError, nearest
from schemas.loading import Document, Duration, format_duration, load_document, parse_document, parse_duration


class Inner(Document):
    retries: int = 3
    pause: Duration = timedelta(seconds=1)


class Grown(Document):
    LATER: ClassVar[frozenset[str]] = frozenset({"bound"})

    name: str
    bound: float = 1.5
    inner: Inner = Inner()


class Outer(Document):
    name: str
    inner: Inner = Inner()
    several: tuple[Inner, ...] = ()
    maybe: Inner | None = None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("250ms", 0.25), ("20s", 20), ("1.5h", 5400), (" 30 d ", 30 * 86400), ("2w", 14 * 86400), ("10m", 600)],
)
def test_durations_are_read(text: str, seconds: float) -> None:
    assert parse_duration(text).total_seconds() == seconds


@pytest.mark.parametrize("text", ["", "20", "s", "20 seconds", "-1s", "1h30m", "one day", None, 5])
def test_what_is_not_a_duration_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="expected a duration"):
        parse_duration(text)


@given(st.integers(0, 10_000_000))
def test_written_durations_are_read_back(seconds: int) -> None:
    duration = timedelta(seconds=seconds)
    assert parse_duration(format_duration(duration)) == duration


@pytest.mark.parametrize("milliseconds", [1, 20, 250, 999, 1500, 59_999, 123_456_789])
def test_written_durations_below_a_second_are_read_back(milliseconds: int) -> None:
    duration = timedelta(milliseconds=milliseconds)
    assert parse_duration(format_duration(duration)) == duration


def test_a_document_is_read_with_its_defaults_and_frozen(tmp_path: Path) -> None:
    path = tmp_path / "outer.yaml"
    path.write_text("name: a\ninner: {pause: 2m}\n", encoding="utf-8")
    document = load_document(path, Outer)
    assert document == Outer(name="a", inner=Inner(pause=timedelta(minutes=2)))
    with pytest.raises(ValueError, match="frozen"):
        cast("Any", document).name = "b"


@pytest.mark.parametrize(
    ("content", "key", "said"),
    [
        ({"nmae": "a"}, "nmae", "did you mean 'name'"),
        ({"name": "a", "inner": {"retry": 1}}, "inner.retry", "did you mean 'retries'"),
        ({"name": "a", "several": [{"pauze": 1}]}, "several.0.pauze", "did you mean 'pause'"),
        ({"name": "a", "maybe": {"pauze": 1}}, "maybe.pauze", "did you mean 'pause'"),
        ({}, "name", "this key is required"),
        ({"name": "a", "inner": {"pause": "soon"}}, "inner.pause", "expected a duration"),
        ({"name": "a", "inner": {"retries": "many"}}, "inner.retries", "got 'many'"),
    ],
)
def test_a_fault_names_its_key_and_what_was_expected(content: dict[str, object], key: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_document(content, Outer, where="outer.yaml")
    assert caught.value.key == key
    assert said in str(caught.value)
    assert str(caught.value).startswith(f"outer.yaml: {key}: ")


class Reached(Document):
    url: str


class Reaching(Document):
    receiver: Reached


@pytest.mark.parametrize("pasted", ["s3cr3t-4711", 4711, True])
def test_what_stands_in_place_of_a_section_is_not_quoted(pasted: object) -> None:
    with pytest.raises(ConfigurationError) as refused:
        parse_document({"receiver": pasted}, Reaching, where="w")
    assert refused.value.key == "receiver"
    assert str(pasted) not in str(refused.value)


def test_an_unknown_key_is_named_before_the_key_it_leaves_missing() -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_document({"nane": "a", "inner": {"retries": "x"}}, Outer, where="w")
    assert caught.value.key == "nane"


@pytest.mark.parametrize("content", [None, [], "text", 5])
def test_what_is_not_a_mapping_is_refused(content: object) -> None:
    with pytest.raises(ConfigurationError, match="expected a mapping"):
        parse_document(content, Outer, where="w")


def test_a_missing_file_and_broken_yaml_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no such file"):
        load_document(tmp_path / "none.yaml", Outer)
    broken = tmp_path / "broken.yaml"
    broken.write_bytes(b"name: [\n")
    with pytest.raises(ConfigurationError, match="not valid YAML"):
        load_document(broken, Outer)
    broken.write_bytes(b"name: \xff\n")
    with pytest.raises(ConfigurationError, match="not UTF-8 at byte 6"):
        load_document(broken, Outer)


def test_the_nearest_name_is_suggested_or_all_are_listed() -> None:
    assert nearest("amuont", ["amount", "rate"]) == "did you mean 'amount'?"
    assert nearest("zzz", ["rate", "amount"]) == "expected one of: amount, rate"
    assert nearest("zzz", []) == ""


def test_a_key_given_twice_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "twice.yaml"
    path.write_text("name: a\nother: 1\nname: b\n", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="'name' is given twice") as fault:
        load_document(path, Document)
    assert "line 3" in str(fault.value)


def test_a_document_too_deep_to_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "deep.yaml"
    path.write_text("[" * 5000, encoding="utf-8")
    with pytest.raises(ConfigurationError, match="not valid YAML"):
        load_document(path, Document)


def test_a_later_key_is_dumped_only_where_it_is_used() -> None:
    assert Grown(name="a").model_dump_json() == '{"name":"a","inner":{"retries":3,"pause":"1s"}}'
    assert Grown(name="a", bound=2.0).model_dump() == {
        "name": "a",
        "bound": 2.0,
        "inner": {"retries": 3, "pause": "1s"},
    }
    assert Grown.model_validate(Grown(name="a", bound=2.0).model_dump(mode="json")).bound == 2.0
