"""Connection files as people paste them mean what the vendor's page meant."""

from __future__ import annotations

import random
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from schemas.errors import ConfigurationError
from streaming.home.client_properties import ClientProperties, load_properties
from tests.unit.streaming.home.test_client_properties import AnyVariable, examples

Lines = list[str]


def padded(lines: Lines, chosen: random.Random) -> Lines:
    """Blanks before lines, and behind those that are not continued."""
    behind = [each if each.endswith("\\") else each + chosen.choice(["", " ", "\t "]) for each in lines]
    return [chosen.choice(["", "  ", "\t"]) + each for each in behind]


def commented(lines: Lines, chosen: random.Random) -> Lines:
    found, continued = Lines(), False
    for line in lines:
        found += [] if continued else chosen.choice([[], ["# a=b \\"], ["  ! password = x"], ["", " \t"]])
        found.append(line)
        continued = line.endswith("\\")
    return found


def separated(lines: Lines, chosen: random.Random) -> Lines:
    between = chosen.choice(["=", " = ", ": ", ":", "\t"])
    return [re.sub(r"^([a-z][\w.]*)=", lambda match: f"{match[1]}{between}", line) for line in lines]


def escaped(lines: Lines, chosen: random.Random) -> Lines:
    """Letters as Java's own tools write them."""
    return [re.sub(chosen.choice("aeos"), lambda match: f"\\u{ord(match[0]):04x}", line) for line in lines]


def lowered(lines: Lines, _: random.Random) -> Lines:
    kinds = re.compile(r"^(security\.protocol|ssl\.\w+\.type|sasl\.mechanisms?|compression\.type)=.*")
    return [line.lower() if kinds.match(line) else line for line in lines]


def doubled(lines: Lines, _: random.Random) -> Lines:
    """The last one counts."""
    return ["security.protocol=PLAINTEXT", "client.id=other", *lines, "client.id=me"]


def with_empty(lines: Lines, _: random.Random) -> Lines:
    """As templates leave them."""
    named = {line.partition("=")[0] for line in lines}
    names = ("ssl.truststore.", "ssl.keystore.", "ssl.ca.", "ssl.certificate.", "https.ca.")
    keys = (*(f"{name}location" for name in names), "ssl.key.pem", "ssl.ca.pem", "ssl.key.password")
    return [*lines, *(f"{key}=" for key in keys if key not in named)]


# In the order in which they can be made.
CHANGES: list[Callable[[Lines, random.Random], Lines]] = [
    with_empty, doubled, lowered, escaped, separated, commented, padded,
]  # fmt: skip


def plain(found: ClientProperties) -> tuple[object, ...]:
    # The callback of MSK's tokens is another one each time.
    ours = {key: "" if callable(value) else value for key, value in found.librdkafka.items()}
    spark = {key: value for key, value in found.spark.items() if key != "kafka.client.id"}
    return found.bootstrap, {**ours, "client.id": ""}, spark, found.secret_names, found.token_url, found.msk


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("streaming.output.redaction._known", {})
    monkeypatch.setitem(sys.modules, "aws_msk_iam_sasl_signer", SimpleNamespace(MSKAuthTokenProvider=None))
    return tmp_path


def page_s(text: str, folder: Path) -> str:
    for place in re.findall(r"\$\{file:([^}]+)\}", text):
        (folder / Path(place).name).write_text("whispered-2", encoding="utf-8")
        text = text.replace(place, str(folder / Path(place).name))
    return text


def read(folder: Path, text: str) -> tuple[object, ...]:
    path = folder / "client.properties"
    path.write_bytes(text.encode())
    return plain(load_properties(path, AnyVariable()))


@pytest.mark.parametrize("text", examples(), ids=lambda text: re.search(r"(?:servers|list)=([^:]+)", text)[1])
def test_what_is_pasted_means_what_the_page_means(files: Path, text: str) -> None:
    expected, chosen = read(files, page_s(text, files)), random.Random(7)
    for _ in range(60):
        lines = page_s(text, files).splitlines()
        for change in sorted(chosen.sample(CHANGES, chosen.randint(1, 4)), key=CHANGES.index):
            lines = change(lines, chosen)
        pasted = chosen.choice(["", "\ufeff"]) + chosen.choice(["\n", "\r\n", "\r"]).join(lines)
        assert read(files, pasted) == expected, pasted


@pytest.mark.parametrize("behind", [" ", "\t", " \t "])
def test_blanks_behind_a_backslash_are_said(files: Path, behind: str) -> None:
    """The line is not continued, and the next one, with the password, would be taken for a key."""
    text = next(each for each in examples() if "\\\n" in each).replace("\\\n", f"\\{behind}\n")
    with pytest.raises(ConfigurationError, match="line 4: blanks stand behind its last backslash") as refused:
        read(files, text)
    assert "CONFLUENT" not in str(refused.value)


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_a_file_of_another_encoding_is_said(files: Path, encoding: str) -> None:
    (files / "f").write_bytes("client.id=é".encode(encoding))
    with pytest.raises(ConfigurationError, match=r"it is no UTF-8 from byte \d+ on; save it anew as UTF-8"):
        load_properties(files / "f", {})
