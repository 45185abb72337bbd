"""How often the host may wait for the device: a wait drains its queue, and a GPU then idles.

Two waits of an update are this package's own (the reading, and the gradient's norm); all others are
in transformers' and diffusers' forward passes.
"""

UPDATE_READS = {
    "wan/taehv/qwen3_vl": 17,
    "wan_a14b/full/qwen2_5_vl": 19,
    "hunyuan15/full/internvl": 31,
}
"""Reasoner, decoder, teacher -> read-backs of one update, all of its passes."""

METHOD_READS = {
    "base": 2,
    "pass_at_n": 25,
    "prompt_rewrite": 27,
    "video_tpo": 48,
    "vlm_solver": 57,
}
"""Read-backs of an instance, its sampling, questions and one token for each request."""
