"""Typed configs. A preset in `configs/` is a YAML file of exactly this shape.

The config stops at the builders (`models.load`, `methods`, `runner`): classes take plain arguments.
Nothing heavy is imported here, so that `--help` stays quick.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf
from typing import Any, Literal, get_args

from vlmteach.families import DECODERS, FULL, REASONERS, TEACHERS, is_name
from vlmteach.method_config import (
    PassAtNConfig,
    PromptRewriteConfig,
    VideoTPOConfig,
    VLMSolverConfig,
    check,
)

WANDB_LOGGER = "lightning.pytorch.loggers.WandbLogger"
_LICENCE_LETTERS = set("abcdefghijklmnopqrstuvwxyz0123456789-.")

MethodName = Literal["micro_fit", "base", "pass_at_n", "prompt_rewrite", "video_tpo", "vlm_solver"]


def _check_family(name: str, got: str, known: Iterable[str]) -> None:
    known = tuple(known)
    expected = f"one of {', '.join(known)}, or the class path of your own, my_package.module.Class"
    check(is_name(got, known), name, got, expected)


@dataclass(frozen=True, kw_only=True)
class ClipConfig:
    """The clip to make where the instance does not say."""

    frames: int = 89
    """Frames T; 4 (t - 1) + 1 for Wan. The paper uses 89."""
    fps: float = 24.0
    """Frames per second of the written video, and what frame times are counted in."""
    max_pixels: int = 704 * 1280
    """H x W at most; the first frame's aspect ratio is kept. Not stated in the paper."""
    height: int | None = None
    """Pixels; with `width`, fixes the size of every clip (the first frame is padded to it)."""
    width: int | None = None

    def __post_init__(self) -> None:
        check(self.frames >= 1, "clip.frames", self.frames, "at least 1")
        check(0.01 <= self.fps <= 1000, "clip.fps", self.fps, "0.01 to 1000")
        check(self.max_pixels >= 1, "clip.max_pixels", self.max_pixels, "at least 1")
        for name in ("height", "width"):
            side = getattr(self, name)
            check(side is None or side >= 1, f"clip.{name}", side, "at least 1")
        check(
            (self.height is None) == (self.width is None),
            "clip.height, clip.width",
            (self.height, self.width),
            "both or neither",
        )


@dataclass(frozen=True, kw_only=True)
class ReasonerConfig:
    """The video model, frozen."""

    family: str = "wan"
    """`wan`, `wan_a14b`, `hunyuan15` (`vlmteach.families.REASONERS`), or a class path."""
    checkpoint: str = "builtin:random/wan"
    """A local folder in diffusers' layout, a hub id, or `builtin:` for one of the package's own."""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    vae_dtype: Literal["float32", "bfloat16"] = "float32"
    """Of its VAE, which encodes the first frame and decodes the clip, and of the decoder `full`:
    float32 as diffusers does it, bfloat16 as inference engines do, at half the memory."""
    ladder: tuple[float, ...] = (1000.0, 750.0, 500.0, 250.0)
    """Timesteps (of 1000) the distilled model samples at, descending. Data of the checkpoint."""
    accepts: Literal["image", "text", "both"] = "both"
    """What the checkpoint was distilled for; an instance of the other kind is refused."""
    distillation_lora: str | None = None
    """A LoRA file that makes the base a few-step model, fused under the instance's LoRA; for
    wan_a14b a folder of two. Each of its tensors is used, or it is refused."""
    licence: str | None = None
    """Of the checkpoint, as the hub names licences (`cc-by-nc-sa-4.0`): told in adapters and their
    cards, as they derive from it. With another checkpoint than the preset's, say it anew."""

    def __post_init__(self) -> None:
        _check_family("reasoner.family", self.family, REASONERS)
        descending = all(a > b for a, b in zip(self.ladder, self.ladder[1:], strict=False))
        check(
            bool(self.ladder) and descending and self.ladder[-1] > 0 and self.ladder[0] <= 1000,
            "reasoner.ladder",
            self.ladder,
            "descending timesteps in (0, 1000]",
        )
        words = self.licence is None or set(self.licence) <= _LICENCE_LETTERS
        check(words, "reasoner.licence", self.licence, "a licence's id, such as apache-2.0")


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """Latents to pixels on the reward path."""

    family: str = "taehv"
    """`taehv`: the surrogate; `full`: the reasoner's own VAE (exact and heavy); or a class path."""
    checkpoint: str | None = "builtin:random/taehv.safetensors"
    """A TAEHV safetensors file; unused by `full`."""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"

    def __post_init__(self) -> None:
        _check_family("decoder.family", self.family, (*DECODERS, FULL))


