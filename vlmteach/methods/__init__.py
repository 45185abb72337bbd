"""Ways to solve an instance, behind one small interface."""

from collections.abc import Callable

from vlmteach.methods.base import Method, Resources
from vlmteach.methods.micro_fit import MicroFitMethod
from vlmteach.methods.pass_at_n import BaseMethod, PassAtN
from vlmteach.methods.prompt_rewrite import PromptRewrite
from vlmteach.methods.video_tpo import VideoTPO
from vlmteach.methods.vlm_solver import VLMSolver

METHODS: dict[str, Callable[[Resources], Method]] = {
    method.name: method
    for method in (MicroFitMethod, BaseMethod, PassAtN, PromptRewrite, VideoTPO, VLMSolver)
}

__all__ = [
    "METHODS",
    "BaseMethod",
    "Method",
    "MicroFitMethod",
    "PassAtN",
    "PromptRewrite",
    "Resources",
    "VLMSolver",
    "VideoTPO",
]
