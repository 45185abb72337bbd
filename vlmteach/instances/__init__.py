"""Instances in and out: WebDataset tars, what lies in them, and importers that make them."""

from vlmteach.instances.decode import content_digest, decode
from vlmteach.instances.framing import clip_spec, fit_first_frame
from vlmteach.instances.pack import pack
from vlmteach.instances.read import list_keys, list_samples, read_held_out, read_samples
from vlmteach.instances.sample import InstanceError, RawSample

__all__ = [
    "InstanceError",
    "RawSample",
    "clip_spec",
    "content_digest",
    "decode",
    "fit_first_frame",
    "list_keys",
    "list_samples",
    "pack",
    "read_held_out",
    "read_samples",
]
