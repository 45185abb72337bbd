"""A finished run into `<out>/<model>/<split>/<task>/<5 digits>.mp4`, complete or not at all.

Beside each model's folder lies `<model>.json`, the manifest: what was generated, by which config,
and the sha256 of every video. The EvalKit looks at folders only.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.vbvr.clips import RECIPE, probe, sha256, write_clip, write_row
from benchmarks.vbvr.layout import PLAIN, Named, Place, assign, compare, listed, refuse_leftovers
from vlmteach.instances import InstanceError, RawSample, decode, read_held_out, read_samples
from vlmteach.instances.decode import decode_image
from vlmteach.ledger import DONE, ERROR, folder_name
from vlmteach.presets import read_yaml
from vlmteach.record import read_json, write_json
from vlmteach.rows import cost_of

ROWS = ("static", "end_jump")
"""The first frame throughout; the first frame and then at once the last, which is held out."""


@dataclass(frozen=True, slots=True)
class Planned:
    """An instance, where its video goes, and the run's clip of it."""

    key: str
    place: Place
    digest: str
    clip: Path


def export(
    run: Path,
    sources: Sequence[str],
    out: Path,
    model: str | None,
    *,
    rows: Sequence[str] = (),
    split_name: str | None = None,
) -> list[str]:
    """Writes a run's clips, and the rows asked for, as the EvalKit reads them.

    A model that lies there already, made of the same, is left alone; one of something else is
    refused.

    Args:
        run: the output folder of `vlmteach.fit`.
        sources: its instances; rows take the first and the held-out final frames from them.
        out: the folder of all models.
        model: the folder's name for the run's clips; None for the rows alone.
        rows: some of `ROWS`, in the size, length and frame rate of the run's clips.
        split_name: the split of raw samples whose task is not one of the benchmark's hundred.

    Returns:
        One line per model: what was written.

    Raises:
        ValueError: a run that lacks a clip, instances that have no place, or a model's folder that
            holds something else.
    """
    if model is not None and (not PLAIN.fullmatch(model) or model in ROWS):
        raise ValueError(f"--model: got {model!r}, expected a plain name other than {ROWS}")
    if not (run / "config.yaml").is_file():
        raise ValueError(f"--run: got {run}, expected the --out folder of a `vlmteach.fit` run")
    planned = plan(run, sources, split_name)
    finals = _final_frames(sources, planned) if "end_jump" in rows else {}
    told = []
    for name in [*([model] if model is not None else []), *rows]:
        inputs = [_inputs(name, one, finals) for one in planned]
        told.append(_write_model(run, sources, out, name, planned, inputs, finals))
    return told


def plan(run: Path, sources: Sequence[str], split_name: str | None) -> list[Planned]:
    """Every instance with its place and clip.

    Raises:
        ValueError: instances without a place, or without a finished clip.
    """
    named, digests, missing = [], {}, []
    for raw in read_samples(sources):
        try:
            instance = decode(raw)
        except InstanceError as error:
            missing.append(str(error))
            continue
        if instance.first_frame is None:
            missing.append(f"{raw.key}: no first frame, and every VBVR sample has one")
            continue
        problem = _unfinished(run / folder_name(raw.key), instance.digest)
        if problem:
            missing.append(f"{raw.key}: {problem}")
        named.append(Named.of(instance))
        digests[raw.key] = instance.digest
    if missing:
        raise ValueError(
            f"--run: got {len(missing)} instances without a clip in {run}, expected one of each; "
            "run the same `vlmteach.fit` command again, or pack instances it can solve:"
            + listed(missing)
        )
    places = assign(named, split_name)
    return [
        Planned(key, places[key], digests[key], run / folder_name(key) / "clip.mp4")
        for key in sorted(places, key=lambda key: places[key])
    ]


def _unfinished(folder: Path, digest: str) -> str | None:
    """Why an instance's folder has no clip to take; None when it has."""
    if (folder / ERROR).exists():
        return str(read_json(folder / ERROR)["error"]).splitlines()[0]
    if not (folder / DONE).exists():
        return "no result"
    if read_json(folder / DONE)["digest"] != digest:
        return "its result was made from another version of the instance"
    return None if (folder / "clip.mp4").is_file() else "no clip.mp4"


def _final_frames(sources: Sequence[str], planned: Sequence[Planned]) -> dict[str, bytes]:
    finals = {held.key: held.final_png for held in read_held_out(sources)}
    found = {one.key: png for one in planned if (png := finals.get(one.key)) is not None}
    lacking = [one.key for one in planned if one.key not in found]
    if lacking:
        raise ValueError(
            f"--method-rows end_jump: got {len(lacking)} instances without a final frame, "
            "expected one of each; pack them from a tree that has final_frame.png:"
            + listed(lacking)
        )
    return found


