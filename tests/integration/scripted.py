"""A teacher that writes what a test hands it, and the small task and models it is tried on."""

import json

from PIL import Image, ImageDraw

from vlmteach.config import (
    ClipConfig,
    Config,
    FitConfig,
    LoraConfig,
    QueryConfig,
    ReasonerConfig,
    TeacherConfig,
)
from vlmteach.types import Instance

RUNGS = 4
CONFIG = Config(
    clip=ClipConfig(frames=5, fps=8.0, height=32, width=32),
    reasoner=ReasonerConfig(dtype="float32"),
    teacher=TeacherConfig(dtype="float32", frames=4),
    query=QueryConfig(source="generic"),
    lora=LoraConfig(rank=2),
    fit=FitConfig(steps=1, learning_rate=1e-2),
)
FRAME = Image.new("RGB", (32, 32), "white")
ImageDraw.Draw(FRAME).ellipse((4, 4, 12, 12), fill="red")
TASK = Instance(key="move/1", prompt='Move the "ball" to {0}.', first_frame=FRAME, digest="0")


class Scripted:
    """A teacher that writes the replies in order, and otherwise is the loaded one."""

    def __init__(self, teacher, replies):
        self.teacher = teacher
        self.replies = list(replies)
        self.asked = []

    def __getattr__(self, name):
        return getattr(self.teacher, name)

    def write(self, instruction, images, max_new_tokens):
        self.asked.append((instruction, list(images)))
        assert max_new_tokens <= 400
        return self.replies.pop(0)


def written(**fields):
    return json.dumps(fields)


def read(path):
    return json.loads(path.read_text())


def cost(outcome):
    assert outcome.compute.reasoner_backwards == 0
    return outcome.compute.reasoner_forwards, outcome.compute.teacher_calls
