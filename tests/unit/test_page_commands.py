"""What the pages say to enter: run on an empty home, or it is said what would be needed."""

from __future__ import annotations

import re
import shlex
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from streaming.cli.root import carried_out
from tests.unit.test_docs import ALL_COMMANDS, examples, parse

# Beginnings of commands, and what else a test needs to run them; such lines are parsed alone.
NEEDS = {
    "run": "a broker and a JVM",
    "demo": "a broker and a JVM",
    "broker": "a JVM",
    "alerts": "a broker",
    "produce": "a broker",
    "simulate --rate": "a broker",
    "resend": "a broker",
    "reconcile": "a broker",
    "kafka acls": "a broker",
    "notify": "a broker, and receivers",
    "serve": "somebody who ends it",
    "console": "a server",
    "doctor": "a JVM, which it tries",
    "fetch": "a repository of jars",
    "bench": "minutes of the processor",
    "ci": "a minute of the processor",
    "prompts eval": "a model, or as long as 300 cases take",
    "llm check": "a model",
    "contract check paysim": "a data set of others",
    "evaluate paysim.csv": "a data set of others",
    "backfill paysim.csv": "a data set of others",
    "backfill last-year.parquet --spec my-agent.yaml": "a data set of others",
    "backfill s3://bucket/table": "a store",
    "agent run": "a model",
    "deploy databricks": "a workspace of Databricks",
    "databricks": "a workspace of Databricks",
}
# The same of options: with one of them any command needs it.
OPTIONS = {"--topic": "a broker", "--follow": "somebody who ends it"}
NOT_YET = "no agent has run in this home yet"
# Commands, and the sentence that an empty home answers each with; the first that fits counts.
ANSWERS = {
    "maintain": "there is no lake here yet",
    "contract infer$": "expected a file or --topic, and not both",
    "(status|explain|quarantine list|labels status|cost(?!.*--forecast)|case (?!verify))": NOT_YET,
    "replay .*--snapshot|snapshot drop": "there are none",
    "replay|what-if|snapshot create": "nothing was decided yet",
    "audit verify .*--anchor": "there is no such file",
    "audit": "nothing was recorded yet",
    "token (rotate|revoke)": "no such token is good",
    "case verify": "expected a file of the format",
    "train": "there are no labels to learn from",
    "promote|rollback (?!--if-any)": "regist",
    "quarantine show": "no record of this place was rejected",
    "quarantine requeue .*--spec": "nothing that waits in the quarantine is meant",
    "quarantine requeue": "has other columns than the agent's",
    "erase .*--dry-run": "nothing is stored yet",
    "erase": "does not allow erasures",
}
# What the pages write for whatever a reader has.
PLACEHOLDERS = {
    "SPEC": "my-agent.yaml",
    "CANDIDATE": "stricter.yaml",
    "columns FILE": "columns my-agent.yaml",
}


def words_of(line: str) -> list[str]:
    for written, meant in PLACEHOLDERS.items():
        line = line.replace(written, meant)
    words = shlex.split(line, comments=True)[1:]
    ends = [words.index(sign) for sign in (">", "|") if sign in words]
    return words[: min(ends)] if ends else words


def need_of(line: str) -> str | None:
    """What a command needs beside this machine and the files that it names, None for nothing."""
    text = " ".join(words_of(line))
    options = [why for option, why in OPTIONS.items() if option in text.split()]
    names = [why for name, why in NEEDS.items() if f"{text} ".startswith(f"{name} ")]
    return next(iter([*options, *names]), None)


def is_whole(line: str) -> bool:
    """Whether nothing is left out, as prose does that names a command."""
    return not parse(words_of(line)) and "…" not in line


WHOLE = [line for line in ALL_COMMANDS if is_whole(line)]
RUN = [line for line in WHOLE if need_of(line) is None]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the pages name."""
    folder = tmp_path_factory.mktemp("files")
    for name, body in examples():
        (folder / name).write_text(body, encoding="utf-8")
    spec, contract = (
        (folder / name).read_text(encoding="utf-8") for name in ("my-agent.yaml", "my-contract.yaml")
    )
    for name in ("stricter", "other-prompt", "other-model"):
        (folder / f"{name}.yaml").write_text(spec.replace("1.0.0", "1.1.0"), encoding="utf-8")
    for name in ("corrected", "new", "payments"):
        (folder / f"{name}.yaml").write_text(contract, encoding="utf-8")
    heads = "id,created,amount.value,amount.currency,card.token,merchant_id,reference"
    rows = [f"t{n},{1767225600000 + n * 60000},{10 + n % 7}.50,EUR,c{n % 9},{n % 5},text" for n in range(200)]
    (folder / "payments.csv").write_text("\n".join([heads, *rows, ""]), encoding="utf-8")
    (folder / "chargebacks.csv").write_text("transaction_id,is_fraud\nt1,true\n", encoding="utf-8")
    (folder / "case.json").write_text("{}", encoding="utf-8")
    (folder / "README.md").write_text("attached\n", encoding="utf-8")
    for name in ("payments", "tx-1", "tx", "last-year"):
        handbook_rows().write_parquet(folder / f"{name}.parquet")
    return folder


def handbook_rows() -> pl.DataFrame:
    """Five payments a day, from before the first day that the pages name to after the last."""
    count = pl.int_range(0, 1_000, eager=True)
    moments = [datetime(2018, 1, 1, tzinfo=UTC) + number * timedelta(hours=4.8) for number in range(1_000)]
    return pl.DataFrame(
        {
            "TRANSACTION_ID": count,
            "TX_DATETIME": [each.replace(tzinfo=None) for each in moments],
            "CUSTOMER_ID": count % 9,
            "TERMINAL_ID": count % 5,
            "TX_AMOUNT": 10.0 + (count % 7),
            "TX_FRAUD": (count % 50 == 0).cast(pl.Int64),
            "TX_FRAUD_SCENARIO": (count % 50 == 0).cast(pl.Int64),
        }
    )


@pytest.fixture
def empty(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder: Path = shutil.copytree(files, tmp_path / "here")
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.usefixtures("empty")
@pytest.mark.parametrize("line", RUN)
def test_a_command_of_the_pages_runs_on_an_empty_home(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = expanded(words_of(line))
    if "--to" in words and words[0] == "contract":
        Path(words[-1]).unlink()
    code = carried_out(words)
    printed = capsys.readouterr()
    answer = next((said for name, said in ANSWERS.items() if re.match(name, " ".join(words))), None)
    assert (code == 0) == (answer is None), printed.err
    assert (answer or "") in printed.out + printed.err


def expanded(words: list[str]) -> list[str]:
    """What a shell makes of words with an asterisk."""
    return [each for word in words for each in (map(str, Path().glob(word)) if "*" in word else [word])]


def test_most_commands_of_the_pages_are_run_and_what_others_need_is_said() -> None:
    assert len(RUN) > 100
    assert set(NEEDS) == {
        name for name in NEEDS if any(" ".join(words_of(line)).startswith(name) for line in WHOLE)
    }
