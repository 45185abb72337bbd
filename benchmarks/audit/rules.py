"""Labels from the miniature's rules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.audit.cases import AuditedRun, Case
from vlmteach.mini import world

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from vlmteach.types import Query

YES = 0.5
_SILENT = {"the", "a", "an", ".", ",", "?"}


def task_of(key: str) -> world.Task | None:
    """The miniature's task of a key `<split>/<family>/<seed>`; None for any other key."""
    parts = key.split("/")
    families = {family.name for family in world.families()}
    if len(parts) != 3 or parts[0] not in world.SPLITS or parts[1] not in families:
        return None
    if not (parts[2].isascii() and parts[2].isdigit()):
        return None
    return world.make(parts[1], parts[0], int(parts[2]))


def meaning(text: str) -> tuple[str, ...]:
    """What two wordings of one question share: its words in order, without articles and marks.

    In the miniature's closed vocabulary a question has one wording beside those.
    """
    return tuple(token for token in world.tokens(text) if token not in _SILENT)


def matches(queries: Sequence[Query], task: world.Task) -> list[int | None]:
    """For each query the world's own one that it means, by number, or None."""
    known = {meaning(query.text): number for number, query in enumerate(task.queries)}
    return [known.get(meaning(query.text)) for query in queries]


def label(case: Case, task: world.Task, video: NDArray, p_yes: Sequence[float]) -> None:
    """Labels a case.

    The query was wrong where one that was asked means none of the world's queries for the task, or
    has the answer no on the true video, or where what failed was asked by none. The perception was
    wrong where the teacher's yes or no about the delivered clip is not the rules'. Otherwise
    neither was.

    Args:
        case: gets its verdicts, P(yes), label and reason.
        task: what it is.
        video: the delivered clip, uint8 [T, H, W, 3].
        p_yes: the teacher's P(yes) to each of the case's queries about it.
    """
    means = matches(case.queries, task)
    right = [answer > YES for answer in world.answers(task, video)]
    true = [answer > YES for answer in world.answers(task, task.truth)]
    case.by, case.p_yes = "rules", tuple(p_yes)
    case.verdicts = tuple(None if number is None else right[number] for number in means)
    unknown = [q.text for q, number in zip(case.queries, means, strict=True) if number is None]
    wrong = [case.queries[i].text for i, n in enumerate(means) if n is not None and not true[n]]
    unasked = [task.queries[n].text for n, ok in enumerate(right) if not ok and n not in means]
    for texts, why in (
        (unknown, "asks for something else: "),
        (wrong, "is no of the true video: "),
        (unasked, "is asked by none: "),
    ):
        if texts:
            case.label, case.why = "query", why + " / ".join(texts)
            return
    blind = [
        query.text
        for query, verdict, p in zip(case.queries, case.verdicts, p_yes, strict=True)
        if (p > YES) != verdict
    ]
    case.label = "perception" if blind else "neither"
    case.why = "seen wrongly: " + " / ".join(blind) if blind else "seen rightly, not reached"


def label_run(run: AuditedRun) -> None:
    """Labels every case of a run; its teacher watches every delivered clip again.

    Raises:
        ValueError: an instance that is not of the miniature.
    """
    if not run.cases:
        return
    import torch

    from benchmarks.viewer import Viewer
    from vlmteach.video import read_video

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    teacher = Viewer(run.config.teacher, device)
    for case in run.cases:
        task = task_of(case.key)
        if task is None:
            raise ValueError(
                f"--by rules: got the instance {case.key!r}, expected one of the miniature, "
                "<split>/<family>/<seed>; label it by person or by judge"
            )
        frames, fps = read_video(case.clip)
        case.prompt = task.prompt
        label(case, task, frames.numpy(), teacher.p_yes(case.queries, frames, fps))
