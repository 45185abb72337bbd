"""Runs a teacher's official processor on given frames; a script, for a process of its own.

python official_processors.py CHECKPOINT CASES.safetensors OUT.safetensors

CASES holds one tensor per case, [K, 3, H, W], and as metadata under "cases" a JSON object from the
case's name to {"kind": "video" or "image", "text": ..., "fps": ..., "budget": H x W per frame},
with "tokens" beside it for a budget of the whole video. OUT holds what the processor returns, under
"case/field".

The torchvision found beside a CPU build of torch lacks its compiled part. Its Python part only
needs the operators to be declared, and the processors use none of them; but a process with such a
torchvision in it is of no use for anything else.
"""

import importlib
import json
import os
import sys

import torch
from safetensors import safe_open
from safetensors.torch import save_file


def import_torchvision() -> list[torch.library.Library]:
    """Returns what must stay alive: the declarations end with the object."""
    try:
        importlib.import_module("torchvision")
        return []
    except RuntimeError:  # operator torchvision::nms does not exist
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        importlib.import_module("torchvision")
        return [library]


def main(checkpoint: str, cases_file: str, out_file: str) -> None:
    from PIL import Image
    from transformers import AutoProcessor
    from transformers.video_utils import VideoMetadata

    processor = AutoProcessor.from_pretrained(checkpoint)
    over_all_frames = type(processor).__name__ == "Qwen3VLProcessor"
    out = {}
    with safe_open(cases_file, "pt") as file:
        for name, case in json.loads(file.metadata()["cases"]).items():
            frames = file.get_tensor(name)
            count = len(frames)
            is_image = case["kind"] == "image"
            shown = [{"type": case["kind"]}] * (count if is_image else 1)
            content = [*shown, {"type": "text", "text": case["text"]}]
            text = processor.apply_chat_template(
                [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
            )
            if is_image:
                pictures = [Image.fromarray(frame.permute(1, 2, 0).numpy()) for frame in frames]
                arguments = {"images": pictures}
            else:
                longest = case["budget"] * (count if over_all_frames else 1)
                metadata = VideoMetadata(
                    total_num_frames=count, fps=case["fps"], frames_indices=list(range(count))
                )
                arguments = {
                    "videos": [frames],
                    "do_sample_frames": False,
                    "do_rescale": frames.dtype == torch.uint8,
                    "video_metadata": [metadata],
                }
                if type(processor).__name__ != "InternVLProcessor":  # whose frames are one tile
                    arguments["size"] = {"shortest_edge": 1, "longest_edge": longest}
                    arguments["cap_pixels_per_frame"] = "tokens" in case
                if tokens := case.get("tokens"):
                    video = processor.video_processor
                    block = (video.patch_size * video.merge_size) ** 2
                    if (
                        over_all_frames
                    ):  # here the pixels of all frames, and there 0.9 of the tokens
                        arguments["size"]["longest_edge"] = (
                            tokens * block * video.temporal_patch_size
                        )
                        video.max_video_tokens = case["budget"] // block
                    else:
                        video.max_video_tokens = tokens * 10 // 9
            inputs = processor(text=[text], return_tensors="pt", **arguments)
            for field, value in inputs.items():
                out[f"{name}/{field}"] = torch.as_tensor(value).contiguous()
    save_file(out, out_file)


if __name__ == "__main__":
    if folder := os.environ.get("PARITY_TORCHVISION"):
        sys.path.insert(0, folder)
    declared = import_torchvision()
    main(*sys.argv[1:])
