"""Rows to the benchmark's numbers: both scores, both means, both splits, each with its n."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torchmetrics import Metric
from torchmetrics.wrappers import BootStrapper

from benchmarks.table.text import grid, shown
from benchmarks.vbvr.export import ROWS, manifest_path
from benchmarks.vbvr.score import read_rows
from vlmteach.instances.vbvr_tasks import CATEGORIES, SPLITS
from vlmteach.record import read_json, write_json, write_text
from vlmteach.report.statistics import DRAWS, mean_interval

SCORES = {
    "task_specific": "Task-specific score (what `run_evaluation.py` prints, and the paper reports)",
    "weighted": "Weighted score of five dimensions (what `evaluate.py` prints)",
}
PARTS = {"in_domain": SPLITS[:1], "out_of_domain": SPLITS[1:], "overall": SPLITS}
TITLES = {"in_domain": "In-Domain", "out_of_domain": "Out-of-Domain", "overall": "overall"}


class CategoryMean(Metric):
    """The mean of the categories' means, each category weighing the same however many it has."""

    full_state_update = False
    total: torch.Tensor
    count: torch.Tensor

    def __init__(self, categories: int) -> None:
        super().__init__()
        for state in ("total", "count"):
            zeros = torch.zeros(categories, dtype=torch.float64)
            self.add_state(state, zeros, dist_reduce_fx="sum")

    def update(self, values: torch.Tensor, category: torch.Tensor) -> None:
        """Takes scores [n] and the category number of each [n]."""
        self.total.index_add_(0, category, values)
        self.count.index_add_(0, category, torch.ones_like(values))

    def compute(self) -> torch.Tensor:
        """The mean over the categories that have a score."""
        there = self.count > 0
        return (self.total[there] / self.count[there]).mean()


def category_mean(rows: Sequence[dict[str, Any]], measure: str) -> dict[str, float]:
    """Category mean and 95 % bootstrap interval over samples: `{"mean", "low", "high", "n"}`.

    The draws are seeded, so that the same rows give the same table.
    """
    names = sorted({row["category"] or "" for row in rows})
    values = torch.tensor([row[measure] for row in rows], dtype=torch.float64)
    category = torch.tensor([names.index(row["category"] or "") for row in rows])
    plain, bootstrap = CategoryMean(len(names)), _bootstrap(len(names))
    plain.update(values, category)
    bootstrap.reset()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        bootstrap.update(values, category)
    low, high = bootstrap.compute()["quantile"].tolist()
    return {"mean": plain.compute().item(), "low": low, "high": high, "n": len(rows)}


@lru_cache(maxsize=8)  # making its thousand metrics takes longer than using them
def _bootstrap(categories: int) -> BootStrapper:
    return BootStrapper(
        CategoryMean(categories),
        num_bootstraps=DRAWS,
        mean=False,
        std=False,
        quantile=torch.tensor([0.025, 0.975], dtype=torch.float64),
        sampling_strategy="multinomial",
    )


def summarize(model: str, rows: Sequence[dict[str, Any]], expected: int, kit: Any) -> dict:
    """One model's numbers, or why it has none.

    A model with an error or a missing row gets no mean: a mean over what happened to work compares
    with nothing.
    """
    errors = [row for row in rows if row["status"] == "error"]
    refused = []
    if errors:
        refused.append(f"{len(errors)} of {len(rows)} rows are errors")
    if len(rows) != expected:
        refused.append(f"{len(rows)} rows for {expected} samples")
    if any(row.get("kit", kit) != kit for row in rows):
        refused.append("rows of another kit than the one that passed its self-check")
    summary: dict[str, Any] = {"model": model, "n": len(rows) - len(errors)}
    if refused:
        return {
            **summary,
            "refused": "; ".join(refused),
            "errors": [f"{r['split']}/{r['task']}/{r['index']}: {r['error']}" for r in errors],
        }
    for measure in SCORES:
        summary[measure] = {}
        for part, splits in PARTS.items():
            mine = [row for row in rows if row["split"] in splits]
            if mine:
                summary[measure][part] = {
                    "sample_mean": mean_interval([row[measure] for row in mine]),
                    "category_mean": category_mean(mine, measure),
                }
        summary[measure]["categories"] = {
            name: mean_interval([row[measure] for row in rows if row["category"] == name])
            for name in sorted({row["category"] or "none" for row in rows})
            if any(row["category"] == name for row in rows)
        }
    return summary


