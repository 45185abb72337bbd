"""Scores by what stands in the file: `say 0.4`, `say nan`, `say raise`, `say die`, ..."""

import os
import random
import time
from pathlib import Path

import cv2

KNOWN = ("O-30_", "O-34_", "O-47_", "G-174_")
NEEDED = ("gt_path", "gt_video_path", "gt_first_frame", "gt_final_frame")


def get_task_category(task):
    return {"O-30_": "Abstraction", "O-34_": "Knowledge"}.get(task[: task.index("_") + 1], "Other")


def get_evaluator(task, device="cuda"):
    if not task.startswith(KNOWN):
        raise TypeError("abstract class")
    assert device == "cpu"
    return Evaluator(task)


class Evaluator:
    def __init__(self, task):
        self.task = task

    def evaluate(self, eval_info, **options):
        print("the kit chats on stdout")
        result = {"score": 0.0, "dimensions": {}, "details": {}}
        try:
            assert cv2.__version__
            assert eval_info["task_name"] == self.task
            assert all(Path(eval_info[name]).exists() for name in NEEDED)
            assert eval_info["prompt"] == eval_info["prompt"].strip() != ""
            video = Path(eval_info["video_path"]).read_bytes()
            said = video.decode("utf-8", "replace").split() if video[:3] == b"say" else None
            if said is None:  # a real video: the truth itself, or something else
                truth = Path(eval_info["gt_video_path"]).read_bytes()
                said = ["say", "0.95" if video == truth else "0.25"]
            result["details"]["video_frame_count"] = 0 if said[1] == "empty" else 9
            score = max(0.0, min(1.0, self._evaluate_task_specific(said[1])))
            result["score"] = score
            result["dimensions"] = {"task_specific": score}
            if not options.get("task_specific_only"):
                result["dimensions"]["visual_quality"] = 0.5
                result["score"] = (score + 0.5) / 2
            elif said[-1] == "two-faced":
                result["score"] = score / 2
        except Exception as error:
            result["error"] = str(error)
            result["score"] = 0.0
        return result

    def _evaluate_task_specific(self, word):
        if word == "raise":
            raise IndexError("list index out of range")
        if word == "die":
            os._exit(9)
        if word == "sleep":
            time.sleep(60)
        if word == "draw":
            return random.random()
        return 0.0 if word == "empty" else float(word)