def _inputs(name: str, one: Planned, finals: dict[str, bytes]) -> dict[str, str]:
    """What a video is made of: equal inputs give equal videos."""
    inputs = {"path": one.place.video, "key": one.key, "digest": one.digest}
    if name not in ROWS:
        return {**inputs, "clip_sha256": sha256(one.clip)}
    seen = probe(one.clip)
    inputs["like"] = f"{seen.frames} x {seen.height} x {seen.width}, {seen.fps:g} fps"
    if name == "end_jump":
        inputs["final_sha256"] = hashlib.sha256(finals[one.key]).hexdigest()
    return inputs


def _write_model(
    run: Path,
    sources: Sequence[str],
    out: Path,
    name: str,
    planned: Sequence[Planned],
    inputs: Sequence[dict[str, str]],
    finals: dict[str, bytes],
) -> str:
    """Writes one model's videos and manifest; returns a line that says so."""
    folder, manifest = out / name, manifest_path(out, name)
    wanted = [one.place.video for one in planned]
    if manifest.is_file():
        known = read_json(manifest)
        ours = [entry["inputs"] for entry in known["videos"]]
        if ours != list(inputs) or known["recipe"] != RECIPE:
            raise ValueError(
                f"{manifest}: got a model of other clips, expected none or the same; take another "
                "name, or remove it and its folder"
            )
    refuse_leftovers(folder, compare(folder, wanted)[1])
    if manifest.is_file() and not changed(out, name):
        return f"{name}: {len(planned)} videos were there already"
    manifest.unlink(missing_ok=True)  # until the set is whole again

    def write(raw: RawSample, one: Planned) -> dict[str, Any]:
        first = decode(raw).first_frame
        assert first is not None  # `plan` refused it
        path = folder / one.place.video
        path.parent.mkdir(parents=True, exist_ok=True)
        if name not in ROWS:
            return write_clip(one.clip, first, path)
        final = first
        if name == "end_jump":
            held_out = RawSample(one.key, raw.source, {"final.png": finals[one.key]})
            final = decode_image(held_out, "final.png")
        return write_row(one.clip, first, final, path)

    by_key = {one.key: one for one in planned}
    written = {raw.key: write(raw, by_key[raw.key]) for raw in read_samples(sources)}
    videos = [
        {
            "path": one.place.video,
            **written[one.key],
            "inputs": given,
            "cost": _cost(one) if name not in ROWS else None,
        }
        for one, given in zip(planned, inputs, strict=True)
    ]
    missing, leftover = compare(folder, wanted)
    assert not missing, missing
    refuse_leftovers(folder, leftover)
    write_json(
        manifest,
        {
            "benchmark": "VBVR-Bench",
            "model": name,
            "row": name if name in ROWS else None,
            "sha256": _set_sha256(videos),
            "recipe": RECIPE,
            **_summary(videos),
            "versions": {package: version(package) for package in ("vlmteach", "av", "torch")},
            "run": _run_facts(run, planned) if name not in ROWS else None,
            "videos": videos,
        },
    )
    return f"{name}: {len(planned)} videos in {folder}, manifest {manifest}"


def manifest_path(out: Path, model: str) -> Path:
    """The manifest of a model's clips."""
    return out / f"{model}.json"


def changed(out: Path, model: str) -> list[str]:
    """The videos that are not what the model's manifest says: gone, or of another sha256."""
    folder = out / model
    return [
        entry["path"]
        for entry in read_json(manifest_path(out, model))["videos"]
        if not (folder / entry["path"]).is_file()
        or sha256(folder / entry["path"]) != entry["sha256"]
    ]


def _set_sha256(videos: Sequence[dict[str, Any]]) -> str:
    """One hash for the whole set: of its paths and hashes, in order."""
    pairs = [[entry["path"], entry["sha256"]] for entry in videos]
    return hashlib.sha256(json.dumps(pairs).encode()).hexdigest()


def _summary(videos: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The distinct shapes of the videos, for a table."""
    return {
        "fps": sorted({entry["fps"] for entry in videos}),
        "frames": sorted({entry["frames"] for entry in videos}),
        "sizes": sorted({f"{entry['height']} x {entry['width']}" for entry in videos}),
        "count": len(videos),
        "borders_cut": sum(entry["cut_to"] is not None for entry in videos),
    }


def _cost(one: Planned) -> dict[str, Any]:
    """What the clip cost, as the run counted it, and the seed it was made with."""
    done = read_json(one.clip.with_name(DONE))
    return {"seed": done["seed"], **cost_of(done)}


def _run_facts(run: Path, planned: Sequence[Planned]) -> dict[str, Any]:
    """The run's config, and what its records say that a reader of scores asks."""
    outcomes = [read_json(one.clip.with_name(DONE)) for one in planned]
    records = [path for one in planned if (path := one.clip.with_name("fit.json")).is_file()]
    versions = {json.dumps(read_json(path).get("versions"), sort_keys=True) for path in records}
    return {
        "name": run.resolve().name,
        "methods": sorted({outcome["method"] for outcome in outcomes}),
        "seeds": sorted({outcome["seed"] for outcome in outcomes}),
        "versions": [json.loads(text) for text in sorted(versions)],
        "config": read_yaml(run / "config.yaml"),
    }
