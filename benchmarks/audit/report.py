"""The audit as a table in the shape of the paper's Table V, and as text to read."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from benchmarks.audit.cases import LABELS, AuditedRun, Case
from benchmarks.table.text import grid, shown

Z = 1.959964
"""Standard deviations of a normal distribution that hold 95 % of it."""
OUTCOMES = {
    "query": "query error",
    "perception": "perception error",
    "neither": "neither: seen rightly, not reached",
}


def share_of(count: int, of: int) -> dict[str, float]:
    """A share and its 95 % interval by Wilson's score: `{"mean", "low", "high", "n"}`.

    A bootstrap of a small sample without a single case would be sure that there is none.
    """
    share, weight = count / of, Z**2 / of
    centre = (share + weight / 2) / (1 + weight)
    half = Z * math.sqrt(share * (1 - share) / of + weight / of / 4) / (1 + weight)
    return {"mean": share, "low": max(centre - half, 0.0), "high": min(centre + half, 1.0), "n": of}


def table(runs: Sequence[AuditedRun]) -> list[dict[str, Any]]:
    """One object per run and outcome: `run`, `outcome`, `count`, `of`, `share`, `of_all`.

    `share` is of the labelled failures, `of_all` of all scored instances: the share times the
    run's failure rate, so that its interval is that of the labels alone. Both are `{"mean",
    "low", "high", "n"}`, see `share_of`.
    """
    lines = []
    for run in runs:
        failed = share_of(len(run.failed), len(run.scores))
        lines.append(
            {
                "run": run.name,
                "outcome": "failure",
                "count": len(run.failed),
                "of": len(run.scores),
                "share": None,
                "of_all": failed,
            }
        )
        labels = [case.label for case in run.cases if case.label is not None]
        if not labels:
            continue
        for label in LABELS:
            share = share_of(labels.count(label), len(labels))
            scaled = {name: share[name] * failed["mean"] for name in ("mean", "low", "high")}
            lines.append(
                {
                    "run": run.name,
                    "outcome": OUTCOMES[label],
                    "count": labels.count(label),
                    "of": len(labels),
                    "share": share,
                    "of_all": {**scaled, "n": share["n"]},
                }
            )
    return lines


def markdown(lines: Sequence[dict[str, Any]]) -> str:
    """The table, with 95 % intervals."""
    cells = [
        [
            line["run"].replace("|", "\\|"),
            line["outcome"],
            f"{line['count']} of {line['of']}",
            shown(line["share"]) if line["share"] else "-",
            shown(line["of_all"]),
        ]
        for line in lines
    ]
    return grid(["run", "outcome", "cases", "of labelled failures", "of all instances"], cells)


def shown_case(number: int, case: Case) -> str:
    """One case as a person reads it; texts of the instance as JSON strings, so that none of them
    can pass for a part of the report."""
    lines = [
        f"### Case {number}: {json.dumps(case.key, ensure_ascii=False)}\n",
        f"run {case.run}; score {case.score:.3f}; clip `{case.clip}`\n",
    ]
    if case.prompt is not None:
        lines.append(f"Task: {json.dumps(case.prompt, ensure_ascii=False)}\n")
    said = case.p_yes or (None,) * len(case.queries)
    verdicts = case.verdicts or (None,) * len(case.queries)
    rows = [
        [
            query.role,
            json.dumps(query.text, ensure_ascii=False).replace("|", "\\|"),
            "-" if p is None else f"{p:.3f}",
            "-" if verdict is None else ("yes" if verdict else "no"),
        ]
        for query, p, verdict in zip(case.queries, said, verdicts, strict=True)
    ]
    lines.append(grid(["", "query", "P(yes)", "rules"], rows))
    if case.label is not None:
        reason = f": {json.dumps(case.why, ensure_ascii=False)}" if case.why else ""
        lines.append(f"Label: **{case.label}** (by {case.by}){reason}\n")
    else:
        lines.append("Label: none yet\n")
    return "\n".join(lines)


def report(runs: Sequence[AuditedRun], bar: str) -> str:
    """The whole audit as Markdown.

    Args:
        runs: with their cases.
        bar: what counts as a failure, in words.
    """
    cases = [case for run in runs for case in run.cases]
    parts = [
        "# Failure audit\n",
        f"Failed: {bar}. Intervals are 95 %, by Wilson's score; those of the outcomes take the "
        "failure rate as it is.\n",
        markdown(table(runs)),
        "## Cases\n",
        *(shown_case(number, case) for number, case in enumerate(cases, 1)),
    ]
    return "\n".join(parts)
