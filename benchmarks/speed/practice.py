"""An update as public reward-gradient trainers write it, beside ours: lever by lever, in one run.

As practised: every frame decoded, a teacher pass for each query, the LoRA on all linear layers of
all blocks, peft's own layer, blocks recomputed. Each way below changes one thing of the one above
it; the last is `MicroFit` itself. Where two ways compute the same thing, that is checked first:
same weights, same adapter, equal loss and gradients.

The models are Wan2.2-TI2V-5B and Qwen3-VL-4B made narrow, in float32 on the CPU, on a clip of 81
frames; their shares of an update's cost are printed beside those of the full size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch

    from vlmteach.config import Config
    from vlmteach.models import Models

MIDDLING: dict[str, Any] = {
    "transformer": {
        **{"num_attention_heads": 2, "attention_head_dim": 128, "ffn_dim": 1192, "num_layers": 12},
        "text_dim": 256,
    },
    "vae": {"base_dim": 8, "decoder_base_dim": 14},
    "text_encoder": {"num_layers": 1, "d_model": 256, "d_ff": 640, "num_heads": 4},
}
"""What is narrower than Wan2.2-TI2V-5B's configs say."""
MIDDLING_TEACHER: dict[str, Any] = {
    "text_config": {
        **{"vocab_size": 512, "hidden_size": 192, "intermediate_size": 736},
        **{"num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 1},
        **{"head_dim": 64},
        "rope_scaling": {
            **{"rope_type": "default", "mrope_interleaved": True},
            "mrope_section": [12, 10, 10],
        },
    },
    "vision_config": {
        **{"num_heads": 4, "out_hidden_size": 192, "depth": 3, "hidden_size": 96},
        **{"intermediate_size": 384, "deepstack_visual_indexes": [0, 1, 2]},
    },
}
"""The same of Qwen3-VL-4B's."""
MIDDLING_WIDTHS = (16, 8, 4, 4)
"""Channels of the surrogate decoder's stages."""
MIDDLING_TEXT = 42
"""Tokens of the prompt: as many beside the video's as 512 are beside 8,190."""
MIDDLING_CLIP = {"height": 128, "width": 256}
LOSS_TOLERANCE = 1e-5
GRADIENT_TOLERANCE = 1e-3
"""Relative, in float32, of the gradient's norm: sums are taken in other orders."""


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way to write an update."""

    name: str
    frames: Literal["vae", "all", "watched"] = "vae"
    """What is decoded: the whole clip by the VAE or the surrogate, or the watched frames by it."""
    packed: bool = False
    """All queries in one teacher pass."""
    own_layer: bool = False
    """`LowRankLinear`; else peft's."""
    targets: str = "all_linear"
    last: bool = False
    """The LoRA in the last blocks only."""
    prefix: bool = False
    recomputed: bool = True
    same: bool = False
    """Whether it computes what the way above it does."""


def ways() -> list[Way]:
    """From practice to ours; each changes one thing of the one before it."""
    way = Way(name="as practised, full VAE")
    found = [way]
    for name, change in (
        ("surrogate decoder, all frames", {"frames": "all"}),
        ("the watched frames only", {"frames": "watched", "same": True}),
        ("queries in one pass", {"packed": True, "same": True}),
        ("adapter's layer as one product", {"own_layer": True, "same": True}),
        ("LoRA on attention", {"targets": "attention"}),
        ("LoRA in the last blocks", {"last": True}),
        ("cached prefix", {"prefix": True, "same": True}),
        ("nothing recomputed (ours)", {"recomputed": False, "same": True}),
    ):
        way = replace(way, **{"same": False, "name": name, **change})
        found.append(way)
    return found


def middling(config: Config, folder: Path) -> Config:
    """The config with the clip, dtypes, frame size and checkpoints of the middling models.

    Args:
        config: names the real checkpoints.
        folder: where the middling models' small files are written.

    Raises:
        ValueError: for checkpoints whose architecture is not known.
    """
    from vlmteach.builtin.taehv import save_random_taehv
    from vlmteach.plan.known import architecture, write_known

    reasoner, decoder, teacher = config.reasoner, config.decoder, config.teacher
    for part in (reasoner, teacher):
        architecture(part.checkpoint)
    narrow = write_known(reasoner.checkpoint, "wan", folder, changes=MIDDLING)
    watching = write_known(teacher.checkpoint, "qwen3_vl", folder, changes=MIDDLING_TEACHER)
    surrogate = folder / "taew2_2.safetensors"
    save_random_taehv(surrogate, variant="taew2_2", widths=MIDDLING_WIDTHS)
    return replace(
        config,
        clip=replace(config.clip, **MIDDLING_CLIP),
        reasoner=replace(reasoner, checkpoint=str(narrow), dtype="float32", distillation_lora=None),
        decoder=replace(decoder, checkpoint=str(surrogate), dtype="float32"),
        teacher=replace(teacher, checkpoint=str(watching), dtype="float32"),
    )


def build(config: Config, device: torch.device, *, full_size: bool) -> Models:
    """The models of either size, the same weights each time, with the config's adapter."""
    import torch

    from benchmarks.speed import full_size as real
    from vlmteach.plan.counted import hollow_models

    if full_size:
        return real.build(config, device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return hollow_models(config, device)


class Update:
    """One way's update on models of its own.

    Args:
        way: how it is written.
        config: the preset; `lora.blocks` is of the ways that adapt the last blocks only.
        device: of the models; on the meta device it can only be counted.
        full_size: whether the models are those of the preset.
        like: another way's, of the same models and clip: its instance is taken.
    """

    def __init__(
        self,
        way: Way,
        config: Config,
        device: torch.device,
        *,
        full_size: bool,
        like: Update | None = None,
    ) -> None:
        import torch

        from benchmarks.speed.case import asked_one_by_one, micro_fit_of, problem_of, questions_of
        from vlmteach.micro_fit import MicroFit

        blocks = config.lora.blocks if way.last else None
        lora: Any = replace(config.lora, targets=way.targets, blocks=blocks)
        self.way, self.config = way, replace(config, lora=lora)
        self.models = build(self.config, device, full_size=full_size)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            known = None if like is None else like.problem.condition
            self.problem = problem_of(self.models, self.config, known)
            if not full_size and known is None:
                condition = self.problem.condition
                shorter = replace(condition, text=condition.text[:, :MIDDLING_TEXT])
                self.problem = replace(self.problem, condition=shorter)
            if device.type != "meta":
                adapter = 0.02 * torch.randn(self.models.lora.flat.shape)
                self.models.lora.load(adapter)  # B too: at zero, A has no gradient
        self.vae = self.models.reasoner.full_decoder(checkpointing=way.recomputed)
        prepare = questions_of if way.packed else asked_one_by_one
        self.questions = prepare(self.models, self.problem)
        self.ours: MicroFit | None = None
        if way == ways()[-1]:
            self.ours = micro_fit_of(self.models, self.config, self.problem)
        self.prefixes = self._prefixes()
        self.optimizer = torch.optim.AdamW(
            self.models.lora.parameters, lr=config.fit.learning_rate, weight_decay=0.0
        )
        self._recompute(way.recomputed)

    def _prefixes(self) -> list[Any]:
        from vlmteach.prefix import prefixes_of

        if not self.way.prefix:
            return []
        return prefixes_of(self.models.reasoner, self.models.lora, rungs=1)

    def _recompute(self, on: bool) -> None:
        from benchmarks.speed.case import recompute_activations

        recompute_activations(self.models, on)

    def loss(self) -> torch.Tensor:
        """Prediction, pixels, and Eq. 5 of what the teacher says of them."""
        from benchmarks.speed.case import ROLES
        from vlmteach.problem import predict

        if self.ours is not None:
            return self.ours().total
        z0 = predict(self.models, self.problem, last_rung=0, grad_from=0, prefixes=self.prefixes)
        watched, decoder = list(self.problem.frames), self.models.decoder
        if self.way.frames == "watched":
            pixels = decoder.decode(z0, watched)
        else:
            pixels = (self.vae if self.way.frames == "vae" else decoder).decode(z0)[watched]
        losses = -self.models.teacher.log_p_yes(pixels, self.questions)
        assert ROLES == ("goal", "process", "process", "process")
        share = self.config.fit.goal_weight
        return share * losses[0] + (1 - share) * losses[1:].mean()

    def __call__(self) -> None:
        """Forward, backward, AdamW."""
        self.optimizer.zero_grad(set_to_none=True)
        with layers(own=self.way.own_layer):
            self.loss().backward()
        self.optimizer.step()

    def gradient(self) -> tuple[float, torch.Tensor]:
        """Loss, and its gradient with respect to the adapter, flat; nothing is updated."""
        import torch

        parameters = list(self.models.lora.parameters)
        with layers(own=self.way.own_layer):
            loss = self.loss()
            found = torch.autograd.grad(loss, parameters)
        return loss.item(), torch.cat([each.flatten() for each in found])

    def counted(self) -> tuple[float, float, float]:
        """TFLOP of an update, MiB kept, and MiB kept where nothing is recomputed, on the meta
        device; what is done once is left out."""
        import torch

        from benchmarks.speed.case import frozen_of
        from benchmarks.speed.timing import kept_for_backward
        from vlmteach.plan.count import flops

        frozen = frozen_of(self.models)
        with layers(own=self.way.own_layer):
            if self.way.prefix:
                with torch.no_grad():
                    flops(self.loss)
            forward, (kept, loss) = flops(lambda: kept_for_backward(self.loss, frozen))
            backward, _ = flops(loss.backward)
            self._recompute(False)
            self.vae = self.models.reasoner.full_decoder(checkpointing=False)
            _, (kept_all, _) = flops(lambda: kept_for_backward(self.loss, frozen))
        return (forward + backward) / 1e12, kept / 2**20, kept_all / 2**20


@contextmanager
def layers(*, own: bool) -> Iterator[None]:
    """The adapter's layers computed by `LowRankLinear`, or by peft."""
    from peft.tuners.lora import Linear

    from vlmteach.low_rank import LowRankLinear

    before: Any = LowRankLinear.forward
    LowRankLinear.forward = before if own else Linear.forward  # pyright: ignore
    try:
        yield
    finally:
        LowRankLinear.forward = before


def check_equal(updates: Sequence[Update]) -> list[tuple[str, float, float]]:
    """Name, relative difference of loss and of gradient, of each way that is the same as the one
    above it.

    Raises:
        AssertionError: a difference beyond the tolerance.
    """
    rows = []
    before: tuple[float, Any] | None = None
    for update in updates:
        loss, gradient = update.gradient()
        if update.way.same:
            assert before is not None
            norm = before[1].norm().item()
            assert norm > 0, f"{update.way.name}: the gradient is zero: nothing is compared"
            off = abs(loss - before[0]) / abs(before[0])
            turned = (gradient - before[1]).norm().item() / norm
            said = f"{update.way.name}: loss off by {off:.1e}, gradient by {turned:.1e}"
            assert off < LOSS_TOLERANCE, said
            assert turned < GRADIENT_TOLERANCE, said
            rows.append((update.way.name, off, turned))
        before = loss, gradient
    return rows


def built(config: Config) -> list[Update]:
    """Every way on the CPU, of one instance."""
    import torch

    updates: list[Update] = []
    for way in ways():
        like = updates[0] if updates else None
        updates.append(Update(way, config, torch.device("cpu"), full_size=False, like=like))
    return updates
