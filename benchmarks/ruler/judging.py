"""Every exported video before the judge, once."""

from __future__ import annotations

import hashlib
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.judges import Judge, JudgeError, UnusableJudgeError
from benchmarks.ruler.asking import PROMPT, ask
from benchmarks.ruler.export import Exported
from benchmarks.ruler.frames import judged_frames
from benchmarks.ruler.items import Item
from benchmarks.ruler.rows import Identity, RowsFile

FAILURES_AT_FIRST, FAILURES_IN_A_ROW = 3, 20
"""A judge that gives no reply to so many videos one after another is asked no more: it would
otherwise turn every video of the set into an error row. One that has replied before gets the larger
number: some videos in a row may be beyond a greedy judge, which fails at them again each time."""


@dataclass
class Tally:
    """How a judging went."""

    known: int = 0
    """Videos with a verdict from before."""
    judged: int = 0
    failed: int = 0
    """Videos that got an error row."""
    missing: list[str] = field(default_factory=list)
    """Videos that are not there, as `<model>/<task_name>/<index>.mp4`."""


class Judging:
    """One judge before the exported videos of some models.

    Args:
        judge: who rates.
        rows: where its verdicts go, and which it has given before.
        concurrency: videos in the air at once.
    """

    def __init__(self, judge: Judge, rows: RowsFile, *, concurrency: int) -> None:
        self._judge = judge
        self._rows = rows
        self._concurrency = concurrency
        self._lock = threading.Lock()
        self._tally = Tally()
        self._failures = 0
        self._stopped = threading.Event()

    def run(self, items: Callable[[], Iterable[Item]], models: Sequence[Exported]) -> Tally:
        """Judges what has no verdict yet; errors of an earlier run are tried again, last of all.

        Args:
            items: reads them from the start; they hold images and are not kept.
            models: whose videos.

        Raises:
            UnusableJudgeError: the judge cannot be used; verdicts given until then are kept.
        """
        pending: set[Future[None]] = set()
        with ThreadPoolExecutor(self._concurrency) as pool:
            try:
                for job in self._jobs(items, models):
                    if len(pending) >= 2 * self._concurrency:  # items hold images: few at a time
                        pending = self._settle(pending)
                    pending.add(pool.submit(self._one, *job))
                while pending:
                    pending = self._settle(pending)
            except BaseException:
                self._stopped.set()
                pool.shutdown(wait=True, cancel_futures=True)  # what is in the air is recorded
                raise
        return self._tally

    @staticmethod
    def _settle(pending: set[Future[None]]) -> set[Future[None]]:
        done, rest = wait(pending, return_when=FIRST_COMPLETED)
        for future in done:
            future.result()
        return rest

    def _jobs(
        self, items: Callable[[], Iterable[Item]], models: Sequence[Exported]
    ) -> Iterator[tuple[Item, Exported, Identity]]:
        failed = set()
        for item in items():
            for model in models:
                sha256 = model.videos.get(item.name)
                if sha256 is None or not model.path(item).is_file():
                    self._tally.missing.append(f"{model.model}/{item.name}.mp4")
                    continue
                identity = identity_of(model, item, self._judge.name)
                status = self._rows.known.get(identity, {}).get("status")
                if status == "done":
                    self._tally.known += 1
                elif status == "error":
                    failed.add(identity)
                else:
                    yield item, model, identity
        for item in items() if failed else ():
            for model in models:
                if item.name in model.videos:
                    identity = identity_of(model, item, self._judge.name)
                    if identity in failed:
                        yield item, model, identity

    def _one(self, item: Item, model: Exported, identity: Identity) -> None:
        if self._stopped.is_set():
            return
        start = time.monotonic()
        row: dict[str, Any] = {**asdict(identity), "key": item.key}
        row["category"] = item.checklist.category
        silent = False
        try:
            video = model.path(item).read_bytes()
            if hashlib.sha256(video).hexdigest() != identity.video:
                raise ValueError(f"{model.path(item)}: got a file that has changed; export again")
            answer = ask(self._judge, item, judged_frames(video, item.name))
        except UnusableJudgeError:
            self._stopped.set()  # at once: the next video may be taken up before this is heard of
            raise
        except (ValueError, OSError) as error:
            silent = isinstance(error, JudgeError)
            row |= {"status": "error", "error": f"{type(error).__name__}: {error}"}
        else:
            metrics = (metric for metric, _ in item.checklist.questions)
            labels, thought = answer.value
            row |= {
                "status": "done",
                "labels": list(zip(metrics, labels, strict=True)),
                "thought": thought,
                "asks": answer.asks,
                "served": answer.served,
                "tokens": answer.tokens,
            }
        self._rows.append(row | {"seconds": round(time.monotonic() - start, 3)})
        self._count(row, silent)

    def _count(self, row: dict[str, Any], silent: bool) -> None:
        failed = row["status"] == "error"
        with self._lock:
            self._tally.failed += failed
            self._tally.judged += not failed
            self._failures = self._failures + 1 if silent else 0
            print(
                f"{row['model']}/{row['task']}/{row['index']}: {row.get('error', 'judged')!s:.300}",
                file=sys.stderr,
            )
            replied = self._tally.judged or self._tally.known
            if self._failures >= (FAILURES_IN_A_ROW if replied else FAILURES_AT_FIRST):
                self._stopped.set()
                raise UnusableJudgeError(
                    f"judge {self._judge.name}: got no reply for {self._failures} videos one after "
                    f"another (the last: {row['error']}), expected some; see to it, then run the "
                    "same command again"
                )


def identity_of(model: Exported, item: Item, judge: str, prompt: str = PROMPT) -> Identity:
    """The identity of a video's row; the video must be in the model's manifest."""
    checklist = item.checklist
    return Identity(
        model=model.model,
        task=checklist.task,
        index=checklist.index,
        video=model.videos[item.name],
        item=item.digest,
        judge=judge,
        prompt=prompt,
    )