@dataclass(frozen=True, kw_only=True)
class TeacherConfig:
    """The vision-language model, frozen."""

    family: str = "qwen3_vl"
    """`qwen3_vl`, `qwen2_5_vl`, `internvl` (`vlmteach.families.TEACHERS`), or a class path."""
    checkpoint: str = "builtin:random/qwen3_vl"
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    frames: int = 24
    """K, frames sampled uniformly from the clip, first and last included."""
    frame_pixels: int = 448 * 448
    """H x W at most per frame the teacher sees; frames that fit go in unresized. InternVL resizes
    every frame to one tile of 448 x 448, which must fit."""
    video_tokens: int | None = None
    """Visual tokens of a clip at most; None: those of all `frames` at `frame_pixels`. Over it
    frames are made smaller, down to 128 tokens; then fewer are watched, and decoded."""

    def __post_init__(self) -> None:
        _check_family("teacher.family", self.family, TEACHERS)
        check(self.frames >= 1, "teacher.frames", self.frames, "at least 1")
        check(self.frame_pixels >= 1, "teacher.frame_pixels", self.frame_pixels, "at least 1")
        tokens = self.video_tokens
        check(tokens is None or tokens >= 1, "teacher.video_tokens", tokens, "at least 1")


@dataclass(frozen=True, kw_only=True)
class QueryConfig:
    """Where an instance's queries come from when it brings none."""

    max_process: int = 3
    """At most this many process queries, M."""
    max_replies: int = 3
    """Times the teacher is asked before the generic queries are used."""
    source: Literal["teacher", "generic"] = "teacher"
    ask: Literal["both", "goal", "process"] = "both"
    """Which of them are asked; leaving one role out is an ablation of the paper."""

    def __post_init__(self) -> None:
        check(1 <= self.max_process <= 3, "query.max_process", self.max_process, "1 to 3")
        check(self.max_replies >= 1, "query.max_replies", self.max_replies, "at least 1")


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """The instance's adapter on the reasoner. The paper states the rank and nothing else."""

    rank: int = 16
    alpha: float = 16.0
    """Scale alpha / rank on the update; our choice: alpha = rank."""
    targets: Literal["attention", "cross_attention", "self_attention", "all_linear"] = "attention"
    """Linear layers that carry it; our choice: q, k, v, o of self- and cross-attention."""
    blocks: int | None = None
    """Only the last m blocks of the network carry it, and what lies below them is computed once an
    instance; None: all of them. Not in the paper."""
    init: Literal["random", "gradient"] = "random"
    """Where the matrix A starts: random rows, or those along which the loss falls fastest, at the
    price of one more update. Not in the paper."""

    def __post_init__(self) -> None:
        check(1 <= self.rank <= 1024, "lora.rank", self.rank, "1 to 1024")
        check(0 < self.alpha < inf, "lora.alpha", self.alpha, "a positive number")
        check(self.blocks is None or self.blocks >= 1, "lora.blocks", self.blocks, "at least 1")


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """The micro-fit (Algorithm 1)."""

    steps: int = 40
    """N, the cap on updates."""
    threshold: float = 0.22
    """tau: the fit ends when the loss is at most this, before the update. 0 never stops early."""
    learning_rate: float = 5e-5
    """eta."""
    goal_weight: float = 0.5
    """lambda of Eq. 5: weight of the goal query; the process queries share the rest."""
    teacher_weight: float = 1.0
    """Weight of the teacher's loss (Eq. 5) in the sum of rewards; 0: it is not asked."""
    keep_weight: float = 0.0
    """Weight of the reward `keep`: the mean squared difference of the decoded prediction to the
    base's own, of the same noise. A guard against a climbed teacher; not in the paper."""
    gradient: Literal["first", "last", "full"] | int = "first"
    """Which evaluation of the ladder carries the gradient: the first (Eq. 7), the last, all of
    them, or one rung by number from 0."""
    keep: Literal["best", "last"] = "best"
    """Which weights are kept when the threshold was not reached: those with the lowest loss seen,
    or those after the last update, as in Algorithm 1."""
    shift: float = 0.0
    """In each update the teacher sees the frames shifted at random, either way by up to this share
    of height and width, so that the adapter cannot win by accidents of single pixels. Not in the
    paper."""
    noises: int = 1
    """Start from the best of this many noises, by the teacher's loss before any update."""
    rewrite_prompt: bool = False
    """Start from the prompt as `prompt_rewrite` writes it; the queries stay those of the task."""
    checkpointing: Literal["none", "selective", "full", "auto"] | bool = "none"
    """What the backward pass recomputes. `none`: nothing; `full`: each block, for the least memory
    and one more forward; `selective`: each block but its attention; `auto`: the first of them that
    fits, as `vlmteach plan` counts it. The same loss and gradient. true is `full`, false `none`."""

    def __post_init__(self) -> None:
        check(0 <= self.steps <= 10**6, "fit.steps", self.steps, "0 to 1000000")
        check(self.threshold >= 0, "fit.threshold", self.threshold, "at least 0")
        rate = self.learning_rate
        check(0 < rate < inf, "fit.learning_rate", rate, "a number above 0")
        check(0 <= self.shift <= 0.25, "fit.shift", self.shift, "0 to 0.25")
        check(self.noises >= 1, "fit.noises", self.noises, "at least 1")
        check(0 <= self.goal_weight <= 1, "fit.goal_weight", self.goal_weight, "0 to 1")
        for name in ("teacher_weight", "keep_weight"):
            weight = getattr(self, name)
            check(0 <= weight < inf, f"fit.{name}", weight, "a number, at least 0")
        if isinstance(self.checkpointing, bool):
            spelled = "full" if self.checkpointing else "none"
            object.__setattr__(self, "checkpointing", spelled)
        if isinstance(self.gradient, int):
            check(self.gradient >= 0, "fit.gradient", self.gradient, "a rung from 0")


