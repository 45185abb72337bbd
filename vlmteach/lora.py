"""One LoRA, attached once to the frozen reasoner and reset exactly for each instance.

All its tensors are views into one flat buffer, so that a reset or a snapshot is one copy and the
parameters stay the same objects: nothing is injected, moved or re-registered between instances.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from peft import LoraConfig
from peft.tuners.tuners_utils import check_target_module_exists
from torch import Tensor, nn

from vlmteach.adapter_notes import noted
from vlmteach.low_rank import LowRankLinear
from vlmteach.record import write_bytes

if TYPE_CHECKING:
    from vlmteach.reasoners.base import Place

ADAPTER = "instance"


@dataclass(frozen=True, slots=True)
class Slot:
    """Where one LoRA matrix lies in the flat buffer."""

    name: str
    """Diffusers' key without the `transformer.` prefix: `blocks.0.attn1.to_q.lora_A.weight`."""
    shape: tuple[int, int]
    offset: int

    @property
    def is_b(self) -> bool:
        """Whether it is the matrix B, which starts at zero."""
        return self.name.endswith(".lora_B.weight")


def matching(network: nn.Module, targets: str | list[str]) -> list[str]:
    """Names of the modules that targets mean, as peft reads them.

    Args:
        network: any.
        targets: a regular expression for whole names, or ends of names.
    """
    config = LoraConfig(target_modules=targets)
    return [n for n, _ in network.named_modules() if check_target_module_exists(config, n)]


