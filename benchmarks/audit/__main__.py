"""The failure audit: for each failed instance, was the query wrong or the teacher's perception?

    python -m benchmarks.audit runs/mini/base/seed0 runs/mini/micro-fit/seed0 --out runs/audit
    python -m benchmarks.audit runs/mine --rows vbvr/table.json --measure task_specific \\
        --below 0.9 --by person --instances data.tar --out runs/audit
    python -m benchmarks.audit runs/mine --by judge --endpoint URL --model NAME --key-env KEY \\
        --instances data.tar --out runs/audit

Draws a sample of each run's failed instances by seed and shows what was asked, the teacher's P(yes)
and, in the miniature, the rules' verdicts. Labels come from the rules in the miniature; from a
person, who fills in `labels.csv` and gives the same command again, or is asked on the terminal with
--ask; or from a judge model of another family than the teacher. Writes `audit.md` and `audit.json`
and prints the table of outcomes. Labels are kept: the same command asks only for what is missing,
and again where a clip has changed.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.audit import people, rules
from benchmarks.audit.cases import AuditedRun, draw, open_run, prompts_of
from benchmarks.audit.report import markdown, report, shown_case, table
from benchmarks.table.rows import read_rows
from vlmteach import exits
from vlmteach.record import read_json, write_json, write_text

EXIT_UNLABELLED = 3


Identity = tuple[str, str, str]
"""Run, instance and the clip's sha256: what a label belongs to."""


def identity(case: Mapping[str, Any]) -> Identity:
    """What tells a case from all others: run, instance, and its clip's sha256."""
    return case["run"], case["key"], case["digest"]


