"""The queries of an instance (Eq. 3): one goal question and one to three process questions.

They are given (in the sample, or in a file by `--queries`) or written by the teacher, and generic
ones are the last resort, recorded as such. What the teacher writes is checked: the answer "Yes" is
what the micro-fit is driven towards, so a question must be a yes/no question, and one whose "Yes"
is good. The words are checked, not the meaning: a negated question, or one that asks after an
error, is refused, but "Does the ball hit the wall?" passes, and only the teacher knows whether it
should.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from vlmteach.asking import ask, last_object, quote
from vlmteach.text import decode_text, read_file
from vlmteach.types import Query, QuerySet, QuerySource

if TYPE_CHECKING:
    from vlmteach.teachers.base import Writer
    from vlmteach.types import Instance

MAX_PROCESS = 3
"""M is 1 to 3 (Eq. 3)."""
MAX_LENGTH = 240
"""Characters in a question the teacher writes."""
LARGEST_FILE = 256 * 2**20
"""Bytes of a file of queries."""
MAX_NEW_TOKENS = 512
"""Of the teacher's reply: four questions and the JSON around them fit several times over."""

REQUEST = """\
A video will be generated that should carry out a task{start}. The task, as a JSON string:
{prompt}
Write yes/no questions that a viewer of the video will answer to judge it:
- "goal": one question on whether the final state of the video is the right one.
- "process": {process} on whether the way there is right: objects stay whole and keep their look, \
moves are allowed and plausible, nothing collides that should not, the rest of the scene stays as \
it was.
Rules:
- "Yes" must be the answer for a video that carries out the task correctly.
- Each is one line, at most {max_length} characters, and ends with a question mark.
- Begin with an auxiliary verb, or with a phrase of time and a comma: "Does the ...?", \
"By the end of the video, is the ...?"
- Use no negation (not, no, never, fail to). Say "avoid", "remain" or "without" where it helps.
- Name the objects of this task as they look. No two questions may be the same.
Reply with JSON only: {{"goal": "...", "process": ["...", "..."]}}"""

REQUEST_START = " and starts from this image"

_AUXILIARIES = "is|are|was|were|do|does|did|has|have|had|can|could|will|would|should|must|may|might"
_OPENINGS = (
    "by|at|in|on|after|before|during|throughout|when|while|once|as|from|until|within|across|over"
)
_FORM = re.compile(rf"^(?:(?:{_OPENINGS})\b.*?,\s+)?(?:{_AUXILIARIES})\s+\S", re.IGNORECASE)
_NEGATION = re.compile(
    r"\b(?:not|no|never|none|nothing|nobody|nowhere|neither|nor|cannot|fail(?:s|ed|ing)?)\b|n['\u2019]t\b",
    re.IGNORECASE,
)
_FAULT = re.compile(
    r"\b(?:errors?|mistakes?|glitch\w*|artifacts?|wrong(?:ly)?|incorrect(?:ly)?|invalid|illegal"
    r"|impossible|implausibl[ey]|unnatural(?:ly)?|violat\w*|distort\w*)\b",
    re.IGNORECASE,
)
_EXCLUDED = re.compile(
    r"\b(?:without|avoid(?:s|ed|ing)?|free (?:of|from)|instead of|rather than)\b[^,?]*",
    re.IGNORECASE,
)
_QUOTED = re.compile(r"\"[^\"]*\"|“[^”]*”|(?<!\w)'[^']*'(?!\w)")


def resolve_queries(
    instance: Instance,
    teacher: Writer,
    file_queries: Mapping[str, tuple[Query, ...]],
    *,
    source: Literal["teacher", "generic"],
    max_process: int,
    max_replies: int,
) -> QuerySet:
    """The queries an instance is fitted with: from the file, else the sample, else `source`.

    Args:
        instance: the task; its own queries, where it brings any, are used as they are.
        teacher: writes the queries where none are given and `source` says so.
        file_queries: by instance key, as `load_query_file` reads them.
        source: where queries come from that are not given.
        max_process: M at most, for queries that are not given.
        max_replies: times the teacher is asked before the generic queries are used.

    Raises:
        ValueError: the sample's own queries are not one goal and one to three process queries.
    """
    if instance.key in file_queries:
        return given_queries(file_queries[instance.key], source="file", key=instance.key)
    if instance.queries:
        return given_queries(instance.queries, source="sample", key=instance.key)
    if source == "generic":
        return QuerySet(generic_queries(max_process), source="generic")
    return write_queries(teacher, instance, max_process=max_process, max_replies=max_replies)