class InstanceLora:
    """The adapter phi of Algorithm 1 on a network that is otherwise frozen.

    A is drawn uniformly in +-1/sqrt(fan_in) (peft's own choice), B is zero, so that a reset adapter
    leaves the network unchanged exactly.
    """

    def __init__(
        self, network: nn.Module, *, rank: int, alpha: float, targets: str | list[str]
    ) -> None:
        """Attaches the adapter.

        Args:
            network: a diffusers model (`PeftAdapterMixin`) with every parameter frozen.
            rank: r; A is [r, in], B is [out, r].
            alpha: the update is scaled by alpha / r.
            targets: module names or a regular expression, as peft takes them.

        Raises:
            ValueError: when the network still has trainable parameters.
        """
        loose = [name for name, p in network.named_parameters() if p.requires_grad]
        if loose:
            raise ValueError(
                f"network: got {len(loose)} trainable parameters ({loose[0]}, ...), expected none; "
                "freeze the reasoner before the adapter is attached"
            )
        self.network = network
        self.rank = rank
        self.alpha = alpha
        self._disabled = False
        config = LoraConfig(
            r=rank,
            lora_alpha=alpha,  # pyright: ignore[reportArgumentType]  (any number will do)
            target_modules=targets,
        )
        config._register_custom_module({nn.Linear: LowRankLinear})  # peft's door for own layers
        network.add_adapter(config, adapter_name=ADAPTER)  # pyright: ignore[reportCallIssue]
        self._gather()

    def _gather(self) -> None:
        """Moves every LoRA tensor into one flat buffer, in float32 (float64 for such a network)."""
        named = sorted((n, p) for n, p in self.network.named_parameters() if ".lora_" in n)
        dtype = torch.float64 if any(p.dtype == torch.float64 for _, p in named) else torch.float32
        device = named[0][1].device
        self.flat = torch.zeros(sum(p.numel() for _, p in named), dtype=dtype, device=device)
        self.parameters: list[nn.Parameter] = []
        self.slots: list[Slot] = []
        offset = 0
        for name, parameter in named:
            view = self.flat[offset : offset + parameter.numel()].view_as(parameter)
            parameter.data = view
            parameter.requires_grad_(True)
            key = name.replace(f".{ADAPTER}.", ".")
            self.slots.append(Slot(key, (parameter.shape[0], parameter.shape[1]), offset))
            self.parameters.append(parameter)
            offset += parameter.numel()

    def reset(self, generator: torch.Generator) -> None:
        """A fresh adapter, the same bits as a newly attached one with this generator.

        Args:
            generator: a CPU generator; the draw does not depend on the device.
        """
        start = torch.zeros(self.flat.shape, dtype=torch.float32)
        for slot in self.slots:
            if not slot.is_b:
                bound = 1 / math.sqrt(slot.shape[1])
                size = slot.shape[0] * slot.shape[1]
                draw = torch.rand(size, generator=generator, dtype=torch.float32)
                start[slot.offset : slot.offset + size] = (2 * draw - 1) * bound
        self.load(start)

    def layers(self) -> Iterator[tuple[str, nn.Module]]:
        """The layers that carry it, by their names in the network."""
        for slot in self.slots:
            if slot.is_b:
                name = slot.name.removesuffix(".lora_B.weight")
                yield name, self.network.get_submodule(name)

    def set_rows(self, rows: Mapping[str, Tensor]) -> None:
        """Writes the first rows of A of some layers; the others stay as they are.

        Args:
            rows: a layer's name -> [<= r, in].
        """
        start = self.snapshot()
        for slot in self.slots:
            given = None if slot.is_b else rows.get(slot.name.removesuffix(".lora_A.weight"))
            if given is not None:
                start[slot.offset : slot.offset + given.numel()] = given.to(start).flatten()
        self.load(start)

    def snapshot(self) -> Tensor:
        """A copy of the adapter's weights, flat."""
        return self.flat.clone()

    def load(self, weights: Tensor) -> None:
        """Puts a snapshot back, bitwise; gradients are dropped."""
        with torch.no_grad():
            self.flat.copy_(weights)
        for parameter in self.parameters:
            parameter.grad = None

    def is_base(self) -> bool:
        """Whether the network computes what it does without the adapter: it is disabled, or B is
        zero."""
        if self._disabled:
            return True
        if self.flat.is_meta:  # shapes alone are counted: nobody can say
            return False
        pairs = zip(self.parameters, self.slots, strict=True)
        return not torch.stack([p.any() for p, slot in pairs if slot.is_b]).any().item()

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """The base model, for the span of a `with`; of nested ones, of the outermost."""
        if self._disabled:
            yield
            return
        self._disabled = True
        try:
            self.network.disable_adapters()  # pyright: ignore[reportCallIssue]
            yield
        finally:
            self.network.enable_adapters()  # pyright: ignore[reportCallIssue]
            self._disabled = False

    def state_dict(self) -> dict[str, Tensor]:
        """Weights by diffusers' names without prefix, float, contiguous, on the CPU.

        alpha / r is folded into B, so that a reader which assumes alpha = r is right: diffusers
        does so when a file carries no metadata, and says nothing.
        """
        flat = self.flat.detach().to("cpu", copy=True)
        state = {}
        for slot in self.slots:
            matrix = flat[slot.offset : slot.offset + slot.shape[0] * slot.shape[1]]
            matrix = matrix.view(slot.shape).clone()
            state[slot.name] = matrix * (self.alpha / self.rank) if slot.is_b else matrix
        return state

    def load_file(self, path: Path, scale: float = 1.0) -> None:
        """Puts back what `export` wrote under diffusers' keys, alpha / r unfolded from B.

        The same bits as before the export where alpha / r is a power of two, else B to its last
        bit or two; gradients are dropped.

        Args:
            path: `adapter.safetensors`.
            scale: of the update, by which B is multiplied: 0 is the base model, exactly, 1 the
                adapter as it was kept.

        Raises:
            ValueError: no such file, not an adapter of this network, rank and targets, or one with
                values that are not finite. The adapter is then as it was.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            state = load_file(path)
        except (OSError, SafetensorError) as error:
            raise ValueError(
                f"{path}: got {error}, expected an adapter as a fit leaves it in "
                "adapter.safetensors"
            ) from error
        expected = {f"transformer.{slot.name}": slot for slot in self.slots}
        if strangers := sorted(state.keys() ^ expected.keys()):
            name = strangers[0]
            got = f"{name}, which has no place here" if name in state else f"no {name}"
            remedy = "load the reasoner and lora.targets it was fitted with"
            if name.startswith("diffusion_model."):
                remedy = "this is the file for ComfyUI: take adapter.safetensors beside it"
            raise ValueError(
                f"{path}: got {got}, expected the {len(expected)} matrices of this reasoner's "
                f"adapter; {remedy}"
            )
        flat = self.snapshot()
        for name, slot in expected.items():
            matrix = state[name]
            if tuple(matrix.shape) != slot.shape:
                raise ValueError(
                    f"{path}: {name}: got shape {list(matrix.shape)}, expected "
                    f"{list(slot.shape)}; load the reasoner and lora.rank it was fitted with"
                )
            if not matrix.isfinite().all():
                raise ValueError(
                    f"{path}: {name}: got values that are not finite, expected numbers; fit again"
                )
            matrix = matrix.to(flat)
            unfolded = matrix / (self.alpha / self.rank) * scale if slot.is_b else matrix
            flat[slot.offset : slot.offset + matrix.numel()] = unfolded.flatten()
        self.load(flat)

    def export(
        self,
        diffusers: Path,
        comfyui: Path,
        comfyui_key: Callable[[str], Place],
        notes: Mapping[str, str],
    ) -> None:
        """Writes the adapter as safetensors in both key styles.

        A layer that holds several of the network's gets their matrices A one under another, rank
        r each, and their matrices B as blocks on a diagonal; nothing where one carries no adapter.

        Args:
            diffusers: file with keys `transformer.<module>.lora_A|B.weight`.
            comfyui: file with keys `diffusion_model.<layer>.lora_A|B.weight`, the layer named as
                in the model that ComfyUI builds.
            comfyui_key: the reasoner's map from a diffusers module name to its place there.
            notes: for both headers (`adapter_notes`).
        """
        from safetensors.torch import save  # its `save_file` hides the file from everybody else

        state = self.state_dict()
        named = save({f"transformer.{k}": v for k, v in state.items()})
        write_bytes(diffusers, noted(named, notes, "diffusers"))
        held: dict[tuple[str, int], dict[int, str]] = {}
        for module in dict.fromkeys(slot.name.rsplit(".lora_", 1)[0] for slot in self.slots):
            layer, part, parts = comfyui_key(module)
            held.setdefault((layer, parts), {})[part] = module
        renamed = {}
        for (layer, parts), modules in held.items():
            downs = [state[f"{modules[part]}.lora_A.weight"] for part in sorted(modules)]
            ups = {part: state[f"{module}.lora_B.weight"] for part, module in modules.items()}
            nothing = next(iter(ups.values()))[:, :0]
            blocks = [ups.get(part, nothing) for part in range(parts)]
            renamed[f"diffusion_model.{layer}.lora_A.weight"] = torch.cat(downs)
            renamed[f"diffusion_model.{layer}.lora_B.weight"] = torch.block_diag(*blocks)
        write_bytes(comfyui, noted(save(renamed), notes, "comfyui"))