@dataclass(frozen=True, kw_only=True)
class ClassConfig:
    """A class by its path and the arguments it is made with, as LightningCLI writes them."""

    class_path: str
    """`package.module.Class`, importable where the command runs."""
    init_args: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check("." in self.class_path, "class_path", self.class_path, "package.module.Class")


@dataclass(frozen=True, kw_only=True)
class RewardConfig(ClassConfig):
    """A reward of the user's own, summed with the teacher's."""

    weight: float = 1.0
    """Of its loss in the sum."""

    def __post_init__(self) -> None:
        ClassConfig.__post_init__(self)
        check(0 <= self.weight < inf, "reward.weight", self.weight, "a number, at least 0")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """How the instances are spread and what is written."""

    seed: int = 0
    """Every draw derives from (seed, instance key, role)."""
    base_video: Literal["full", "surrogate", "none"] | bool = "full"
    """Also write `base.mp4`, the same noise without the adapter: decoded by the VAE as the clip is,
    or by the surrogate, which costs next to nothing and is no match for comparing pixels. True and
    false stand for full and none."""
    predictions: bool = True
    """Also write `predictions.jpg`: what the rewards watched before each update, made small."""
    threads: int = 1
    """CPU threads per process. Fixed, so that the number of ranks cannot change the rounding."""
    deterministic: bool = True
    """Deterministic kernels on a GPU, so that the same instance gives the same bits. Where an
    operation has none, the instance ends in an error row that names it."""
    instances_at_once: int = 1
    """Instances that each device works on at once, each in a process of its own with models of its
    own: for models so small that a GPU waits for their launches, or for the cores of a CPU. The
    bits are those of one at a time."""
    max_deaths: int = 3
    """Crashes (or ten times as many deaths without a word: `kill -9`, a node gone) that an instance
    may have before it is given up."""

    def __post_init__(self) -> None:
        if isinstance(self.base_video, bool):
            object.__setattr__(self, "base_video", "full" if self.base_video else "none")
        check(1 <= self.threads <= 1024, "run.threads", self.threads, "1 to 1024")
        at_once = self.instances_at_once
        check(1 <= at_once <= 256, "run.instances_at_once", at_once, "1 to 256")
        check(self.max_deaths >= 1, "run.max_deaths", self.max_deaths, "at least 1")


