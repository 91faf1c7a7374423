"""Whatever stands in a configuration file, reading it gives a document or a fault that names the file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from agent import SPECS
from agent.audit.chain import ChainKey
from agent.model.prompt_files import PROMPTS, load_prompt
from agent.planning.finding import parsed_draft
from agent.planning.plans import load_plan, parsed_plan
from agent.planning.refusals import Refused
from agent.triage.prompt_evaluation import load_cases
from agent.triage.triage import POLICIES
from schemas.contract import CONTRACTS, EventContract
from schemas.documents import MOST_BYTES, parse_json, parse_yaml, read_content
from schemas.errors import ConfigurationError
from schemas.llm import PromptReference
from schemas.loading import Document, load_document, parse_document
from schemas.policy import Policy, load_policy
from schemas.rules import RuleFile
from schemas.spec import AgentSpec, load_spec
from streaming.audit.audit_cut import CutFile
from streaming.audit.audit_guard import AnchorFile
from streaming.delta.erasure_plan import PlanFile
from streaming.detection.model import load as load_model
from streaming.history.snapshots import find_snapshot
from streaming.notify.opening import open_routes
from streaming.rules.rule_set import RuleSet
from streaming.store.local_folders import LocalFolders
from streaming.store.opening import files_of
from streaming.store.place import Place

SECONDS = 20.0
RULES = """\
rules:
  - {name: odd, when: amount > 10 and score > 0.5, severity: low, reason: odd}
  - name: silent
    absence: {entity: customer, within: 1h, after: amount > 1, expected: amount < 1}
    severity: high
    reason: nothing came
"""
PLAN = {"steps": [{"id": "s1", "action": "query", "parameters": {"sql": "SELECT 1", "limit": 5}}]}
SCHEMA = pa.schema([pa.field("amount", pa.float64()), pa.field("score", pa.float64())])
SNAPSHOT = {
    **{"format": 1, "created_at": "2026-05-07T00:00:00+00:00", "span": [0, 9]},
    **{"rows": {"alerts": 2}, "versions": {"alerts": 1}, "files": {"a": [3, "00"]}},
}

SECRET = f"whsec_{'A' * 43}="
ROUTES = """\
private_hosts: [desk.internal]
routes:
  - name: desk
    webhook: {url: "https://desk.internal/alerts", secrets: ["${env:DESK}"]}
  - name: mail
    when: {severity: [high, critical]}
    email: {server: desk.internal, sender: a@example.org, to: [b@example.org]}
