"""The reasoner as a WanPipeline folder: its parts, its ladder, a quick way to run it.

Wan pads every prompt to 512 tokens, of which all but a dozen are the same zero vector. `Velocity`
keeps one of them and counts it 512 - n times in the softmax: the same function as the pipeline's,
an order of magnitude quicker. It also spells attention out, whose CPU kernel is slow at this size.
"""

from __future__ import annotations

import json
import math
import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from diffusers.pipelines.wan.pipeline_wan import WanPipeline
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler
from torch import Tensor, nn
from transformers import AutoTokenizer, T5Tokenizer, UMT5Config, UMT5EncoderModel

from benchmarks.mini.train.autoencoder import CHANNELS
from vlmteach.mini.world import detail_words, vocabulary
from vlmteach.seeding import generator

LADDER = (1000.0, 937.5, 833.3, 625.0)
"""Timesteps of the four-step sampler: sigma' = 5 sigma / (1 + 4 sigma) at 1, 3/4, 1/2 and 1/4."""
_TEXT_TOKENS = 512
_TEXT_WIDTH = 64
_APART = 0.1
"""How far new words begin from the mean of the words, in standard deviations of these."""


def build_tokenizer() -> T5Tokenizer:
    """The world's words, each small and capitalised, and single characters for any other text.

    Last come the words of details: older reasoners have no rows for them, and keep those they have.
    """
    marks = [word for word in vocabulary() if not word.isalpha()]
    pieces = _pieces([word for word in vocabulary() if word.isalpha()])
    taken = {piece for piece, _ in pieces}
    pieces += [(mark, -2.0) for mark in marks]
    characters = string.ascii_letters + string.digits + string.punctuation
    rest = [("▁", -8.0), *((sign, -12.0) for sign in characters if sign not in marks)]
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    vocab = special + pieces + [item for item in rest if item[0] not in taken]
    return T5Tokenizer(vocab=vocab + _pieces(detail_words()), extra_ids=0)


def _pieces(words: Sequence[str]) -> list[tuple[str, float]]:
    """Each small, then each capitalised, with its log-probability."""
    spelt = [*words, *(word.capitalize() for word in words if len(word) > 1)]
    return [(f"▁{word}", -2.0) for word in spelt]


def build_text_encoder(vocab_size: int) -> UMT5EncoderModel:
    """A fresh text encoder: UMT5, two layers of 64."""
    return UMT5EncoderModel(
        UMT5Config(
            vocab_size=vocab_size,
            d_model=_TEXT_WIDTH,
            d_kv=16,
            d_ff=128,
            num_layers=2,
            num_heads=4,
            feed_forward_proj="gated-gelu",
            dropout_rate=0.0,
        )
    )


def build_transformer(layers: int = 6, width: int = 128) -> Any:
    """A fresh transformer; `width` is a multiple of 32.

    A latent cell is a token as it is, patch (1, 1, 1): of 4 x 4 cells there are few enough.
    """
    transformer: Any = WanTransformer3DModel(
        patch_size=(1, 1, 1),
        num_attention_heads=width // 32,
        attention_head_dim=32,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        text_dim=_TEXT_WIDTH,
        freq_dim=64,
        ffn_dim=4 * width,
        num_layers=layers,
        cross_attn_norm=True,
        qk_norm="rms_norm_across_heads",
        rope_max_seq_len=64,
    )
    with torch.no_grad():
        # Else the 500 empty tokens outvote the prompt's dozen, and it is hardly ever read.
        for block in transformer.blocks:
            block.attn2.norm_k.weight.mul_(2)
    return transformer