def given_queries(
    queries: Sequence[Query], *, source: Literal["sample", "file"], key: str
) -> QuerySet:
    """Queries that came with the instance, the goal first. Their wording is the user's business.

    Args:
        queries: in any order.
        source: where they came from.
        key: the instance, for the error message.

    Raises:
        ValueError: they are not exactly one goal and one to three process queries.
    """
    goal = tuple(query for query in queries if query.role == "goal")
    process = tuple(query for query in queries if query.role == "process")
    if len(goal) != 1 or not 1 <= len(process) <= MAX_PROCESS:
        raise ValueError(
            f"queries of {key!r} (from the {source}): got {len(goal)} goal and {len(process)} "
            f"process queries, expected one goal and 1 to {MAX_PROCESS} process queries; "
            "add or drop some, or remove them all to let the teacher write them"
        )
    return QuerySet(goal + process, source=source)


def write_queries(
    teacher: Writer, instance: Instance, *, max_process: int, max_replies: int
) -> QuerySet:
    """Asks the teacher for the queries of (prompt, first frame), and checks them (Eq. 3).

    A refused reply is asked for again. The teacher's text is greedy, so each new request tells it
    every reason so far: the same request would bring the same reply. After `max_replies` refusals
    the generic queries are used, with source `generic` and the refusals kept.

    Args:
        teacher: writes the text.
        instance: its prompt enters the request as a JSON string, so that quotes, braces and lines
            in it stay part of the task.
        max_process: process queries at most.
        max_replies: times the teacher is asked, at least 1.
    """
    answer = ask(
        teacher,
        request(instance, max_process),
        [] if instance.first_frame is None else [instance.first_frame],
        partial(parse_queries, max_process=max_process),
        max_replies=max_replies,
        max_new_tokens=MAX_NEW_TOKENS,
    )
    source = "generic" if answer.value is None else "teacher"
    queries = answer.value or generic_queries(max_process)
    return QuerySet(queries, source, answer.replies, answer.refusals)


def request(instance: Instance, max_process: int) -> str:
    """The text that asks the teacher for an instance's queries; its first frame stands before it.

    Args:
        instance: its prompt enters as a JSON string.
        max_process: process queries at most.
    """
    return REQUEST.format(
        start=REQUEST_START if instance.first_frame is not None else "",
        prompt=json.dumps(instance.prompt, ensure_ascii=False),
        process="one question" if max_process == 1 else f"one to {max_process} questions",
        max_length=MAX_LENGTH,
    )


def parse_queries(reply: str, *, max_process: int) -> tuple[Query, ...]:
    """The goal and process queries in a teacher's reply, checked.

    The reply may wrap its JSON object in prose or code fences; where several objects have a goal,
    the last is taken, as an earlier one may repeat the request.

    Raises:
        ValueError: the first fault found, in words the teacher can act on.
    """
    found = last_object(reply, "goal", '{"goal": "...", "process": ["..."]}')
    goal, process = found["goal"], found.get("process")
    if not isinstance(goal, str):
        raise ValueError(f'"goal": got {quote(goal)}, expected one question as a string')
    if not isinstance(process, list) or not all(isinstance(text, str) for text in process):
        raise ValueError(f'"process": got {quote(process)}, expected a list of questions')
    if not 1 <= len(process) <= max_process:
        raise ValueError(f'"process": got {len(process)} questions, expected 1 to {max_process}')
    texts = [text.strip() for text in (goal, *process)]
    for text in texts:
        fault = wording_fault(text)
        if fault:
            raise ValueError(f"the question {quote(text)} {fault}")
    plain = [" ".join(re.findall(r"\w+", text.casefold())) for text in texts]
    for index, text in enumerate(texts):
        if plain[index] in plain[:index]:
            raise ValueError(f"the question {quote(text)} is asked twice")
    return (Query(texts[0], "goal"), *(Query(text, "process") for text in texts[1:]))


def wording_fault(text: str) -> str | None:
    """What is wrong with the wording of a question, or None.

    A question is one line of at most `MAX_LENGTH` characters with one question mark, at its end. It
    begins with an auxiliary verb, or with a phrase such as "By the end of the video," before one.
    It is positive: outside quotation marks it has no negation (not, n't, no, never, none, fail to
    ...) and names no fault (error, wrong, violate, distorted ...) except behind "without", "avoid",
    "free of", "instead of" or "rather than", where the fault is what should not be.
    """
    if len(text.splitlines()) != 1:
        return "must be one line"
    if len(text) > MAX_LENGTH:
        return f"has {len(text)} characters, expected at most {MAX_LENGTH}"
    unquoted = _QUOTED.sub('""', text)
    if not text.endswith("?") or unquoted.count("?") != 1:
        return "must be one question that ends with its only question mark"
    if not _FORM.match(unquoted):
        return 'must begin with an auxiliary verb, as in "Does the ...?", to be a yes/no question'
    negation = _NEGATION.search(unquoted)
    if negation:
        return f"must be phrased positively: it contains {negation[0]!r}"
    fault = _FAULT.search(_EXCLUDED.sub("", unquoted))
    if fault:
        return f'must be one whose "Yes" is good: it asks after {fault[0]!r}'
    return None


