"""Every reasoner of the table keeps the contract, whatever kind of instance it accepts."""

from typing import Any

import pytest
import torch

from tests.contract.reasoner_contract import ReasonerContract, carriers
from tests.families import cases
from vlmteach.families import REASONERS, family_class
from vlmteach.reasoners.base import Reasoner


@pytest.fixture(
    scope="class", params=[(f, a) for f in REASONERS for a in ("image", "text", "both")]
)
def saved(request, tmp_path_factory) -> Any:
    family, accepts = request.param
    folder = tmp_path_factory.mktemp(family)
    cases("reasoner")[family].save(folder, accepts)
    return family, accepts, str(folder)


class TestFamilies(ReasonerContract):
    @pytest.fixture(scope="class")
    def source(self, saved) -> str:
        return saved[2]

    @pytest.fixture(scope="class")
    def reasoner(self, saved) -> Reasoner:
        family, accepts, folder = saved
        return family_class(REASONERS, family).load(
            folder,
            dtype=torch.float32,
            device=torch.device("cpu"),
            accepts=accepts,
            distillation_lora=None,
            checkpointing=False,
            ladder=(800.0,),
            rungs=range(1),
        )

    def test_many_layers_can_carry_the_adapter_and_the_last_cannot(self, reasoner):
        assert len(carriers(reasoner, "all_linear")) > 10
        with pytest.raises(ValueError, match=r"got 'proj_out', expected"):
            reasoner.comfyui_key("proj_out")