class Audit:
    """The runs under audit and the files they are kept in."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.out: Path = arguments.out
        self.bar = f"{arguments.measure} below {arguments.below:g}"
        self.settings = {
            name: getattr(arguments, name) for name in ("measure", "below", "sample", "seed")
        }
        rows = read_rows(arguments.rows) if arguments.rows else None
        self.runs: list[AuditedRun] = [
            open_run(
                folder,
                rows,
                measure=arguments.measure,
                below=arguments.below,
                seed=arguments.seed,
            )
            for folder in arguments.runs
        ]
        keys = [key for run in self.runs for key in run.failed[: arguments.sample]]
        prompts = prompts_of(arguments.instances, keys) if arguments.instances else {}
        for run in self.runs:
            draw(run, arguments.sample, prompts)
        self.cases = [case for run in self.runs for case in run.cases]
        self.out.mkdir(parents=True, exist_ok=True)
        before = read_json(self.file) if self.file.exists() else {"cases": [], "earlier": []}
        self.numbered: list[Identity] = [identity(case) for case in before["cases"]]
        """Of the cases that `labels.csv` counts."""
        self.known: dict[Identity, dict[str, Any]] = {
            identity(case): {name: case[name] for name in ("label", "by", "why")}
            for case in (*before["earlier"], *before["cases"])
            if case["label"] is not None
        }

    @property
    def file(self) -> Path:
        """All cases with their labels, kept as they come."""
        return self.out / "audit.json"

    @property
    def labels(self) -> Path:
        """The table that people fill in."""
        return self.out / "labels.csv"

    def remember(self) -> None:
        """Gives the cases the labels they have from before."""
        for case in self.cases:
            for name, value in self.known.get(identity(asdict(case)), {}).items():
                setattr(case, name, value)

    def keep(self) -> None:
        """Writes the record, so that no label is given twice, nor lost with a smaller sample."""
        cases: list[dict[str, Any]] = [asdict(case) for case in self.cases]
        ours = set(map(identity, cases))
        earlier = [
            {"run": run, "key": key, "digest": digest, **told}
            for (run, key, digest), told in self.known.items()
            if (run, key, digest) not in ours
        ]
        record = {"table": table(self.runs), "cases": cases, "earlier": earlier}
        write_json(self.file, {**self.settings, **record})

    def write(self) -> None:
        """Keeps the cases and writes the report."""
        self.keep()
        write_text(self.out / "audit.md", report(self.runs, self.bar))


def by_person(audit: Audit, terminal: bool) -> None:
    """Reads `labels.csv`, asks on the terminal where that is wanted, and writes the file anew.

    Raises:
        ValueError: the file holds something else than labels.
    """
    if audit.labels.exists():
        for number, (word, why) in people.read_labels(audit.labels, len(audit.numbered)).items():
            told = {"label": word, "by": "person", "why": why}
            audit.known[audit.numbered[number - 1]] = told
    audit.remember()
    if terminal:
        people.ask(audit.cases, shown_case, audit.keep)
    people.write_labels(audit.labels, audit.cases)


def by_judge(audit: Audit, arguments: argparse.Namespace) -> None:
    """Asks a judge behind an endpoint.

    Raises:
        ValueError: the judge is missing, of the teacher's family, or cannot be used.
    """
    from benchmarks.audit import judged
    from benchmarks.judges.endpoint import EndpointJudge
    from benchmarks.judges.family import refuse_kin_by_name

    if not arguments.endpoint or not arguments.model:
        raise ValueError("--by judge: got no judge, expected --endpoint URL and --model NAME")
    key = os.environ.get(arguments.key_env) if arguments.key_env else None
    if arguments.key_env and not key:
        raise ValueError(f"--key-env: got {arguments.key_env}, which is not set; export the key")
    judge = EndpointJudge(arguments.endpoint, arguments.model, key=key)
    for run in audit.runs:
        refuse_kin_by_name(judge.name, arguments.model, run.config.teacher.family)
    audit.remember()
    for fault in judged.label(audit.cases, judge, audit.keep):
        print(fault, file=sys.stderr)


def parser() -> argparse.ArgumentParser:
    """The options of the command."""
    cli = argparse.ArgumentParser(
        prog="python -m benchmarks.audit",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    cli.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="a run's output folder")
    cli.add_argument("--out", type=Path, required=True)
    cli.add_argument("--rows", type=Path, help="scored rows (default: each run's score.json files)")
    cli.add_argument("--measure", default="strict", help="decides what has failed")
    cli.add_argument("--below", type=float, default=0.5, help="a failure's measure is below this")
    cli.add_argument("--sample", type=int, default=50, help="failures of each run to look at")
    cli.add_argument("--seed", type=int, default=0, help="of the draw")
    cli.add_argument("--by", choices=("rules", "person", "judge"), help="who labels")
    cli.add_argument("--ask", action="store_true", help="with --by person: on the terminal")
    cli.add_argument("--instances", nargs="+", help="the runs' instances, for their prompts")
    cli.add_argument("--endpoint", metavar="URL", help="of the judge, OpenAI-compatible")
    cli.add_argument("--model", metavar="NAME", help="of the judge, at its endpoint")
    cli.add_argument("--key-env", metavar="VARIABLE", help="environment variable with its key")
    return cli


def label(audit: Audit, arguments: argparse.Namespace) -> None:
    """Labels the cases in the way asked for: by default by rules where these reach, else by a
    person."""
    by = arguments.by
    if by is None:
        ruled = all(rules.task_of(case.key) is not None for case in audit.cases)
        by = "rules" if ruled else "person"
    if by != "rules" and not arguments.instances:
        raise ValueError(f"--by {by}: got no --instances, expected the runs' own, for the prompts")
    if by == "rules":
        for run in audit.runs:
            rules.label_run(run)
    elif by == "person":
        by_person(audit, arguments.ask)
    else:
        by_judge(audit, arguments)


def main() -> int:
    """Labels the failures and writes the report; returns the exit code."""
    arguments = parser().parse_args()
    try:
        audit = Audit(arguments)
        label(audit, arguments)
        audit.write()
    except (ValueError, OSError) as error:
        return exits.refused(error)
    print(markdown(table(audit.runs)))
    missing = sum(case.label is None for case in audit.cases)
    print(
        f"{len(audit.cases) - missing} of {len(audit.cases)} cases labelled; {audit.out}/audit.md"
    )
    if missing:
        print(
            f"to label the others: fill in {audit.labels}, or use --ask, and run this again"
            if audit.labels.exists()
            else "run this again to try the others"
        )
    return EXIT_UNLABELLED if missing else 0


if __name__ == "__main__":
    sys.exit(main())