def generic_queries(max_process: int) -> tuple[Query, ...]:
    """A goal and up to three process queries that fit any instance.

    They say nothing of the task, and the paper finds that they cost most of the gain (VBVR-Bench
    0.712 where the teacher's own queries reach 0.781): a last resort.
    """
    process = (
        "Do all objects remain intact and keep their shape and color throughout the video?",
        "Is every movement in the video smooth, continuous and physically plausible?",
        "Does everything that the task leaves alone stay unchanged throughout the video?",
    )
    return (
        Query("By the end of the video, is the task completed correctly?", "goal"),
        *(Query(text, "process") for text in process[:max_process]),
    )


def load_query_file(path: str | Path) -> dict[str, tuple[Query, ...]]:
    """Given queries by instance key, from a file with one JSON object per line.

    Each line is `{"key": "...", "goal": "...", "process": ["...", ...]}` with one to three process
    queries; empty lines are skipped.

    Raises:
        ValueError: no file that can be read whole, or no text; names the file, the line, the field,
            what was got and what was expected.
    """
    path = Path(path)
    data = read_file(path, LARGEST_FILE)
    try:
        text = decode_text(data)
    except ValueError as error:
        raise ValueError(f"{path}: got {error}, expected UTF-8 text; save it as UTF-8") from error
    queries: dict[str, tuple[Query, ...]] = {}
    lines: dict[str, int] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(
                f"{where}: got {quote(line)} ({error}), expected one JSON object per line"
            ) from error
        if not isinstance(entry, dict) or entry.keys() != {"key", "goal", "process"}:
            got = sorted(entry) if isinstance(entry, dict) else entry
            raise ValueError(
                f"{where}: got {quote(got)}, expected an object with exactly the fields "
                "key, goal and process"
            )
        key = entry["key"]
        if not isinstance(key, str) or not key:
            raise ValueError(f"{where}, field key: got {quote(key)}, expected an instance's key")
        if key in queries:
            raise ValueError(
                f"{where}, field key: got {quote(key)}, which line {lines[key]} has too; "
                "keep one line per instance"
            )
        queries[key], lines[key] = _read_queries(entry, where), number
    return queries


def queries_for(path: str | Path, keys: Sequence[str]) -> dict[str, tuple[Query, ...]]:
    """The queries in a file (`load_query_file`) that some of the instances are fitted with.

    Args:
        keys: of the instances.

    Raises:
        ValueError: as `load_query_file`, and when no key of the file is an instance's.
    """
    queries = load_query_file(path)
    if queries.keys().isdisjoint(keys):
        got, expected = (list(some)[:2] for some in (queries, keys))
        raise ValueError(
            f"--queries {path}: got {len(queries)} keys, such as {quote(got)}, none of which is an "
            f"instance's, expected keys such as {quote(expected)}; `python -m vlmteach.instances "
            "list` shows them all"
        )
    return queries


def queries_to_json(queries: QuerySet) -> dict[str, Any]:
    """What `queries.json` holds; `queries_from_json` reads it back to an equal `QuerySet`."""
    goal, *process = queries.queries
    return {
        "goal": goal.text,
        "process": [query.text for query in process],
        "source": queries.source,
        "replies": queries.replies,
        "refusals": list(queries.refusals),
    }


def queries_from_json(data: Mapping[str, Any], name: str = "queries.json") -> QuerySet:
    """The `QuerySet` that `queries_to_json` wrote.

    Args:
        data: the parsed JSON object.
        name: the file, for the error message.

    Raises:
        ValueError: names the file, the field, what was got and what was expected.
    """
    expected = ("goal", "process", "source", "replies", "refusals")
    if set(data) != set(expected):
        raise ValueError(
            f"{name}: got the fields {sorted(data)}, expected exactly {', '.join(expected)}; "
            "delete the file to have it written again"
        )
    sources = get_args(QuerySource)
    if data["source"] not in sources:
        raise ValueError(
            f"{name}, field source: got {quote(data['source'])}, expected one of {sources}"
        )
    queries = _read_queries(data, name)
    return QuerySet(queries, data["source"], int(data["replies"]), tuple(data["refusals"]))


def _read_queries(entry: Mapping[str, Any], where: str) -> tuple[Query, ...]:
    """The `goal` and `process` fields of a JSON object, given or written earlier."""
    goal, process = entry["goal"], entry["process"]
    if not isinstance(goal, str) or not goal.strip():
        raise ValueError(f"{where}, field goal: got {quote(goal)}, expected one question")
    texts = process if isinstance(process, list) else []
    asked = all(isinstance(text, str) and text.strip() for text in texts)
    if not asked or not 1 <= len(texts) <= MAX_PROCESS:
        raise ValueError(
            f"{where}, field process: got {quote(process)}, "
            f"expected a list of 1 to {MAX_PROCESS} questions"
        )
    return (Query(goal, "goal"), *(Query(text, "process") for text in texts))