class _Attention:
    """Processor of both attentions: softmax written out, with a bias on the prompt's tokens."""

    bias: Tensor | None = None
    """[B, 1, 1, S] added to the scores of cross-attention."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        source = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query = _normed(attn.norm_q, attn.to_q(hidden_states)).unflatten(2, (attn.heads, -1))
        key = _normed(attn.norm_k, attn.to_k(source)).unflatten(2, (attn.heads, -1))
        value = attn.to_v(source).unflatten(2, (attn.heads, -1)).transpose(1, 2)
        if rotary_emb is not None:
            query, key = (_rotated(x, *rotary_emb) for x in (query, key))
        scores = query.transpose(1, 2) @ key.permute(0, 2, 3, 1)  # [B, heads, S, S']
        scores = scores / math.sqrt(query.shape[-1])
        if encoder_hidden_states is not None and self.bias is not None:
            scores = scores + self.bias
        mixed = (scores.softmax(-1) @ value).transpose(1, 2).flatten(2)
        return attn.to_out[0](mixed)


def _normed(norm: nn.RMSNorm, x: Tensor) -> Tensor:
    """The norm in x's dtype, which autocast may have lowered."""
    weight = norm.weight.to(x.dtype)
    return nn.functional.rms_norm(x, norm.normalized_shape, weight, norm.eps)


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    even, odd = x.unflatten(-1, (-1, 2)).unbind(-1)
    c, s = cos[..., 0::2], sin[..., 1::2]
    return torch.stack((even * c - odd * s, even * s + odd * c), -1).flatten(-2)