def report(scores: Path) -> tuple[str, int]:
    """Writes `report.json` and `report.md` into the output folder of `score`.

    Also `table.json`, the scores of every clip beside what it cost, which `benchmarks.table` reads.

    Returns:
        The Markdown, and how many models have no mean.

    Raises:
        ValueError: no rows, or a kit that has not passed its self-check.
    """
    if not (scores / "kit.json").is_file():
        raise ValueError(f"got {scores}, expected the --out folder of `benchmarks.vbvr score`")
    check = read_json(scores / "kit.json")
    if not check["passed"]:
        raise ValueError(
            f"{scores / 'kit.json'}: got a kit that failed its self-check, expected one that "
            "passed; repair it and score again"
        )
    found = {path.stem: read_rows(path) for path in sorted(scores.glob("*.jsonl"))}
    if not found:
        raise ValueError(f"{scores}: got no rows, expected <model>.jsonl; run `score` first")
    order = sorted(found, key=lambda name: (name in ROWS, ROWS.index(name) if name in ROWS else 0))
    models = [summarize(name, found[name], check["samples"], check["kit"]) for name in order]
    manifests = {
        name: read_json(path)
        for name in order
        if (path := manifest_path(scores, f"{name}.manifest")).is_file()
    }
    clips = [
        clip
        for model in models
        if "refused" not in model
        for clip in _clips(found[model["model"]], manifests.get(model["model"]))
    ]
    write_json(scores / "table.json", clips)
    recipes = {
        name: {field: value for field, value in manifest.items() if field != "videos"}
        for name, manifest in manifests.items()
    }
    write_json(
        scores / "report.json", {"self_check": check, "models": models, "manifests": recipes}
    )
    text = markdown(models, check, recipes)
    write_text(scores / "report.md", text)
    return text, sum("refused" in model for model in models)


def _clips(rows: Sequence[dict[str, Any]], manifest: dict[str, Any] | None) -> list[dict]:
    """Flat rows: setting, key, seed, scores, and the cost where the manifest knows it."""
    videos = {entry["path"]: entry for entry in manifest["videos"]} if manifest else {}
    told = []
    for row in rows:
        folder = f"{row['split']}/{row['task']}/{row['index']}"
        cost = videos.get(f"{folder}.mp4", {}).get("cost") or {"seed": 0}
        given = {name: row[name] for name in ("category", "split", "task", *SCORES)}
        told.append({"setting": row["model"], "key": folder, **cost, **given})
    return told


def markdown(models: Sequence[dict], check: dict[str, Any], recipes: dict[str, dict]) -> str:
    """The report as Markdown."""
    kit = check["kit"]
    state = {True: ", with local changes", False: "", None: ""}[kit["dirty"]]
    parts = [
        "# VBVR-Bench\n",
        f"EvalKit commit {kit['commit']}{state} (source {kit['source_sha256'][:12]}), OpenCV "
        f"{kit['opencv']}, {check['samples']} samples. It gave the ground truth itself "
        f"{check['mean_task_specific']:.3f} on {len(check['rows'])} tasks (must exceed "
        f"{check['bound']}). Means with 95 % bootstrap intervals over samples.\n",
    ]
    low = [r["sample"] for r in check["rows"] if r["task_specific"] <= check["bound"]]
    if low:
        parts.append(f"Ground truth at or below {check['bound']}: {', '.join(low)}.\n")
    absent = [name for name in ROWS if name not in {model["model"] for model in models}]
    if absent:
        parts.append(
            f"No row of {' and '.join(absent)} to compare with: `export --method-rows` makes it.\n"
        )
    for measure, title in SCORES.items():
        parts += [f"## {title}\n", _means(models, measure)]
    parts += ["## Task-specific score by category\n", _categories(models)]
    refused = [model for model in models if "refused" in model]
    if refused:
        lines = [f"- {model['model']}: {model['refused']}" for model in refused]
        lines += [f"  - {error}" for model in refused for error in model["errors"]]
        parts.append("## No mean\n\n" + "\n".join(lines) + "\n")
    if recipes:
        parts += ["## Videos\n", _recipes(recipes)]
    return "\n".join(parts)


def _cell(value: dict[str, float] | None) -> str:
    return shown(value) if value else "-"


def _means(models: Sequence[dict], measure: str) -> str:
    """Sample mean and category mean, per split and overall; n of each part behind its name."""
    rows = []
    for model in models:
        for kind in ("sample_mean", "category_mean"):
            parts = [model.get(measure, {}).get(part, {}).get(kind) for part in PARTS]
            counts = " + ".join(str(part["n"]) for part in parts[:2] if part)
            name, of = model["model"], kind.replace("_", " ")
            rows.append([name, of, counts or str(model["n"]), *map(_cell, parts)])
    return grid(["model", "mean", "n", *TITLES.values()], rows)


def _categories(models: Sequence[dict]) -> str:
    known = [model["task_specific"]["categories"] for model in models if "task_specific" in model]
    names = sorted({name for cells in known for name in cells} | set(CATEGORIES))
    rows = []
    for model in models:
        cells = model.get("task_specific", {}).get("categories", {})
        shown = [f"{_cell(cells[n])} ({cells[n]['n']})" if n in cells else "-" for n in names]
        rows.append([model["model"], *shown])
    return grid(["model", *names], rows)


def _recipes(recipes: dict[str, dict]) -> str:
    rows = []
    for name, recipe in recipes.items():
        run = recipe["run"] or {}
        columns = (
            run.get("methods", [recipe["row"]]),
            recipe["sizes"],
            recipe["frames"],
            [f"{fps:g}" for fps in recipe["fps"]],
            [f"{recipe['borders_cut']} of {recipe['count']}"],
            [recipe["sha256"]],
        )
        rows.append([name, *(", ".join(map(str, column)) for column in columns)])
    head = [
        "model",
        "method",
        "height x width",
        "frames",
        "fps",
        "borders cut",
        "sha256 of the set",
    ]
    return grid(head, rows)
