"""Placement, exactness and waits of every family and method, on a device that needs no GPU.

The backend is registered for a whole process and changes what others see: the journeys run in one
of their own.
"""

import json
import subprocess
import sys
from pathlib import Path

from vlmteach.families import DECODERS, FULL, REASONERS, TEACHERS
from vlmteach.methods import METHODS


def test_every_family_and_method_keeps_to_the_device():
    done = subprocess.run(
        [sys.executable, "-m", "tests.device"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    rows = {row.pop("name"): row for row in map(json.loads, done.stdout.splitlines())}

    # What the device itself can be trusted with.
    device = rows.pop("device")
    met = ("add", "mm", "cat")
    assert [said.partition(":")[0] for said in device["refused"]] == list(met)
    assert device["inexact"] == {"_upsample_bicubic2d_aa_backward": 1, "cumsum": 1}
    assert device["reads"] == 6

    assert rows.pop("all") == {"inexact": {}}
    assert max(rows.pop("decoders")["off"].values()) < 1e-5
    loans = rows.pop("loans")["of"]
    assert loans.keys() == REASONERS.keys()
    for family, row in loans.items():
        text = row["size"][0]  # other encoders may be lent beside it: of quoted words
        assert [lent // text for lent in row["lent"]["alone"]] == [1, 1, 1, 0], family
        assert row["lent"]["ahead"] == [sum(row["size"]), 0, 0, 0], f"{family}: more than one loan"
        assert row["lent"]["again"] == [0, 0, 0, 0], family
        assert row["off"] < 1e-4, f"{family}: other embeddings than on the CPU"
        assert row["same"], f"{family}: other bits in a shared loan"
        assert row["stay"] == ["cpu"], family
    seen = [set[str](), set[str](), set[str](), set[str]()]
    for name, row in rows.items():
        assert row["reads"] <= row["most"], f"{name}: the host waits more often"
        if "/" in name:
            for kind, family in zip(seen[:3], name.split("/"), strict=True):
                kind.add(family)
            assert row["readings"] == 2, name
            assert row["off"] < 1e-4, f"{name}: another loss than on the CPU"
            assert row["wrote"], name
        else:
            seen[3].add(name)
            assert (row["frames"], row["left"]) == (5, 0), name
    assert seen == [set(REASONERS), {*DECODERS, FULL}, set(TEACHERS), set(METHODS) - {"micro_fit"}]
