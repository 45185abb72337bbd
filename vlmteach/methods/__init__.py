"""Ways to solve an instance, behind one small interface."""

from collections.abc import Callable

from vlmteach.methods.base import Bench, Method
from vlmteach.methods.pass_at_n import BaseMethod, PassAtN
from vlmteach.methods.teacher import TeacherMethod

METHODS: dict[str, Callable[[Bench], Method]] = {
    method.name: method for method in (TeacherMethod, BaseMethod, PassAtN)
}

__all__ = ["METHODS", "BaseMethod", "Bench", "Method", "PassAtN", "TeacherMethod"]
