"""What a user without rules could train: a small classifier of clips, from labelled clips alone.

A convolutional network sees a clip and its task's given first frame, and is told the task's prompt
and a yes/no question in words; it answers with P(yes). It has no part in any teacher or judge, and
nothing is ever optimised against it: `benchmarks.mini.train classifier` trains it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from hashlib import sha256
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vlmteach.mini.world import FRAMES, SIZE, Task, tokens, vocabulary

SHIPPED = Path(__file__).with_name("classifier.safetensors")
_FRAME, _NEAR, _FAR, _TEXT = 16, 48, 80, 64
"""Channels: of a frame by itself, of the clip at 16 x 16 and at 8 x 8 places, of a text."""


class Filmed(nn.Module):
    """A residual block whose channels are scaled and shifted by a text and by what the whole image
    shows (FiLM, Perez et al., 2018).

    Args:
        width: channels.
        text: of the text.
    """

    def __init__(self, width: int, text: int) -> None:
        super().__init__()
        self.before = nn.GroupNorm(8, width)
        self.one = nn.Conv2d(width, width, 3, padding=1)
        self.between = nn.GroupNorm(8, width, affine=False)
        self.film = nn.Linear(text + width, 2 * width)
        self.two = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.two.weight)

    def forward(self, x: Tensor, text: Tensor) -> Tensor:
        """[B, width, h, w] and texts [B, text] -> [B, width, h, w]."""
        seen = self.one(F.relu(self.before(x)))
        told = torch.cat([text, seen.mean((2, 3)).to(text.dtype)], 1)
        scale, shift = self.film(told)[:, :, None, None].chunk(2, 1)
        return x + self.two(F.relu(self.between(seen) * (1 + scale) + shift))


class ClipClassifier(nn.Module):
    """P(yes) of questions about a clip, 0.6 M parameters.

    Each frame is seen by itself first, the given one too; then their channels are taken together,
    which is a kernel over all of time. The prompt speaks from there on, the question at the end.
    """

    def __init__(self) -> None:
        super().__init__()
        words = vocabulary()
        self._ids = {word: number for number, word in enumerate(words, 1)}
        self.word_table = nn.Embedding(len(words) + 1, _TEXT, padding_idx=0)
        self.text = nn.Sequential(
            nn.Linear(_TEXT, 2 * _TEXT), nn.ReLU(), nn.Linear(2 * _TEXT, _TEXT), nn.ReLU()
        )
        self.frame = nn.Conv2d(3, _FRAME, 4, stride=2, padding=1)
        self.frame_more = nn.Conv2d(_FRAME, _FRAME, 3, padding=1)
        self.time = nn.Conv2d((FRAMES + 1) * _FRAME + 2, _NEAR, 1)
        self.near = Filmed(_NEAR, _TEXT)
        self.down = nn.Conv2d(_NEAR, _FAR, 4, stride=2, padding=1)
        self.far = nn.ModuleList(Filmed(_FAR, _TEXT) for _ in range(2))
        self.asked = Filmed(_FAR, 2 * _TEXT)
        self.answer = nn.Sequential(nn.Linear(2 * _FAR, _FAR), nn.ReLU(), nn.Linear(_FAR, 1))

    def words(self, texts: Sequence[str]) -> Tensor:
        """Texts -> numbers of their words [B, S], 0 where a text is over.

        Raises:
            ValueError: a word that the miniature does not have.
        """
        rows = []
        for text in texts:
            unknown = [word for word in tokens(text) if word not in self._ids]
            if unknown:
                raise ValueError(
                    f"text: got {text!r}, whose {unknown} the miniature has no words for; expected "
                    "prompts and queries as the world words them"
                )
            rows.append(torch.tensor([self._ids[word] for word in tokens(text)]))
        return nn.utils.rnn.pad_sequence(rows, batch_first=True)

    def _said(self, words: Tensor) -> Tensor:
        """Bags of words [..., S] -> [..., _TEXT]."""
        count = (words > 0).sum(-1, keepdim=True)
        return self.text(self.word_table(words).sum(-2) / count.sqrt())

    def forward(self, clips: Tensor, first: Tensor, prompts: Tensor, questions: Tensor) -> Tensor:
        """Logits of yes, [B, Q].

        Args:
            clips: [B, T, 3, H, W] in 0..1.
            first: the given first frames [B, 3, H, W] in 0..1.
            prompts: words [B, S].
            questions: words [B, Q, S].
        """
        frames = torch.cat([clips, first[:, None]], 1)
        x = F.relu(self.frame(frames.flatten(0, 1) * 2 - 1))  # [B (T + 1), _FRAME, 16, 16]
        x = x + F.relu(self.frame_more(x))
        x = x.unflatten(0, frames.shape[:2]).flatten(1, 2)  # [B, (T + 1) _FRAME, 16, 16]
        axis = torch.linspace(-1, 1, x.shape[-1], dtype=x.dtype)
        places = torch.stack(torch.meshgrid(axis, axis, indexing="ij")).expand(len(x), -1, -1, -1)
        x = self.time(torch.cat([x, places], 1))
        prompt, question = self._said(prompts), self._said(questions)
        x = self.down(self.near(x, prompt))
        for block in self.far:
            x = block(x, prompt)
        count = questions.shape[1]
        told = torch.cat([prompt[:, None].expand_as(question), question], -1).flatten(0, 1)
        x = F.relu(self.asked(x.repeat_interleave(count, 0), told)).float()
        seen = torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1)
        return self.answer(seen).view(-1, count).float()

    @torch.no_grad()
    def p_yes(self, task: Task, clip: Tensor) -> tuple[float, ...]:
        """P(yes) to each of a task's queries about a clip.

        Args:
            task: whose prompt, first frame and queries.
            clip: uint8 [T, H, W, 3].

        Raises:
            ValueError: a clip of another size than the miniature's.
        """
        if clip.shape != (FRAMES, SIZE, SIZE, 3):
            raise ValueError(
                f"clip: got {list(clip.shape)}, expected [{FRAMES}, {SIZE}, {SIZE}, 3]; the "
                "classifier knows the miniature only"
            )
        seen = (clip.permute(0, 3, 1, 2)[None] / 255).float()
        first = torch.from_numpy(task.first_frame).permute(2, 0, 1)[None] / 255
        questions = self.words([query.text for query in task.queries])[None]
        logits = self(seen, first, self.words([task.prompt]), questions)
        return tuple(logits[0].double().sigmoid().tolist())

    @cached_property
    def digest(self) -> str:
        """sha256 of the weights, 16 hexadecimal digits: another training, other answers."""
        total = sha256()
        for name, value in sorted(self.state_dict().items()):
            total.update(name.encode() + value.numpy().tobytes())
        return total.hexdigest()[:16]


def save(classifier: ClipClassifier, file: Path) -> None:
    """Writes the weights in float16."""
    save_file(
        {name: value.half().contiguous() for name, value in classifier.state_dict().items()}, file
    )


def load(file: Path = SHIPPED) -> ClipClassifier:
    """A trained classifier, in float32 on the CPU.

    Raises:
        ValueError: no such file, or weights of something else.
    """
    classifier = ClipClassifier()
    try:
        classifier.load_state_dict(load_file(file))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise ValueError(
            f"{file}: got no weights of the classifier ({str(error)[:200]}), expected what "
            "`python -m benchmarks.mini.train classifier` leaves; train it, or name another file"
        ) from error
    return classifier.eval().requires_grad_(False)
