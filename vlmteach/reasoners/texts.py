"""What a reasoner is told of prompts: made one by one, in loans of the encoder that several share.

A text encoder of 11 GB is copied to a GPU for what takes it 5 TFLOP. So a loan also encodes the
prompts that will be asked for next, and all are kept for a while. A prompt is encoded alone in
every case: the rows of a batch would have other bits.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from torch import Tensor

from vlmteach.reasoners.parts import Lent

log = logging.getLogger(__name__)

MOST_BYTES = 256 << 20
"""Of embeddings kept, in the CPU's memory. A token of Wan's is 8 KiB, one of HunyuanVideo's 7."""


class Texts:
    """Prompt -> embeddings; where the encoders are on the device for good, nothing is kept.

    Args:
        encode: a prompt's tensors, without its padding, on the device.
        encoders: that `encode` calls.
        most_bytes: kept at most; what was not asked for longest goes first.
    """

    def __init__(
        self,
        encode: Callable[[str], tuple[Tensor, ...]],
        encoders: Sequence[Lent],
        *,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self._encode = encode
        self._encoders = tuple(encoders)
        self._most = most_bytes
        self._kept: OrderedDict[str, tuple[Tensor, ...]] = OrderedDict()
        self._bytes = 0

    def of(self, prompt: str, ahead: Sequence[str]) -> tuple[Tensor, ...]:
        """The tensors of a prompt: the same bits whether they were kept or are made now.

        Args:
            prompt: wanted.
            ahead: prompts that will be wanted soon, in that order; where the encoders are lent for
                this one, those are encoded too. One that cannot be is left out: whoever asks for
                it gets the error.
        """
        if not any(encoder.is_lent for encoder in self._encoders):
            return self._encode(prompt)
        if prompt in self._kept:
            self._kept.move_to_end(prompt)
            device = self._encoders[0].device
            return tuple(tensor.to(device) for tensor in self._kept[prompt])
        with ExitStack() as loans:
            for encoder in self._encoders:
                loans.enter_context(encoder.loan())
            made = self._encode(prompt)
            fresh = self._keep(prompt, made)
            for other in ahead:
                if fresh >= self._most:  # the next would push out those that were just made
                    break
                if other in self._kept:
                    self._kept.move_to_end(other)
                    continue
                try:
                    fresh += self._keep(other, self._encode(other))
                except Exception as error:
                    log.debug("a prompt could not be encoded ahead: %s", error)
        return made

    def _keep(self, prompt: str, made: tuple[Tensor, ...]) -> int:
        """Keeps a copy; its bytes."""
        self._kept[prompt] = tuple(tensor.cpu() for tensor in made)
        added = _bytes(made)
        self._bytes += added
        while self._bytes > self._most:
            _, oldest = self._kept.popitem(last=False)
            self._bytes -= _bytes(oldest)
        return added


def _bytes(tensors: Sequence[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
