"""Commands on cases: alerts that belong together."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from schemas.cases import CloseReason, MassAction
from streaming.cli.options import DEFAULT_HOME, AsJson, Home, SpecName, agent_in

case_app = typer.Typer(no_args_is_help=True, help="Work on cases: claim, discuss, close, merge, export them.")

CaseId = Annotated[str, typer.Argument(help="Id of the case, or its first four characters or more.")]
Who = Annotated[
    str | None, typer.Option(help="Who acts, taken at its word; the user of this machine if absent.")
]
Seen = Annotated[
    int | None,
    typer.Option(help="Version of the case that you have seen; whichever it is if absent.", min=0),
]
Text = Annotated[str, typer.Option("--text", help="What you say about it.")]
Statuses = Annotated[
    list[str] | None,
    typer.Option("--status", help="open, closing, closed or merged; repeatable; open and closing if absent."),
]
Severities = Annotated[
    list[str] | None, typer.Option("--severity", help="low, medium, high or critical; repeatable.")
]
Assignee = Annotated[str | None, typer.Option(help="Who has them; `-` for those that nobody has.")]
Kind = Annotated[str | None, typer.Option(help="What they are grouped by: entity, rule, incident or alert.")]
Entity = Annotated[str | None, typer.Option(help="Whom they are about, such as customer=c42.")]
Rule = Annotated[str | None, typer.Option(help="The rule that they are about.")]
Overdue = Annotated[
    bool | None, typer.Option("--overdue/--in-time", help="By whether their deadline is over; all if absent.")
]
Reason = Annotated[CloseReason, typer.Option(help="Why it is closed.")]
LabelKind = Annotated[str | None, typer.Option("--kind", help="Kind of fraud, for the labels.")]


@case_app.command("list")
def case_list(
    spec: SpecName = "card-fraud",
    home: Home = DEFAULT_HOME,
    status: Statuses = None,
    severity: Severities = None,
    assignee: Assignee = None,
    kind: Kind = None,
    entity: Entity = None,
    rule: Rule = None,
    overdue: Overdue = None,
    limit: Annotated[int, typer.Option(help="Cases shown.", min=1)] = 20,
    after: Annotated[str | None, typer.Option(help="Where to go on, as an earlier page says.")] = None,
    as_json: AsJson = False,
) -> None:
    """Group the alerts that have come, and list cases, the most urgent first.

    Example: `flagstream case list --severity critical --assignee - --overdue`
    """
    from streaming.cases.choosing import filter_of
    from streaming.commands.cases import list_cases

    wanted = filter_of(status, severity, assignee, kind, entity, rule, overdue=overdue)
    list_cases(agent_in(home, spec), wanted, limit, after, as_json=as_json)


@case_app.command("show")
def case_show(
    case: CaseId, spec: SpecName = "card-fraud", home: Home = DEFAULT_HOME, as_json: AsJson = False
) -> None:
    """Show a case: what it is about, its alerts, and all that has happened to it.

    Example: `flagstream case show 3d531a80`
    """
    from streaming.commands.cases import show_case

    show_case(agent_in(home, spec), case, as_json=as_json)


@case_app.command("claim")
def case_claim(
    case: Annotated[
        str | None, typer.Argument(help="Id of the case; the most urgent that nobody has if absent.")
    ] = None,
    spec: SpecName = "card-fraud",
    home: Home = DEFAULT_HOME,
    who: Who = None,
    seen: Seen = None,
    as_json: AsJson = False,
) -> None:
    """Take a case for a while; exit 1 where nothing is to be taken.

    Nobody else can take it, close it or merge it until the lease of the spec is over. Claim it once more to
    keep it for longer.

    Examples: `flagstream case claim`, `flagstream case claim 3d531a80 --who anna`
    """
    from streaming.commands.cases import claim_case

    raise typer.Exit(0 if claim_case(agent_in(home, spec), case, who, seen, as_json=as_json) else 1)


@case_app.command("assign")
def case_assign(
    case: CaseId,
    to: Annotated[str | None, typer.Option(help="Who gets it; nobody if absent.")] = None,
    spec: SpecName = "card-fraud",
    home: Home = DEFAULT_HOME,
    text: Text = "",
    who: Who = None,
    seen: Seen = None,
    as_json: AsJson = False,
) -> None:
    """Give a case to somebody for good.

    Example: `flagstream case assign 3d531a80 --to bert`
    """
    from streaming.cases.orders import Order
    from streaming.commands.cases import act_on

    order = Order("assign", text=text, assignee=to)
    act_on(agent_in(home, spec), case, order, who, seen, as_json=as_json)


@case_app.command("comment")
def case_comment(
    case: CaseId,
    text: Annotated[str, typer.Argument(help="What you say about it.")],
    spec: SpecName = "card-fraud",
    home: Home = DEFAULT_HOME,
    who: Who = None,
    as_json: AsJson = False,
) -> None:
    """Say something about a case, whatever has become of it.

    Example: `flagstream case comment 3d531a80 "the customer confirms it"`
    """
    from streaming.cases.orders import Order
    from streaming.commands.cases import act_on

    act_on(agent_in(home, spec), case, Order("comment", text=text), who, None, as_json=as_json)


@case_app.command("attach")
def case_attach(
    case: CaseId,
    file: Annotated[Path, typer.Argument(help="A file of at most 1 MiB.", exists=True, dir_okay=False)],
    spec: SpecName = "card-fraud",
    home: Home = DEFAULT_HOME,
    who: Who = None,
    as_json: AsJson = False,
) -> None:
    """Keep a file with a case; its digest is on record.

    Example: `flagstream case attach 3d531a80 README.md`
    """
    from streaming.commands.cases import attach_file

    attach_file(agent_in(home, spec), case, file, who, as_json=as_json)


@case_app.command("escalate")
def case_escalate(
    case: CaseId,
    spec: SpecName = "card-fraud",
    home: Home = DEFAULT_HOME,
    text: Text = "",
    who: Who = None,
    seen: Seen = None,
    as_json: AsJson = False,
) -> None:
    """Raise the level of a case, for somebody with more say.

    Example: `flagstream case escalate 3d531a80 --text "three accounts, one device"`
    """
    from streaming.cases.orders import Order
    from streaming.commands.cases import act_on

    act_on(agent_in(home, spec), case, Order("escalate", text=text), who, seen, as_json=as_json)


@case_app.command("close")
def case_close(
    case: CaseId,
    reason: Reason,
    spec: SpecName = "card-fraud",
    home: Home = DEFAULT_HOME,
    kind: LabelKind = None,
    text: Text = "",
    who: Who = None,
    seen: Seen = None,
    as_json: AsJson = False,
) -> None:
    """Close a case; as fraud or genuine, its transactions are labelled so, and the agent learns it.

    Where the spec asks for two people, the first asks for it and another closes the case.

    Example: `flagstream case close 3d531a80 --reason fraud --kind stolen_card`
    """
    from streaming.cases.orders import Order
    from streaming.commands.cases import act_on

    order = Order("close", text=text, reason=reason, kind=kind)
    act_on(agent_in(home, spec), case, order, who, seen, as_json=as_json)


@case_app.command("reopen")
def case_reopen(
    case: CaseId,
    spec: SpecName = "card-fraud",
    home: Home = DEFAULT_HOME,
    text: Text = "",
    who: Who = None,
    seen: Seen = None,
    as_json: AsJson = False,
) -> None:
    """Open a closed case again, from when its deadline counts anew, or refuse to have it closed.

    Example: `flagstream case reopen 3d531a80 --text "a chargeback came"`
    """
    from streaming.cases.orders import Order
    from streaming.commands.cases import act_on

    act_on(agent_in(home, spec), case, Order("reopen", text=text), who, seen, as_json=as_json)


@case_app.command("merge")
def case_merge(
    case: CaseId,
    into: Annotated[str, typer.Option(help="Id of the case that it becomes part of.")],
    spec: SpecName = "card-fraud",
    home: Home = DEFAULT_HOME,
    who: Who = None,
    seen: Seen = None,
    as_json: AsJson = False,
) -> None:
    """Make a case part of another: its alerts, and those to come, belong to that one.

    Example: `flagstream case merge 3d531a80 --into fa4c13dd`
    """
    from streaming.cases.orders import Order
    from streaming.commands.cases import act_on

    act_on(agent_in(home, spec), case, Order("merge", into=into), who, seen, as_json=as_json)


@case_app.command("undo")
def case_undo(
    case: CaseId,
    spec: SpecName = "card-fraud",
    home: Home = DEFAULT_HOME,
    who: Who = None,
    seen: Seen = None,
    as_json: AsJson = False,
) -> None:
    """Take back what was done last to a case, on all cases that it was done to at once.

    Example: `flagstream case undo 3d531a80`
    """
    from streaming.commands.cases import undo_last

    undo_last(agent_in(home, spec), case, who, seen, as_json=as_json)


@case_app.command("update")
def case_update(
    do: Annotated[
        MassAction,
        typer.Option(help="What is done to each."),
    ],
    spec: SpecName = "card-fraud",
    home: Home = DEFAULT_HOME,
    status: Statuses = None,
    severity: Severities = None,
    assignee: Assignee = None,
    kind: Kind = None,
    entity: Entity = None,
    rule: Rule = None,
    overdue: Overdue = None,
    to: Annotated[str | None, typer.Option(help="Who gets them, for `assign`.")] = None,
    reason: Reason = "other",
    text: Text = "",
    dry_run: Annotated[bool, typer.Option(help="Only say how many it would change.")] = False,
    expect: Annotated[
        int | None,
        typer.Option(
            help="How many cases are to be changed, as a dry run said; any if absent, but `close` needs it.",
            min=0,
        ),
    ] = None,
    who: Who = None,
    as_json: AsJson = False,
) -> None:
    """Do something to many cases in one commit; those that it cannot be done to stay as they are.

    Example: `flagstream case update --do close --reason other --rule card_testing --dry-run`
    """
    from streaming.cases.choosing import filter_of
    from streaming.cases.orders import Order
    from streaming.commands.cases import update_cases

    wanted = filter_of(status, severity, assignee, kind, entity, rule, overdue=overdue)
    order = Order(do, text=text, assignee=to, reason=reason)
    found = agent_in(home, spec)
    update_cases(found, wanted, order, who, dry_run=dry_run, expected=expect, as_json=as_json)


@case_app.command("export")
def case_export(
    case: CaseId,
    file: Annotated[Path, typer.Option(help="The JSON file to write.", dir_okay=False)],
    spec: SpecName = "card-fraud",
    home: Home = DEFAULT_HOME,
    as_json: AsJson = False,
) -> None:
    """Write a case to a file: timeline, alerts, transactions, pins and labels, and the digest of each.

    Example: `flagstream case export 3d531a80 --file case.json`
    """
    from streaming.commands.cases import export_case

    export_case(agent_in(home, spec), case, file, as_json=as_json)


@case_app.command("verify")
def case_verify(
    file: Annotated[
        Path, typer.Option(help="A file that `export` has written.", exists=True, dir_okay=False)
    ],
    spec: SpecName = "card-fraud",
    home: Home = DEFAULT_HOME,
    as_json: AsJson = False,
) -> None:
    """Check the file of a case against itself and the lake; exit 1 where anything differs.

    Example: `flagstream case verify --file case.json`
    """
    from streaming.commands.cases import verify_file

    raise typer.Exit(0 if verify_file(agent_in(home, spec), file, as_json=as_json) else 1)