class Velocity(nn.Module):
    """Transformer and text encoder as one network: the velocity for a batch of prompts."""

    def __init__(self, transformer: Any, text_encoder: Any, tokenizer: Any) -> None:
        super().__init__()
        self.transformer = transformer
        self.text_encoder = text_encoder
        self.tokenizer = tokenizer
        self._attention = _Attention()
        transformer.set_attn_processor(self._attention)
        self._ids: dict[str, list[int]] = {}

    def prompts(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Prompts -> (embedding [B, S + 1, D] with one empty token at the end, bias)."""
        for text in texts:
            if text not in self._ids:
                self._ids[text] = self.tokenizer(text).input_ids
        rows = [self._ids[text] for text in texts]
        ids = nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
        counts = torch.tensor([len(row) for row in rows])
        mask = torch.arange(ids.shape[1]) < counts[:, None]
        text = self.text_encoder(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        text = nn.functional.pad(text * mask[..., None], (0, 0, 0, 1))
        bias = torch.zeros(mask.shape).masked_fill(~mask, -math.inf)
        bias = torch.cat([bias, (_TEXT_TOKENS - counts[:, None]).float().log()], dim=1)
        return text, bias[:, None, None]

    def forward(
        self, z: Tensor, sigma: Tensor, first: Tensor, texts: tuple[Tensor, Tensor]
    ) -> Tensor:
        """u(z, sigma, c).

        Args:
            z: noisy latents [B, C, t, h, w].
            sigma: noise level per sample, [B].
            first: latents of the first frames [B, C, 1, h, w].
            texts: from `prompts`.
        """
        _, _, t, h, w = z.shape
        timestep = (1000 * sigma)[:, None].repeat(1, t * h * w)
        timestep[:, : h * w] = 0
        embedding, self._attention.bias = texts
        return self.transformer(
            hidden_states=torch.cat([first, z[:, :, 1:]], dim=2),
            timestep=timestep,
            encoder_hidden_states=embedding,
            return_dict=False,
        )[0]

    def predict(
        self, noise: Sequence[Tensor], first: Tensor, texts: tuple[Tensor, Tensor]
    ) -> Tensor:
        """`vlmteach.rollout.rollout` for a batch, with gradient through every rung taken.

        Args:
            noise: one tensor [B, C, t, h, w] per rung of the ladder, from the first on.
            first: latents of the first frames [B, C, 1, h, w].
            texts: from `prompts`.

        Returns:
            The clean latents that the last of these rungs predicts.
        """
        z = z0 = noise[0]
        for rung, fresh in enumerate(noise):
            sigma = LADDER[rung] / 1000
            if rung:
                z = (1 - sigma) * z0 + sigma * fresh
            z0 = z - sigma * self(z, torch.full((len(z),), sigma), first, texts)
        return torch.cat([first, z0[:, :, 1:]], dim=2)

    @torch.no_grad()
    def sample(self, texts: Sequence[str], first: Tensor, draw: torch.Generator) -> Tensor:
        """Full sampling over the ladder for a batch: [B, C, 3, h, w]."""
        shape = (first.shape[0], first.shape[1], 3, *first.shape[3:])
        noise = [torch.randn(shape, generator=draw) for _ in LADDER]
        return self.predict(noise, first, self.prompts(texts))


def load_velocity(folder: Path) -> Velocity:
    """The networks of a WanPipeline folder, in float32."""
    transformer: Any = WanTransformer3DModel.from_pretrained(
        folder, subfolder="transformer", torch_dtype=torch.float32
    )
    encoder = UMT5EncoderModel.from_pretrained(
        folder, subfolder="text_encoder", dtype=torch.float32
    )
    tokenizer = AutoTokenizer.from_pretrained(
        folder, subfolder="tokenizer", trust_remote_code=False
    )
    return Velocity(transformer, encoder, tokenizer)


def with_all_words(velocity: Velocity, seed: int) -> Velocity:
    """An older reasoner with today's tokenizer, and rows of the embedding for the words it lacks.

    A new row is the mean of the words' rows, a little off it, so that words can part; the others
    stay as they are.

    Args:
        velocity: its networks are changed in place.
        seed: of the recipe.

    Raises:
        ValueError: a tokenizer whose ids are not the first of today's.
    """
    before, after = velocity.tokenizer.get_vocab(), build_tokenizer()
    known = after.get_vocab()
    if other := {piece for piece, row in before.items() if known.get(piece) != row}:
        raise ValueError(
            f"tokenizer: got {len(other)} of {len(before)} pieces with other ids than today's "
            f"(as {min(other)!r}), expected an older tokenizer of this recipe; train from the start"
        )
    words = [row for piece, row in before.items() if piece[1:].isalpha() and piece[0] == "▁"]
    words.sort()  # a tokenizer tells its pieces in another order each time, and sums would vary
    old = velocity.text_encoder.get_input_embeddings().weight.detach()
    fresh = old[words].mean(0).expand(len(known) - len(before), -1)
    noise = torch.randn(fresh.shape, generator=generator(seed, "words", "weights"))
    velocity.text_encoder.resize_token_embeddings(len(known), mean_resizing=False)
    with torch.no_grad():
        grown = velocity.text_encoder.get_input_embeddings().weight
        grown.copy_(torch.cat([old, fresh + _APART * old[words].std(0) * noise]))
    return Velocity(velocity.transformer, velocity.text_encoder, after)


def save_pipeline(velocity: Velocity, vae_folder: Path, folder: Path) -> None:
    """Writes a WanPipeline folder in float16, in the layout of Wan2.2-TI2V-5B.

    Args:
        velocity: the networks; left in float32 as they are.
        vae_folder: of the finished autoencoder, copied into the pipeline.
        folder: created or overwritten.
    """
    vae: Any = AutoencoderKLWan.from_pretrained(vae_folder, torch_dtype=torch.float16)
    velocity.transformer.set_attn_processor(
        velocity.transformer.blocks[0].attn1._default_processor_cls()
    )
    pipeline: Any = WanPipeline(
        tokenizer=velocity.tokenizer,
        text_encoder=velocity.text_encoder.half(),
        vae=vae,
        scheduler=UniPCMultistepScheduler(  # pyright: ignore[reportArgumentType]
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=5.0
        ),
        transformer=velocity.transformer.half(),
        expand_timesteps=True,
    )
    pipeline.save_pretrained(folder, safe_serialization=True)
    for part in ("vae", "transformer"):  # diffusers notes where they were loaded from
        config = folder / part / "config.json"
        facts = json.loads(config.read_text())
        facts.pop("_name_or_path", None)
        config.write_text(json.dumps(facts, indent=2) + "\n")
    # The real checkpoint has this file beside the tokenizer; transformers no longer writes it.
    special = json.dumps(velocity.tokenizer.special_tokens_map, indent=2)
    (folder / "tokenizer" / "special_tokens_map.json").write_text(special)
