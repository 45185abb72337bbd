"""Ways to solve an instance, behind one small interface."""

from collections.abc import Callable

from vlmteach.class_path import load_class
from vlmteach.methods.base import Method, Resources, Work, carry_out
from vlmteach.methods.micro_fit import MicroFitMethod
from vlmteach.methods.pass_at_n import BaseMethod, PassAtN
from vlmteach.methods.prompt_rewrite import PromptRewrite
from vlmteach.methods.video_tpo import VideoTPO
from vlmteach.methods.vlm_solver import VLMSolver

METHODS: dict[str, Callable[[Resources], Method]] = {
    method.name: method
    for method in (MicroFitMethod, BaseMethod, PassAtN, PromptRewrite, VideoTPO, VLMSolver)
}


def load_method(name: str, resources: Resources) -> Method:
    """The method of a name of `METHODS`, or of a class path of the user's.

    Raises:
        ValueError: for a class that is not there, or models that the method cannot use.
    """
    return METHODS[name](resources) if name in METHODS else load_class(name)(resources)


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
    "Work",
    "carry_out",
    "load_method",
]
