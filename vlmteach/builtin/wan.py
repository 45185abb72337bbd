"""A small randomly initialised checkpoint in the on-disk layout of Wan2.2-TI2V-5B (diffusers).

Same classes, same files, same config keys as `Wan-AI/Wan2.2-TI2V-5B-Diffusers`; only the sizes are
small. diffusers' own pipelines load it, and so does everything here that loads the real one. It
makes noise, not videos: the layers are scaled so that latents, velocities and pixels are of order
one and the velocity listens to the prompt, the first frame and a LoRA.
"""

from __future__ import annotations

import json
import string
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
    from transformers import T5Tokenizer, UMT5EncoderModel

_LATENT_CHANNELS = 48


def save_random_wan(
    folder: Path, *, seed: int = 0, layers: int = 2, heads: int = 4, head_dim: int = 12
) -> None:
    """Writes the checkpoint into `folder`; the same seed gives the same weights.

    Args:
        folder: created when missing.
        seed: of all weights; the global random state is left as it was.
        layers: transformer blocks.
        heads: attention heads; the transformer's width is `heads * head_dim`.
        head_dim: channels per head, a multiple of 2 and at least 6 (the rotary embedding splits
            it over time, height and width).
    """
    from diffusers.pipelines.wan.pipeline_wan import WanPipeline
    from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler

    with seeded(seed):
        tokenizer = _tokenizer()
        pipeline = WanPipeline(
            tokenizer=tokenizer,  # pyright: ignore[reportArgumentType]
            text_encoder=_text_encoder(len(tokenizer)),
            vae=_vae(),
            # The pipelines take any scheduler; the real checkpoint ships this one.
            scheduler=UniPCMultistepScheduler(  # pyright: ignore[reportArgumentType]
                prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=5.0
            ),
            transformer=_transformer(layers, heads, head_dim),
            expand_timesteps=True,
        )
    pipeline.save_pretrained(folder, safe_serialization=True)
    # The real checkpoint has this file beside the tokenizer; transformers no longer writes it.
    special = json.dumps(tokenizer.special_tokens_map, indent=2)
    (folder / "tokenizer" / "special_tokens_map.json").write_text(special)


def save_random_wan_a14b(folder: Path, *, seed: int = 0, image: bool = True) -> None:
    """Writes a checkpoint in the layout of Wan2.2-A14B: two transformers, Wan 2.1's VAE.

    Args:
        folder: created when missing.
        seed: of all weights; the global random state is left as it was.
        image: as `Wan-AI/Wan2.2-I2V-A14B-Diffusers`; else as `Wan-AI/Wan2.2-T2V-A14B-Diffusers`.
    """
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
    from diffusers.pipelines.wan.pipeline_wan import WanPipeline
    from diffusers.pipelines.wan.pipeline_wan_i2v import WanImageToVideoPipeline
    from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler

    kind: Any = WanImageToVideoPipeline if image else WanPipeline
    channels = {"in_channels": 36 if image else 16, "out_channels": 16}
    with seeded(seed):
        tokenizer = _tokenizer()
        vae: Any = AutoencoderKLWan(base_dim=8, z_dim=16, num_res_blocks=1).eval()
        vae.decoder.conv_out.weight.data.mul_(8)
        pipeline = kind(
            tokenizer=tokenizer,
            text_encoder=_text_encoder(len(tokenizer)),
            vae=vae,
            scheduler=UniPCMultistepScheduler(
                prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
            ),
            transformer=_transformer(2, 4, 12, **channels),
            transformer_2=_transformer(2, 4, 12, **channels),
            boundary_ratio=0.9 if image else 0.875,
        )
    pipeline.save_pretrained(folder, safe_serialization=True)


