"""The line of a login is read as Kafka's Java client reads it, which is asked."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from streaming.home.jaas import jaas_options, options_with_places, quoted
from tests.java_reading import read_by_java
from tests.unit.streaming.home.test_java_properties import texts

OPTIONS = (
    "a", "b-c", "d.e", "_f", "$g", "1", "-", ".", "7a", "=", "=", '="', '"', "'", " ", " ", "\t",
    "\n", "\r", ";", "\\", "\\n", "\\t", "\\\\", '\\"', "\\1", "\\101", "\\477", "\\8", "\\v", "/",
    "//", "/*", "*/", "ä", "\u00a0", "\u0085", "😀", "@", "{", "}", ' x="y"', " z=w",
)  # fmt: skip


def read_here(line: str) -> dict[str, str] | None:
    try:
        return jaas_options(line)
    except ValueError:
        return None


def test_whatever_stands_there_is_read_as_java_reads_it(tmp_path: Path) -> None:
    lines = [f"x.Module required {options};" for options in texts(OPTIONS, 2000, 9)]
    lines += [f'x.Module Required a="{value}" b=c;' for value in texts(OPTIONS, 2000, 6)]
    found = read_by_java("jaas", lines, tmp_path)
    assert len(found) == len(lines)
    assert sum(bool(each) for each in found) > 300
    differ = [(line, java) for line, java in zip(lines, found, strict=True) if read_here(line) != java]
    # Java takes a number for a name that is null.
    assert [each for each in differ if each[1] is None or "null" not in each[1]] == []


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_value_between_quotes_is_what_was_put_there(value: str) -> None:
    assert jaas_options(f'x.Module required a="{quoted(value)}" b=c;') == {"a": value, "b": "c"}


@given(st.text('ab"\\\n; =${}', max_size=12), st.sampled_from(['"{}"', "'{}'", "{}", 'c="{}" d=e']))
def test_places_are_filled_in_wherever_they_stand(value: str, around: str) -> None:
    line = f"x.Module required a={around.format('${env:SECRET}')};"
    try:
        found = options_with_places(line, [value])
    except ValueError:
        assert around.startswith("c=")
    else:
        assert found == {"a": value}
        assert options_with_places(line) == {"a": "${env:SECRET}"}
