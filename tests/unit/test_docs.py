"""What README and docs promise is there: commands parse, examples load, links lead somewhere, names exist."""

from __future__ import annotations

import re
import shlex
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
import yaml
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption
from typer.testing import CliRunner

from schemas.contract import EventContract
from schemas.documents import parse_yaml
from schemas.loading import load_document, parse_document
from schemas.spec import load_spec
from streaming.cli.root import app, program
from streaming.commands.reference import commands_of, reference_page
from streaming.definition.agent_definition import AgentDefinition
from streaming.drafting.agent_files import NewAgent, contract_template
from tests.walks import walks

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    [
        *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")),
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "docs" / "decisions").glob("*.md"),
    ]
)
_BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_SPAN = re.compile(r"`(flagstream [^`]+)`")
_TOLD = re.compile(r"[`>](flagstream [^`<{\n]+)[`<]")
_FILE = re.compile(r"(?<![\w/.-])(?:agent|benchmarks|docker|docs|schemas|streaming|tests)/[\w/.-]*\w")
PROGRAM = program()
_MODULE = re.compile(
    r"(?<![\w.-])(?:agent|benchmarks|schemas|streaming|tests)(?:\.(?!(?:guard|json|md|yaml)\b)\w+)+"
)
_DECISION = re.compile(r"decision (\d{4})")


