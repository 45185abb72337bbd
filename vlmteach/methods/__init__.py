"""Ways to solve an instance, behind one small interface."""

from collections.abc import Callable

from vlmteach.methods.base import Bench, Method
from vlmteach.methods.pass_at_n import BaseMethod, PassAtN
from vlmteach.methods.prompt_rewrite import PromptRewrite
from vlmteach.methods.teacher import TeacherMethod
from vlmteach.methods.video_tpo import VideoTPO
from vlmteach.methods.vlm_solver import VLMSolver

METHODS: dict[str, Callable[[Bench], Method]] = {
    method.name: method
    for method in (TeacherMethod, BaseMethod, PassAtN, PromptRewrite, VideoTPO, VLMSolver)
}

__all__ = [
    "METHODS",
    "BaseMethod",
    "Bench",
    "Method",
    "PassAtN",
    "PromptRewrite",
    "TeacherMethod",
    "VLMSolver",
    "VideoTPO",
]
