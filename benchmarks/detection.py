"""`flagstream bench detection`: how well the scores rank, beside what others reach on the same rows.

One report over the same test weeks: the label-free ceiling, flagstream without labels, with delayed ones and
with a trained model, and the competitors of benchmarks.baselines.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import date, timedelta
from pathlib import Path

from rich.console import Console
from rich.table import Table

from agent import SPECS
from benchmarks.amlsim import account_figures
from benchmarks.baselines import CEILING, adbench_figures, baseline_figures
from benchmarks.harness import report, say
from benchmarks.points import rows_per_second, streamed_figures
from schemas.contract import load_contract
from schemas.spec import load_spec
from streaming.learning import protocol
from streaming.learning.evaluation import MODES, Evaluation, evaluate
from streaming.learning.labelled_files import read_labelled
from streaming.learning.protocol import Figures

_DELAY = timedelta(days=7)
_DELAYED_AUC, _DELAYED_AP = 0.87, 0.58
_OURS = "flagstream, "


def measure(
    transactions: Path,
    features: Path,
    weeks: Sequence[date],
    *,
    adbench: Path | None,
    amlsim: Path | None,
    jobs: int,
    as_json: bool,
) -> None:
    """Judge everything on the test weeks and print one report.

    Args:
        transactions: folder of the handbook's transactions, in Parquet.
        features: folder of its 14 features.
        weeks: first days of the test weeks.
        adbench: a Parquet file of labelled points, for the multivariate model and its competitor.
        amlsim: a folder of AMLSim's transfers and accounts.
        jobs: threads where a library offers them.
        as_json: print JSON instead of a table.
    """
    ours = _ours(sorted(transactions.glob("*.parquet")), weeks)
    judged = {name: [week.figures for week in found.weeks] for name, found in ours.items()}
    judged |= baseline_figures(transactions, features, weeks, jobs=jobs)
    means = {name: protocol.mean_figures(figures) for name, figures in judged.items()}
    points: dict[str, object] = {"tail_frequency_deviation": round(tail_deviation(ours.values()), 3)}
    if adbench is not None:
        say("labelled points")
        points["adbench_isolation_forest"] = asdict(adbench_figures(adbench, jobs=jobs))
        points["adbench_flagstream"] = asdict(streamed_figures(adbench))
        points["multivariate_rows_per_second_40_features"] = rows_per_second()
    if amlsim is not None:
        say("AMLSim")
        points["amlsim_account_auc"] = account_figures(amlsim)
    if as_json:
        plain = {name: [asdict(week) for week in figures] for name, figures in judged.items()}
        mean = {name: asdict(figures) for name, figures in means.items()}
        report({"means": mean, "weeks": plain, "targets": targets(means), **points}, as_json=True)
        return
    Console().print(table(means))
    report({**targets(means), **points}, as_json=False)


def tail_deviation(found: Iterable[Evaluation]) -> float:
    """Return by how much an observed tail frequency differs from the stated one at most, in any week."""
    weeks = [week for each in found for week in each.weeks]
    return max(abs(ratio - 1.0) for week in weeks for ratio in week.tail_ratios.values())


def targets(means: Mapping[str, Figures]) -> dict[str, bool]:
    """Say of each target whether the means over the weeks reach it."""
    unlabelled, delayed, trained = (means[_OURS + mode] for mode in MODES)
    ceiling, forest, boosted = (means[name] for name in (CEILING, "random forest", "XGBoost"))
    return {
        "unlabelled: AUC at least 0.97 of the ceiling": unlabelled.auc >= 0.97 * ceiling.auc,
        "unlabelled: AP at least 0.88 of the ceiling": unlabelled.ap >= 0.88 * ceiling.ap,
        "unlabelled: AUC not more than 0.02 above the ceiling": unlabelled.auc <= ceiling.auc + 0.02,
        "delayed: AUC at least 0.87": delayed.auc >= _DELAYED_AUC,
        "delayed: AP at least 0.58": delayed.ap >= _DELAYED_AP,
        "delayed: CP@100 at least 95 % of the random forest's": delayed.cp100 >= 0.95 * forest.cp100,
        "trained: AUC above both": trained.auc > max(forest.auc, boosted.auc),
        "trained: AP above both": trained.ap > max(forest.ap, boosted.ap),
        "trained: CP@100 above both": trained.cp100 > max(forest.cp100, boosted.cp100),
    }


def table(means: Mapping[str, Figures]) -> Table:
    """Lay out the means over the weeks, a line per score."""
    kinds = sorted({kind for mean in means.values() for kind in mean.scenario_auc})
    laid = Table(title="Handbook protocol, mean of the test weeks", caption="AUC of 1, 2, 3: by scenario")
    laid.add_column("score", no_wrap=True)
    for heading in ("AUC", "AP", "CP@100", *(f"AUC of {kind}" for kind in kinds)):
        laid.add_column(heading, justify="right")
    for name, mean in means.items():
        values = [mean.auc, mean.ap, mean.cp100, *(mean.scenario_auc.get(kind) for kind in kinds)]
        laid.add_row(name, *("-" if value is None else f"{value:.3f}" for value in values))
    return laid


def _ours(files: Sequence[Path], weeks: Sequence[date]) -> dict[str, Evaluation]:
    contract, spec = load_contract("handbook"), load_spec(SPECS / "handbook.yaml")
    labelled = read_labelled(files, contract)
    found = {}
    for mode in MODES:
        say(f"flagstream, {mode}")
        found[_OURS + mode] = evaluate(labelled, spec, contract, mode, label_delay=_DELAY, test_starts=weeks)
    return found