def check_wandb_name(name: str, got: str, without: str = "/\\#?%:") -> None:
    """Refuses what W&B would not take as the name of a project, an entity or a group.

    Raises:
        ValueError: as it says.
    """
    fits = 0 < len(got.strip()) <= len(got) <= 128 and got.isprintable()
    expected = " ".join(("1 to 128 printable characters, none of them", *without))
    check(fits and not set(without) & set(got), name, got, expected)


@dataclass(frozen=True, kw_only=True)
class WandbConfig:
    """Weights & Biases: one run per instance, grouped."""

    mode: Literal["auto", "online", "offline", "disabled"] = "auto"
    """`auto`: online when logged in, offline otherwise."""
    project: str = "vlmteach"
    """The entity is that of the account, or WANDB_ENTITY."""
    group: str | None = None
    """Defaults to the output folder's name."""

    def __post_init__(self) -> None:
        check_wandb_name("wandb.project", self.project)
        if self.group is not None:
            check_wandb_name("wandb.group", self.group, without="")


@dataclass(frozen=True, kw_only=True)
class Config:
    """One run, resolved; written to the output folder as `config.yaml`."""

    method: MethodName | str = "micro_fit"
    """How each instance is solved: by micro-fit, by one plain sample, by the best of N, by one
    sample of a rewritten prompt, by VideoTPO, by a planned and verified chain of clips, or by a
    class of yours, `my_package.module.Class`."""
    clip: ClipConfig = field(default_factory=ClipConfig)
    reasoner: ReasonerConfig = field(default_factory=ReasonerConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    query: QueryConfig = field(default_factory=QueryConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)
    fit: FitConfig = field(default_factory=FitConfig)
    optimizer: ClassConfig = field(
        default_factory=lambda: ClassConfig(
            class_path="torch.optim.AdamW", init_args={"weight_decay": 0.0}
        )
    )
    """Made anew for each instance with the adapter's weights and `lr = fit.learning_rate`. Not
    stated in the paper; our choice."""
    scheduler: ClassConfig | None = None
    """Of the learning rate, stepped after each update; none keeps it as it is."""
    reward: tuple[RewardConfig, ...] = ()
    """More rewards, summed with the teacher's."""
    callbacks: tuple[ClassConfig, ...] = ()
    """More Lightning callbacks of the micro-fit, made anew for each instance."""
    logger: tuple[ClassConfig, ...] = (ClassConfig(class_path=WANDB_LOGGER),)
    """Lightning loggers of the curves, made anew for each instance: `wandb`, `csv`, `tensorboard`,
    or a class path. W&B's is set by `wandb.*`."""
    pass_at_n: PassAtNConfig = field(default_factory=PassAtNConfig)
    prompt_rewrite: PromptRewriteConfig = field(default_factory=PromptRewriteConfig)
    video_tpo: VideoTPOConfig = field(default_factory=VideoTPOConfig)
    vlm_solver: VLMSolverConfig = field(default_factory=VLMSolverConfig)
    run: RunConfig = field(default_factory=RunConfig)
    wandb: WandbConfig = field(default_factory=WandbConfig)

    def __post_init__(self) -> None:
        known = get_args(MethodName)
        check(
            self.method in known or "." in self.method,
            "method",
            self.method,
            f"one of {', '.join(known)}, or a class path such as my_package.module.Class",
        )
        check(
            self.run.base_video != "surrogate" or self.decoder.family != FULL,
            "run.base_video",
            self.run.base_video,
            "full or none where decoder.family is full, which leaves no surrogate to decode it",
        )
