"""Runs inside the EvalKit's own interpreter: requests and replies are lines of JSON.

    python worker.py PATH_TO_EVALKIT

Imports nothing but the standard library, OpenCV and the kit, and runs on Python 3.8. What the kit
prints goes to stderr: the replies have the first stdout to themselves.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import platform
import random
import sys

OPENCV_BELOW = 5


def main() -> int:
    """Answers one request a line on standard input until it ends; returns the exit code."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # also for what C++ prints
    kit = os.path.abspath(sys.argv[1])
    sys.path[0] = kit  # instead of this script's folder

    def reply(value):
        replies.write(json.dumps(value) + "\n")
        replies.flush()

    versions = {"python": platform.python_version()}
    try:
        cv2 = importlib.import_module("cv2")
        versions["opencv"] = cv2.__version__
        if int(cv2.__version__.split(".")[0]) >= OPENCV_BELOW:
            reply({"refused": "opencv", **versions})
            return 1
        evaluators = importlib.import_module("vbvr_bench.evaluators")
        numpy = sys.modules.get("numpy")
        versions["numpy"] = getattr(numpy, "__version__", "none")
    except Exception as error:
        reply({"refused": "import", "error": f"{type(error).__name__}: {error}", **versions})
        return 1
    reply(versions)
    for line in sys.stdin:
        request = json.loads(line)
        # One draw for every video, whatever was scored before it.
        random.seed(0)
        if numpy is not None and hasattr(numpy, "random"):
            numpy.random.seed(0)
        if hasattr(cv2, "setRNGSeed"):
            cv2.setRNGSeed(0)
        try:
            answer = score(evaluators, **request)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        reply(answer)
    return 0


def score(evaluators, task, info, task_specific_only):
    """One call of the kit, its silences made errors.

    The kit returns score 0 with an `error` beside it, reads a damaged video as one without frames,
    and clamps with `min(1.0, nan)`, which is 1.
    """
    evaluator = evaluators.get_evaluator(task, "cpu")
    unclamped = []
    inner = getattr(evaluator, "_evaluate_task_specific", None)
    if inner is not None:

        def watched(*values, **named):
            unclamped.append(inner(*values, **named))
            return unclamped[-1]

        evaluator._evaluate_task_specific = watched
    result = evaluator.evaluate(info, task_specific_only=task_specific_only)
    if result.get("error"):
        return {"error": str(result["error"])}
    if result.get("details", {}).get("video_frame_count") == 0:
        return {"error": "the kit could read no frame of the video"}
    dimensions = {name: float(value) for name, value in result["dimensions"].items()}
    numbers = [float(result["score"]), *dimensions.values(), *map(float, unclamped)]
    if not all(map(math.isfinite, numbers)):
        return {"error": "the kit's score is not a finite number"}
    category = getattr(evaluators, "get_task_category", lambda task: None)(task)
    return {"score": numbers[0], "dimensions": dimensions, "category": category}


if __name__ == "__main__":
    sys.exit(main())
