"""The family `full`: what each reasoner names as its own VAE."""

from pathlib import Path
from typing import Any

from tests.families import DecoderCase, ReasonerCase, cases


def small(case: ReasonerCase) -> Any:
    def make(folder: Path) -> Any:
        return case.full_decoder()

    return make


CASE = DecoderCase(small={f"full_{name}": small(case) for name, case in cases("reasoner").items()})