def named(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(page: Path, kind: str) -> list[str]:
    found = _BLOCK.findall(text_of(page))
    return [
        re.sub(rf"^{indent}", "", body, flags=re.MULTILINE) for indent, each, body in found if each == kind
    ]


def commands(page: Path) -> list[str]:
    lines = [line for kind in ("", "bash") for body in blocks(page, kind) for line in body.splitlines()]
    written = [*lines, *_SPAN.findall(text_of(page))]
    return [line for line in written if line.startswith("flagstream ") and "COMMAND" not in line]


def anchors(page: Path) -> set[str]:
    heads = re.findall(r"^#+ (.+)$", text_of(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def parse(words: list[str]) -> set[str]:
    """Parse a command as the command line would, up to reading what its options name.

    Returns:
        Names of options and arguments that it needs and that were left out, as prose may.
    """
    command: TyperGroup | TyperCommand = PROGRAM
    while isinstance(command, TyperGroup) and words and words[0] != "--help":
        inner = command.commands[words.pop(0)]
        assert isinstance(inner, TyperGroup | TyperCommand)
        command = inner
    if words == ["--help"]:
        return set()
    if isinstance(command, TyperGroup):
        return {"command"}
    context = command.make_context("flagstream", [], resilient_parsing=True)
    context.resilient_parsing = False
    given, _, _ = command.make_parser(context).parse_args(words)
    return {each.name for each in command.params if each.required and each.name and not given.get(each.name)}


def leaves(command: TyperGroup | TyperCommand, name: str) -> Iterator[tuple[str, str]]:
    """The commands below one, by their whole names, each with its help."""
    if isinstance(command, TyperGroup):
        for word, inner in command.commands.items():
            assert isinstance(inner, TyperGroup | TyperCommand)
            yield from leaves(inner, f"{name} {word}")
    else:
        yield name, command.help or ""


def test_the_help_of_every_command_has_an_example_of_it() -> None:
    for name, text in leaves(PROGRAM, "flagstream"):
        examples = [line for line in re.sub(r"\s+", " ", text).split("`") if line.startswith("flagstream ")]
        assert any(f"{each} ".startswith(f"{name} ") for each in examples), name
        for each in examples:
            parse(shlex.split(each.partition(" | ")[0].partition(" > ")[0])[1:])


UNITS = re.compile(
    r"\b(seconds?|days?|events?|records?|rows?|transactions?|alerts?|payments?|(micro-)?batch(es)?|threads?|entities|"
    r"usd|tokens?|share|versions?|offsets?|partitions?|seed|times|cases)\b",
    re.IGNORECASE,
)
WITHOUT_IT = re.compile(r"\b(if absent|unless given|by default)\b")


def is_number(option: TyperOption) -> bool:
    annotation = option.type_descriptor.annotation
    return not {int, float}.isdisjoint({annotation, *get_args(annotation)})


def test_every_number_says_its_unit_and_what_is_taken_without_it() -> None:
    numbers = [
        (" ".join(path), option)
        for path, command in commands_of(PROGRAM)
        for option in command.params
        if isinstance(option, TyperOption) and is_number(option)
    ]
    assert len(numbers) > 40
    for name, option in numbers:
        said = option.help or ""
        assert UNITS.search(said), f"{name} {option.opts}: {said}"
        assert option.required or option.default is not None or WITHOUT_IT.search(said), (
            f"{name} {option.opts}"
        )


def test_every_option_and_argument_says_what_it_is_for() -> None:
    for path, command in commands_of(PROGRAM):
        for each in command.params:
            if isinstance(each, TyperOption | TyperArgument) and each.name != "help":
                assert each.help, f"{path} {each.name}"


ALL_COMMANDS = list(dict.fromkeys(line for page in PAGES for line in commands(page)))


def test_the_pages_hold_commands_at_all() -> None:
    assert len(ALL_COMMANDS) > 50
    with pytest.raises(Exception, match="No such option"):
        parse(shlex.split("run --spec x --until-idel"))


@pytest.mark.parametrize("line", ALL_COMMANDS)
def test_every_command_is_one(line: str) -> None:
    words = shlex.split(line, comments=True)[1:]
    parse(words[: words.index(">")] if ">" in words else words)


def workflow_commands() -> list[str]:
    files = sorted((ROOT / ".github").rglob("*.yml"))
    texts = [text_of(path).replace("\n          ", "\n") for path in files]
    found = [line.strip().removeprefix("run: ") for text in texts for line in text.splitlines()]
    return [line for line in found if line.startswith("flagstream ")]


def test_every_command_of_a_workflow_is_one() -> None:
    assert len(workflow_commands()) > 5
    for line in workflow_commands():
        parse(shlex.split(line.replace("$PERCENT", "5"))[1:])


def test_every_command_that_a_message_or_a_page_of_ours_names_is_one() -> None:
    folders = [ROOT / each for each in ("agent", "schemas", "streaming")]
    files = [
        each
        for folder in folders
        for kind in ("py", "html", "js", "json")
        for each in folder.rglob(f"*.{kind}")
    ]
    found = {line.strip() for each in files for line in _TOLD.findall(text_of(each))}
    assert len(found) > 100
    for line in sorted(found):
        words = shlex.split(line)[1:]
        parse(words[: words.index(">")] if ">" in words else words)


def test_every_command_that_a_new_agent_s_files_name_is_one() -> None:
    text = contract_template("mine")
    contract = parse_document(parse_yaml(text, where="c"), EventContract, where="c")
    files = NewAgent("mine", "payments", 100.0, contract, text, None).files()
    found = [line for each in files.values() for line in _SPAN.findall(each)]
    assert len(found) >= len(files)
    for line in found:
        parse(shlex.split(line)[1:])


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_make_target_is_one(page: Path) -> None:
    targets = set(re.findall(r"^([\w-]+):", text_of(ROOT / "Makefile"), re.MULTILINE))
    code = "\n".join([*blocks(page, ""), *re.findall(r"`(make [^`]+)`", text_of(page))])
    assert set(re.findall(r"^make ([a-z-]+)", code, re.MULTILINE)) <= targets


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in _LINK.findall(text_of(page)):
        path, _, anchor = link.partition("#")
        if not path.startswith("http"):
            target = (page.parent / path) if path else page
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_example_in_yaml_can_be_read(page: Path) -> None:
    for body in blocks(page, "yaml"):
        assert yaml.safe_load(body)


def test_the_readme_s_contract_and_spec_can_be_used(tmp_path: Path) -> None:
    for name, body in examples():
        (tmp_path / name).write_text(body, encoding="utf-8")
    contract = load_document(tmp_path / "my-contract.yaml", EventContract)
    spec = load_spec(tmp_path / "my-agent.yaml")
    AgentDefinition.load(spec)
    assert contract.entity_names == ("card", "merchant")


def examples() -> Iterator[tuple[str, str]]:
    for body in blocks(ROOT / "README.md", "yaml"):
        yield body.splitlines()[0].removeprefix("# "), body


def test_the_reference_is_what_the_code_says() -> None:
    page = ROOT / "docs" / "reference.md"
    assert text_of(page) == reference_page(PROGRAM), "flagstream spec reference > docs/reference.md"


def test_the_readme_is_read_in_five_minutes() -> None:
    assert len(text_of(ROOT / "README.md").splitlines()) <= 150


_NUMBER = re.compile(r"(?<![\w.,])\d[\d,]*(?:\.\d+)?(?!\w)")


def figures() -> list[tuple[str, str]]:
    """The rows of the README's table of figures: its first two cells, and the command."""
    rows = re.findall(
        r"^\| (.+) \| `(flagstream bench [^`]+)` \|$", text_of(ROOT / "README.md"), re.MULTILINE
    )
    return [(cells, command) for cells, command in rows]


def _measured_by(command: str, page: str) -> str:
    """Return the rows of a command, or the table that follows the sentence which names it."""
    rows = [line for line in page.splitlines() if line.startswith("| ") and f"`{command}" in line]
    if rows:
        return "\n".join(rows)
    (table,) = re.findall(rf"`{re.escape(command)}[^|]*?\n\n((?:\|.*\n)+)", page)
    return str(table)


def test_the_readme_s_figures_are_those_of_the_benchmarks() -> None:
    page = text_of(ROOT / "docs" / "benchmarks.md")
    assert len(figures()) == 6
    for cells, command in figures():
        known = _NUMBER.findall(_measured_by(command, page))
        assert set(_NUMBER.findall(cells)) <= set(known), command


def test_every_decision_has_a_number_of_its_own() -> None:
    for path in (ROOT / "docs" / "decisions").glob("*.md"):
        assert [each.name for each in path.parent.glob(f"{path.name[:4]}-*")] == [path.name]
        assert re.match(rf"# {path.name[:4]} \S", text_of(path)), path.name


MADE_BY_TESTS = {"streaming.probe", "streaming.probe_types"}
_STAMP = re.compile(r"agent/\w+")


def test_every_file_and_decision_that_is_named_exists() -> None:
    decisions = {path.name[:4] for path in (ROOT / "docs" / "decisions").glob("*.md")}
    folders = ("schemas", "agent", "streaming", "benchmarks", "tests")
    sources = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    for path in [*PAGES, *sources]:
        text = text_of(path) if path.suffix == ".md" else prose_of(path)
        assert set(_DECISION.findall(text)) <= decisions, named(path)
        missing = {name for name in _FILE.findall(text) if not there(name)}
        missing |= {name for name in _MODULE.findall(text) if not known(name)}
        if path.name == "CONTRIBUTING.md":
            missing -= set(made_by_walks())
        if path.is_relative_to(ROOT / "tests"):
            missing -= {name for name in missing if name in MADE_BY_TESTS or _STAMP.fullmatch(name)}
        assert not missing, f"{named(path)}: {missing}"


def made_by_walks() -> Iterator[str]:
    """The files that the walks create, as paths and as modules."""
    for edit in (each for edits in walks().values() for each in edits if each.is_new):
        yield from (edit.path, edit.path.removesuffix(".py").replace("/", "."))


def prose_of(module: Path) -> str:
    """The comments and texts of a module, without its code, nor the code that fills in a text."""
    with module.open("rb") as file:
        kinds = (tokenize.COMMENT, tokenize.STRING)
        found = [each.string for each in tokenize.tokenize(file.readline) if each.type in kinds]
    return "\n".join(re.sub(r"\{[^{}]*\}", "{}", text) if text[0] in "fF" else text for text in found)


def there(name: str) -> bool:
    exact = any((ROOT / candidate).exists() for candidate in (name, f"{name}.py"))
    return exact or (name.startswith("docs/decisions/") and bool(list(ROOT.glob(f"{name}-*"))))


def known(name: str) -> bool:
    """Whether a dotted name is a package or module, or a word that stands in one; keys of a spec are."""
    parts = name.split(".")
    for count in range(len(parts), 1, -1):
        place = ROOT.joinpath(*parts[:count])
        module = next(filter(Path.is_file, (place.with_suffix(".py"), place / "__init__.py")), None)
        if module is not None:
            return all(re.search(rf"\b{word}\b", text_of(module)) for word in parts[count:])
    return False


def test_no_file_has_both_sides_of_a_conflict() -> None:
    marks = re.compile(rb"^(<{7}|>{7}) ", re.M)
    folders = [
        ROOT / name for name in ("agent", "benchmarks", "docker", "docs", "schemas", "streaming", "tests")
    ]
    files = [each for folder in folders for each in folder.rglob("*.*") if each.is_file()]
    files += [each for each in ROOT.iterdir() if each.is_file()]
    assert len(files) > 500
    assert [str(each) for each in files if marks.search(each.read_bytes())] == []


@pytest.mark.parametrize(
    ("llm", "said"),
    [
        ("{base_url: 'https://10.1.2.3/v1', model: gpt-4o-mini}", "llm.base_url"),
        ("{base_url: 'http://169.254.169.254/v1', model: gpt-4o-mini}", "llm.base_url"),
        (
            "{base_url: 'https://api.openai.com/v1', model: gpt-4o-mini, api_key_env: AWS_KEY}",
            "llm.api_key_env",
        ),
        ("{base_url: 'https://api.openai.com/v1', model: gpt-4o-mini}", None),
        ("{base_url: 'http://127.0.0.1:8000/v1', model: gpt-4o-mini}", None),
    ],
)
def test_validate_refuses_what_the_policy_does_not_admit(llm: str, said: str | None, tmp_path: Path) -> None:
    for name, body in examples():
        (tmp_path / name).write_text(body, encoding="utf-8")
    file = tmp_path / "my-agent.yaml"
    file.write_text(f"{file.read_text(encoding='utf-8')}llm: {llm}\n", encoding="utf-8")
    result = CliRunner().invoke(app, ["spec", "validate", str(file)])
    assert (result.exit_code == 0) == (said is None), result.output
    assert said is None or f"{file}: {said}: the policy default does not admit it" in str(result.exception)
