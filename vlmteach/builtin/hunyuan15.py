"""A small randomly initialised checkpoint in the on-disk layout of HunyuanVideo-1.5 (diffusers).

Same classes, same files, same config keys as
`hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-480p_i2v`; only the sizes are small. diffusers'
own pipelines load it, and so does everything here that loads the real one. It makes noise, not
videos: the layers are scaled so that latents, velocities and pixels are of order one and the
velocity listens to the prompt, the first frame and a LoRA.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from vlmteach.builtin.qwen_text import save_text_files
from vlmteach.builtin.wan import seeded

_LATENT_CHANNELS = 32
_IMAGE_WIDTH = 24
_TEXT_WIDTH = 32
_GLYPH_WIDTH = 16
_CHAT = """\
{%- for message in messages -%}
<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}<|im_start|>assistant
{% endif %}"""


def save_random_hunyuan15(
    folder: Path, *, seed: int = 0, layers: int = 2, mean_flow: bool = False
) -> None:
    """Writes the checkpoint into `folder`; the same seed gives the same weights.

    Args:
        folder: created when missing.
        seed: of all weights; the global random state is left as it was.
        layers: transformer blocks.
        mean_flow: as the official step distillation: told a second noise level.
    """
    from diffusers.guiders.classifier_free_guidance import ClassifierFreeGuidance
    from diffusers.pipelines.hunyuan_video1_5.pipeline_hunyuan_video1_5_image2video import (
        HunyuanVideo15ImageToVideoPipeline,
    )
    from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
        FlowMatchEulerDiscreteScheduler,
    )
    from transformers import AutoTokenizer, ByT5Tokenizer, SiglipImageProcessorPil

    with tempfile.TemporaryDirectory() as scratch:
        ids = save_text_files(Path(scratch), template=_CHAT)
        tokenizer: Any = AutoTokenizer.from_pretrained(scratch, trust_remote_code=False)
    with seeded(seed):
        pipeline = HunyuanVideo15ImageToVideoPipeline(
            text_encoder=_text_encoder(512, ids),
            tokenizer=tokenizer,
            transformer=_transformer(layers, mean_flow),
            vae=_vae(),
            scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0),
            text_encoder_2=_glyph_encoder(),
            tokenizer_2=ByT5Tokenizer(),
            guider=ClassifierFreeGuidance(guidance_scale=1.0),  # pyright: ignore
            image_encoder=_image_encoder(),
            feature_extractor=SiglipImageProcessorPil(  # pyright: ignore[reportArgumentType]
                size={"height": 28, "width": 28}
            ),
        )
    pipeline.save_pretrained(folder, safe_serialization=True)


def _text_encoder(vocabulary: int, ids: dict[str, int]) -> Any:
    from transformers import Qwen2_5_VLTextConfig, Qwen2_5_VLTextModel

    config = Qwen2_5_VLTextConfig(
        vocab_size=vocabulary,
        hidden_size=_TEXT_WIDTH,
        intermediate_size=48,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        rope_parameters={"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e6},
        use_sliding_window=False,
        bos_token_id=ids["<|endoftext|>"],
        eos_token_id=ids["<|im_end|>"],
        pad_token_id=ids["<|endoftext|>"],
        initializer_range=0.2,
    )
    return Qwen2_5_VLTextModel(config).eval()


def _glyph_encoder() -> Any:
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=384,
        d_model=_GLYPH_WIDTH,
        d_kv=8,
        d_ff=32,
        num_layers=2,
        num_heads=2,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
    )
    return T5EncoderModel(config).eval()


def _image_encoder() -> Any:
    from transformers import SiglipVisionConfig, SiglipVisionModel

    config = SiglipVisionConfig(
        hidden_size=_IMAGE_WIDTH,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=28,
        patch_size=14,
    )
    return SiglipVisionModel(config).eval()


def _transformer(layers: int, mean_flow: bool) -> Any:
    import torch
    from diffusers.models.transformers.transformer_hunyuan_video15 import (
        HunyuanVideo15Transformer3DModel,
    )

    transformer: Any = HunyuanVideo15Transformer3DModel(
        in_channels=2 * _LATENT_CHANNELS + 1,
        out_channels=_LATENT_CHANNELS,
        num_attention_heads=4,
        attention_head_dim=12,
        num_layers=layers,
        num_refiner_layers=1,
        mlp_ratio=2.0,
        text_embed_dim=_TEXT_WIDTH,
        text_embed_2_dim=_GLYPH_WIDTH,
        image_embed_dim=_IMAGE_WIDTH,
        rope_axes_dim=(4, 4, 4),
        target_size=64,
        task_type="i2v",
        use_meanflow=mean_flow,
    )
    # A default initialisation barely listens to its conditions.
    with torch.no_grad():
        transformer.proj_out.weight.mul_(1.5)
        for block in transformer.transformer_blocks:
            for norm in (block.norm1, block.norm1_context):
                norm.linear.weight.mul_(3)
            block.attn.norm_added_k.weight.mul_(3)
            block.attn.add_v_proj.weight.mul_(4)
            block.attn.to_out[0].weight.mul_(2)
    return transformer.eval()


def _vae() -> Any:
    import torch
    from diffusers.models.autoencoders.autoencoder_kl_hunyuanvideo15 import (
        AutoencoderKLHunyuanVideo15,
    )

    vae: Any = AutoencoderKLHunyuanVideo15(
        latent_channels=_LATENT_CHANNELS,
        block_out_channels=(4, 8, 16, 32, 64),  # pyright: ignore[reportArgumentType]
        layers_per_block=1,
    ).eval()
    with torch.no_grad():
        vae.decoder.conv_out.conv.weight.mul_(2)
    return vae