def save_random_wan_lora(path: Path, checkpoint: Path, *, rank: int = 4, seed: int = 0) -> None:
    """Writes a LoRA that changes every attention and feed-forward linear of `checkpoint`.

    diffusers keys (`transformer.blocks.N.attn1.to_q.lora_A.weight`), scale 1, neither A nor B zero.
    """
    import torch
    from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
    from safetensors.torch import save_file

    config: Any = WanTransformer3DModel.load_config(checkpoint, subfolder="transformer")
    with torch.device("meta"):
        network: Any = WanTransformer3DModel.from_config(config)
    draw = torch.Generator().manual_seed(seed)
    state = {}
    for name, module in network.named_modules():
        if name.startswith("blocks.") and isinstance(module, torch.nn.Linear):
            down = torch.randn(rank, module.in_features, generator=draw)
            up = torch.randn(module.out_features, rank, generator=draw)
            state[f"transformer.{name}.lora_A.weight"] = down / module.in_features**0.5
            state[f"transformer.{name}.lora_B.weight"] = 0.3 * up / rank**0.5
    save_file(state, path)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Layers draw their initial weights from the global CPU generator: seed it, then restore it."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reach the GPUs too
        yield


def _tokenizer() -> T5Tokenizer:
    """A unigram vocabulary of single characters: any prompt tokenises, unknown signs as <unk>."""
    from transformers import T5Tokenizer

    characters = string.ascii_letters + string.digits + string.punctuation
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    vocabulary += [(character, -5.0) for character in characters]
    return T5Tokenizer(vocab=vocabulary, extra_ids=0)


def _text_encoder(vocab_size: int) -> UMT5EncoderModel:
    from transformers import UMT5Config, UMT5EncoderModel

    config = UMT5Config(
        vocab_size=vocab_size,
        d_model=32,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
    )
    return UMT5EncoderModel(config).eval()


def _transformer(
    layers: int,
    heads: int,
    head_dim: int,
    *,
    in_channels: int = _LATENT_CHANNELS,
    out_channels: int = _LATENT_CHANNELS,
) -> WanTransformer3DModel:
    import torch
    from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

    transformer: Any = WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=heads,
        attention_head_dim=head_dim,
        in_channels=in_channels,
        out_channels=out_channels,
        text_dim=32,
        freq_dim=32,
        ffn_dim=2 * heads * head_dim,
        num_layers=layers,
        cross_attn_norm=True,
        qk_norm="rms_norm_across_heads",
        rope_max_seq_len=1024,
    )
    # A default initialisation barely listens to its condition: among 512 text tokens the prompt's
    # few dozen are averaged away. Sharper keys and larger outputs give it a say.
    with torch.no_grad():
        transformer.condition_embedder.text_embedder.linear_2.weight.mul_(3)
        transformer.proj_out.weight.mul_(1.5)
        for block in transformer.blocks:
            block.scale_shift_table.mul_(3)
            for attention in (block.attn1, block.attn2):
                attention.norm_k.weight.mul_(2)
                attention.to_out[0].weight.mul_(3)
    return transformer.eval()


def _vae() -> Any:
    import torch
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

    vae: Any = AutoencoderKLWan(
        base_dim=4,
        decoder_base_dim=6,
        z_dim=_LATENT_CHANNELS,
        dim_mult=[1, 2, 4, 4],
        num_res_blocks=2,
        temperal_downsample=[False, True, True],
        is_residual=True,
        patch_size=2,
        in_channels=12,
        out_channels=12,
        scale_factor_temporal=4,
        scale_factor_spatial=16,
        latents_mean=[0.0] * _LATENT_CHANNELS,
        latents_std=[1.0] * _LATENT_CHANNELS,
    ).eval()
    with torch.no_grad():
        vae.quant_conv.weight.mul_(20)
        blocks = torch.rand(1, 3, 16, 16).repeat_interleave(8, dim=2).repeat_interleave(8, dim=3)
        latent = vae.encode(2 * blocks[:, :, None] - 1).latent_dist.mode()  # [1, 48, 1, 8, 8]
    std, mean = torch.std_mean(latent, dim=(0, 2, 3, 4))
    vae.register_to_config(
        latents_mean=[round(value, 4) for value in mean.tolist()],
        latents_std=[round(value, 4) for value in std.tolist()],
    )
    return vae