"""
KEY = ChainKey(b"of the audit log")
CUT = {"number": 7, "hash": "00", "seal": KEY.seal("flagstream audit cut agent 7 00")}
ERASURE = {
    **{"number": "1", "begun_at": "2026-05-07T00:00:00+00:00", "who": "a", "why": "b", "salt": "00"},
    "tokens": [{"entity": "customer", "check": "00", "token": "erased-1"}],
}


def compiled_rules(path: Path) -> object:
    return RuleSet.compile(load_document(path, RuleFile).rules, SCHEMA, ["customer"])


def prompt_at(path: Path) -> object:
    return load_prompt(PromptReference(), "amount: amount, number", path.parents[1])


def snapshot_at(path: Path) -> object:
    return find_snapshot(LocalFolders.of(path.parents[1]), path.parent.name)


# Kind → the name of its file, a valid one, and what reads it.
KINDS: dict[str, tuple[str, str, Callable[[Path], object]]] = {
    "contract": (
        "contract.yaml",
        (CONTRACTS / "simulator.yaml").read_text(),
        lambda path: load_document(path, EventContract),
    ),
    "spec": ("spec.yaml", (SPECS / "card-fraud.yaml").read_text(), load_spec),
    "spec in JSON": (
        "spec.json",
        json.dumps(yaml.safe_load((SPECS / "card-fraud.yaml").read_text())),
        load_spec,
    ),
    "policy": (
        "policy.json",
        (POLICIES / "default.json").read_text(),
        lambda path: load_policy(str(path), POLICIES),
    ),
    "rules": ("rules.yaml", RULES, compiled_rules),
    "prompt": ("triage/v2.md", (PROMPTS / "triage" / "v2.md").read_text(), prompt_at),
    "cases": ("cases.yaml", "cases: []\n", lambda path: load_cases("triage", path)),
    "plan": ("plan.json", json.dumps(PLAN), load_plan),
    "snapshot": ("one/manifest.json", json.dumps(SNAPSHOT), snapshot_at),
    "model": (
        "model/MLmodel",
        "metadata: {sha256: abc, features: [amount]}\n",
        lambda path: load_model(path.parent),
    ),
    "routes": ("routes.yaml", ROUTES, lambda path: open_routes(path, {"DESK": SECRET})),
    "audit cut": (
        "audit.cut",
        json.dumps(CUT),
        lambda path: CutFile(files_of(Place.local(path.parent)), path.name, "agent").read(KEY),
    ),
    "erasure": ("erasure.json", json.dumps(ERASURE), lambda path: PlanFile(Place.local(path.parent)).read()),
    "anchor": (
        "audit.anchor",
        '{"number": 1, "hash": "00", "key": "00"}\n',
        lambda path: AnchorFile.at(path).read(),
    ),
}
BROKEN = [
    b"reason: 2020-13-45",
    b"? [a]\n: b",
    b"? {a: b}\n: c",
    b"rules: " + b"9" * 5000,
    b"rules: " + b"1:" * 100 + b"1",
    b"[" * 500,
    b"- " * 500,
    b'{"steps":' * 500,
    b"a: !!bool maybe",
    b"a: !!int ''",
    b"a: !!timestamp soon",
    b"a: !!python/object/apply:os.system ['true']",
    b"a: &a [*a]",
    b"a: &a {b: *a}",
    b"a: &a [x, x]\n" + b"".join(b"a%d: &a%d [*a%s, *a%s]\n" % (n, n, b, b) for n, b in
                                 ((n, str(n - 1).encode() if n else b"") for n in range(40))),
    b"a: &a {x: 1}\n" + b"".join(b"a%d: &a%d {<<: [*a%s, *a%s]}\n" % (n, n, b, b) for n, b in
                                 ((n, str(n - 1).encode() if n else b"") for n in range(40))),
    b'name: "\\0"',
    b'name: "\\ud800"',
    b'{"name": "\\ud800"}',
    b'{"name": "a\\u0000.yaml", "rules_file": "a\\u0000/b"}',
    b"name: \xff",
    b"\xef\xbb\xbfname: 1",
    b"\x00\x01\x02",
    b"",
    b"--- a\n--- b\n",
    b"NaN",
    b'{"a": 1e999, "a": NaN}',
    b"a: .inf\nb: -.nan",
    b"{0: 1, null: 2, 1.5: 3, true: 4, 2020-01-01: 5}",
]  # fmt: skip
LARGE = [
    b"x: 1\n" * (MOST_BYTES // 5 + 1),
    b"rules: [" + b"{}, " * 200_000 + b"]",
    b"[" * 100_000,
    b"- " * 100_000,
    b'{"steps":' * 50_000,
    b"rules: " + b"1:" * 300_000 + b"1",
]


def outcome(kind: str, content: bytes, folder: Path) -> object:
    """Read `content` as a document of a kind; anything but a document or a fault of ours is raised."""
    name, _, read = KINDS[kind]
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    begun = time.monotonic()
    try:
        return read(path)
    except ConfigurationError as fault:
        assert len(str(fault)) < 3000
        return fault
    finally:
        assert time.monotonic() - begun < SECONDS


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_the_documents_that_are_broken_here_are_valid_before(kind: str, tmp_path: Path) -> None:
    found = outcome(kind, KINDS[kind][1].encode(), tmp_path)
    incomplete = {"cases": "cases", "model": "MLmodel"}  # a file beside it would be needed
    assert kind in incomplete or not isinstance(found, ConfigurationError), found


@pytest.mark.parametrize("content", BROKEN, ids=range(len(BROKEN)))
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_what_is_no_document_is_refused_by_name(kind: str, content: bytes, tmp_path: Path) -> None:
    assert isinstance(outcome(kind, content, tmp_path), ConfigurationError)


@pytest.mark.long
@pytest.mark.parametrize("content", LARGE, ids=range(len(LARGE)))
@pytest.mark.parametrize("kind", ["rules", "policy"])
def test_large_nonsense_is_refused_within_seconds(kind: str, content: bytes, tmp_path: Path) -> None:
    assert isinstance(outcome(kind, content, tmp_path), ConfigurationError)


ENDLESS = [".inf", "-.INF", "+.inf", ".nan", ".NaN", "1.0e+999", "inf", "nan", "-Infinity"]


@pytest.mark.parametrize("word", ENDLESS)
@pytest.mark.parametrize(
    ("kind", "line", "key"),
    [
        ("spec", "alerts_per_day: {}", "alerts_per_day"),
        ("spec", "monitoring: {{rejected_share: {}}}", "monitoring.rejected_share"),
        ("contract", "amount: {{field: amount, most: {}}}", "amount.most"),
        ("policy", "budgets: {{seconds: {}}}", "budgets.seconds"),
    ],
)
def test_a_number_without_an_end_is_refused_by_its_key(kind: str, line: str, key: str, word: str) -> None:
    model: type[Document] = {"spec": AgentSpec, "contract": EventContract, "policy": Policy}[kind]
    content = yaml.safe_load(KINDS[kind][1])
    with pytest.raises(ConfigurationError) as caught:
        parse_document({**content, **cast("Any", parse_yaml(line.format(word), where="w"))}, model, where="w")
    assert caught.value.key is not None and caught.value.key.startswith(key)


def test_a_number_without_an_end_is_found_wherever_it_stands() -> None:
    for text, key in (("a: {b: [1, .nan]}", "a.b.1"), ("a: {.inf: 1}", "a.inf"), ("[[-.inf]]", "0.0")):
        with pytest.raises(ConfigurationError, match="expected a finite number") as caught:
            parse_yaml(text, where="w")
        assert caught.value.key == key
    with pytest.raises(ConfigurationError, match=r"w: a\.b: expected a finite number, got inf"):
        parse_json('{"a": {"b": 1e999}}', where="w")


AWKWARD = st.sampled_from(
    [
        *(b"2020-13-45", b"? [a]\n", b"9" * 5000, b"*a", b"&a ", b"!!int ''", b"\\ud800", b"\\0", b"\xff"),
        b"\0",
        *(b"[[[[", b"]", b"}", b"{", b": ", b"- ", b"\n", b"\t", b'"', b"'", b"null", b"-1", b"1e999"),
        *(b".inf", b"1" * 30, b"1:1:1", b"{}", b"[]", b"<<: ", b"|\n", b"#", b"%", b"---\n", b"(" * 300),
    ]
)  # fmt: skip


@st.composite
def mutated(draw: st.DrawFn, text: str) -> bytes:
    """A valid document with pieces cut out, doubled, moved, or replaced by awkward ones."""
    content = text.encode()
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        end = min(start + draw(st.integers(0, 12)), len(content))
        piece = draw(st.one_of(AWKWARD, st.binary(max_size=6), st.just(content[start : end + 20])))
        content = content[:start] + piece + content[end:]
    return content


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_document_is_read_or_refused_whatever_becomes_of_it(kind: str, tmp_path: Path) -> None:
    @settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(mutated(KINDS[kind][1]))
    def read(content: bytes) -> None:
        outcome(kind, content, tmp_path)

    read()


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
@example(b"%YAML 9.9\n--- a")
def test_raw_bytes_are_read_or_refused(content: bytes) -> None:
    for parse in (parse_yaml, parse_json):
        try:
            parse(content.decode("utf-8", "replace"), where="bytes")
        except ConfigurationError as fault:
            assert fault.where == "bytes"


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**40), 10**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(JSON)
def test_what_is_json_is_read_as_it_is_meant(value: Any) -> None:
    assert parse_json(json.dumps(value), where="w") == value


@given(JSON)
def test_any_values_are_read_or_refused(value: Any) -> None:
    text = json.dumps({"steps": [value], "claims": value})
    try:
        parsed_plan(text)
    except Refused as refusal:
        assert refusal.refusals
    try:
        parsed_draft(text)
    except Refused as refusal:
        assert refusal.refusals
    models: tuple[type[Document], ...] = (Policy, AgentSpec, EventContract)
    for model in models:
        for key in list(model.model_fields)[:6]:
            with pytest.raises(ConfigurationError):
                parse_document({key: value, "no_such_key": 1}, model, where="w")


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.yaml"
    os.mkfifo(pipe)
    (tmp_path / "folder.yaml").mkdir()
    for path in (pipe, tmp_path / "folder.yaml", Path("/dev/zero")):
        with pytest.raises(ConfigurationError, match=r"regular file|directory"):
            read_content(path)
    with pytest.raises(ConfigurationError, match="no name of a file"):
        read_content(Path("a\0b.yaml"))


@pytest.mark.long
@pytest.mark.parametrize("word", [" and amount > 1", " or amount > 1", "+amount"])
def test_a_condition_too_long_to_walk_is_refused_before_it_ends_the_process(word: str) -> None:
    text = f"amount{'' if word[0] == '+' else ' > 1'}{word * 20_000}{' > 1' if word[0] == '+' else ''}"
    rule = {"name": "long", "when": text, "severity": "low", "reason": "long"}
    program = (
        "import json, sys, pyarrow as pa\n"
        "from schemas.errors import ConfigurationError\n"
        "from schemas.rules import Rule\n"
        "from streaming.rules.rule_set import RuleSet\n"
        "schema = pa.schema([pa.field('amount', pa.float64())])\n"
        "try:\n    RuleSet.compile([Rule(**json.load(sys.stdin))], schema)\n"
        "except ConfigurationError as fault:\n    print(fault)\n"
    )
    command = [sys.executable, "-c", program]
    ended = subprocess.run(
        command, input=json.dumps(rule), capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stderr[-500:]
    assert "make several rules of it" in ended.stdout


@pytest.mark.parametrize("word", ["yes", "No", "ON", "off", "007", "0x1F", "1_000", "1:30", "+5", "0b1", "y"])
def test_plain_words_are_texts(word: str) -> None:
    assert parse_yaml(f"a: [{word}]\n{word}: 1", where="w") == {"a": [word], word: 1}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[true, False, 0, -12, 10, 1.5, .5, -2.5e-3, 1_0.5, ~, 2026-05-01]", None),
        ("[true, False]", [True, False]),
        ("[0, -12, 10]", [0, -12, 10]),
        ("[1.5, .5, -2.5e-3]", [1.5, 0.5, -0.0025]),
        ("[null, ~]", [None, None]),
    ],
)
def test_truths_and_numbers_are_what_every_reader_of_yaml_takes_them_for(text: str, value: Any) -> None:
    assert parse_yaml(text, where="w") == (yaml.safe_load(text) if value is None else value)


SMALL = (
    "name: a\ntransaction_id: {field: i}\nevent_time: {field: t}\namount: {field: a}\ncurrency: {field: c}\n"
)


@pytest.mark.parametrize(
    ("line", "read"),
    [
        (
            "direction: {field: k, refund: [yes, 010, 1:30]}",
            lambda c: c.direction.refund == ("yes", "010", "1:30"),
        ),
        ("direction: {field: k, refund: [true, 1]}", lambda c: c.direction.refund == ("true", "1")),
        ("aliases: {c: [no]}", lambda c: c.aliases == {"c": ("no",)}),
        (
            "extra: {x: {field: on, required: no}}",
            lambda c: (c.extra["x"].field, c.extra["x"].required) == ("on", False),
        ),
        ("max_record_bytes: 1_000_000", lambda c: c.max_record_bytes == 1_000_000),
    ],
)
def test_texts_of_a_contract_are_kept_and_truths_and_numbers_are_read(
    line: str, read: Callable[[EventContract], bool]
) -> None:
    text = f"{SMALL}entities: {{e: {{field: e, null_values: [no, NO, 007]}}}}\n{line}\n"
    contract = parse_document(parse_yaml(text, where="w"), EventContract, where="w")
    assert contract.entities["e"].null_values == ("no", "NO", "007")
    assert read(contract)


@pytest.mark.parametrize(
    ("value", "quoted"),
    [("true", "true"), ("0", "0"), ("null", "null"), ("1.5", "1.5"), ("2026-05-01", "2026-05-01")],
)
def test_what_is_no_text_where_text_is_listed_is_refused_with_quotes(value: str, quoted: str) -> None:
    text = f"{SMALL}entities: {{e: {{field: e, null_values: [a, {value}]}}}}\n"
    with pytest.raises(ConfigurationError, match=f'expected text: put it in quotes, "{quoted}"') as refused:
        parse_document(parse_yaml(text, where="w"), EventContract, where="w")
    assert refused.value.key == "entities.e.null_values.1"
