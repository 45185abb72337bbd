"""An endpoint of the chat completions protocol, and what may go wrong with one."""

import json
import os
import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from benchmarks.judges import JudgeError, Turn, UnusableJudgeError
from benchmarks.judges.endpoint import ATTEMPTS, EndpointJudge
from tests.integration.chat_server import ChatServer, completion

KEY = "sk-a-key-that-must-not-be-seen"


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture
def server():
    server = ChatServer()
    yield server
    server.close()


TURNS = (Turn("system", ("s",)), Turn("user", ("u",)))


def endpoint(server, **options):
    waits = []
    judge = EndpointJudge(server.url, "j", wait=waits.append, **options)
    return judge, waits


def test_it_waits_as_told_and_doubles_otherwise(server):
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=590), usegmt=True)
    script = [
        (429, {"Retry-After": "7"}, b"{}"),
        (500, {}, b"oops"),
        (503, {"Retry-After": soon}, b""),
        (429, {"Retry-After": "soon"}, b""),
        completion("hello", usage={"total_tokens": 5, "details": {}}, model="j-1"),
    ]
    server.script = lambda number, _: script[number]
    judge, waits = endpoint(server)
    reply = judge.reply(TURNS)
    assert (reply.text, reply.served, reply.tokens) == ("hello", "j-1", {"total_tokens": 5})
    bounds = [(7, 7), (1.5, 2.5), (6, 591), (6, 10)]
    assert len(waits) == len(bounds)
    assert all(low <= wait <= high for wait, (low, high) in zip(waits, bounds, strict=True))


def test_it_gives_up(server):
    server.script = lambda number, _: (502, {}, b"down")
    judge, waits = endpoint(server)
    with pytest.raises(JudgeError, match=f"502: 'down', .*after {ATTEMPTS} calls"):
        judge.reply(TURNS)
    assert (len(server.requests), len(waits)) == (ATTEMPTS, ATTEMPTS - 1)
    server.script = lambda number, _: (429, {"Retry-After": "86400"}, b"")
    with pytest.raises(JudgeError, match="told to wait 86400 s"):
        judge.reply(TURNS)
    server.close()
    with pytest.raises(JudgeError, match="URLError"):
        judge.reply(TURNS)


def within_a_200(error, **fields):
    return 200, {}, json.dumps({"error": error, **fields}).encode()


def cut_off(write):
    write(b"HTTP/1.0 200 OK\r\nContent-Length: 5000\r\n\r\n" + completion("hello")[2][:-9])


def cut_in_a_chunk(write):
    write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n" + completion("x")[2])


LARGEST_REPLY = 2**16
NO_COMPLETIONS = {
    "cut off": cut_off,
    "cut in a chunk": cut_in_a_chunk,
    "no answer": lambda write: None,
    "no HTTP": lambda write: write(b"\x16\x03\x01\r\n\r\n"),
    "empty": (200, {}, b""),
    "no content": (204, {}, b""),
    "a page": (200, {"Content-Type": "text/html"}, b"<html>busy</html>"),
    "gzip garbage": (200, {"Content-Encoding": "gzip"}, b"\x1f\x8b\x08garbage\xff"),
    "a stream": (200, {"Content-Type": "text/event-stream"}, b'data: {"choices": []}\n\n'),
    "no choices": (200, {}, b'{"choices": []}'),
    "null choices": (200, {}, b'{"choices": null}'),
    "choices of another kind": (200, {}, b'{"choices": {"a": 1}}'),
    "null message": (200, {}, b'{"choices": [{"message": null}]}'),
    "a list that holds the key": (200, {}, json.dumps([KEY]).encode()),
    "nested": (200, {}, b"[" * 10_000),
    "error": within_a_200("overloaded", choices=[{"message": {"content": "half"}}]),
    "error of the upstream": within_a_200({"code": 502, "message": "upstream"}, choices=[]),
    "error with a name": within_a_200({"code": "rate_limit_exceeded"}),
    "error in the choice": (
        *(200, {}),
        b'{"choices": [{"error": {"code": 429}, "message": {"content": "half of it"}}]}',
    ),
}


@pytest.mark.parametrize("answer", NO_COMPLETIONS.values(), ids=NO_COMPLETIONS)
def test_an_answer_without_a_completion_is_the_servers_fault(server, answer):
    server.script = lambda number, _: completion("hello", error={}) if number > 1 else answer
    judge, waits = endpoint(server, key=KEY)
    assert judge.reply(TURNS).text == "hello"
    assert len(waits) == 2
    server.script = lambda number, _: answer
    with pytest.raises(JudgeError, match=f"after {ATTEMPTS} calls") as caught:
        judge.reply(TURNS)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    ("lead", "closed"), [(b"HTTP/1.0 200 OK\r\nX: ", False), (b"HTTP/1.0 200 OK\r\n\r\n", True)]
)
def test_a_server_that_drips_is_left(server, lead, closed):
    over = threading.Event()

    def drip(write):
        try:
            write(lead)
            while len(server.requests) < 2 or closed:
                write(b" ")
                time.sleep(0.02)
        except OSError:  # the caller has closed the connection
            over.set()

    server.script = lambda number, _: completion("hello") if number else drip
    judge, waits = endpoint(server, timeout=0.3)
    start = time.monotonic()
    assert judge.reply(TURNS).text == "hello"
    assert time.monotonic() - start < 5
    assert len(waits) == 1
    assert not closed or over.wait(10)


def test_a_retry_after_is_a_time_or_nothing(server):
    for absurd in ("1e999", "-5", "nan", "\u00b2", "Mon, 99 Foo 0000 99:99:99 GMT", "", "9 " * 99):
        server.script = lambda number, _, told=absurd: (
            (503, {"Retry-After": told}, b"") if number == 0 else completion("hello")
        )
        server.requests.clear()
        judge, waits = endpoint(server)
        assert judge.reply(TURNS).text == "hello"
        assert 0 < waits[0] < 2
    server.script = lambda number, _: (503, {"Retry-After": "9" * 4000}, b"")
    with pytest.raises(JudgeError, match="told to wait inf s"):
        judge.reply(TURNS)


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, "ab"),
        ({"content": ["a", {"type": "thinking", "thinking": "no"}, {"text": "b"}, 7, None]}, "ab"),
        ({"content": []}, ""),
        ({"content": {"text": "a"}}, "a"),
        ({"content": None, "refusal": "no"}, ""),
        ({"refusal": "no"}, ""),
    ],
)
def test_content_may_be_a_list_of_parts(server, message, text):
    usage = {"total_tokens": 5, "cost": 0.1, "huge": 10**300, "less": -1, "yes": True}
    body = {"choices": [{"message": message}], "usage": usage, "model": "j" * 999}
    answer = (200, {"Content-Type": "text/html"}, json.dumps(body).encode())
    server.script = lambda number, _: answer
    reply = endpoint(server)[0].reply(TURNS)
    assert (reply.text, reply.tokens, reply.served) == (text, {"total_tokens": 5}, "j" * 200)


@pytest.mark.parametrize(
    "address",
    [
        "http://a..b/v1",
        "http://h:99999",
        "http://h:x",
        "http://[::1",
        "http://h/a b",
        "http://h/\n",
    ],
)
def test_an_address_that_is_none_is_refused_at_once(address):
    with pytest.raises(ValueError, match="base address"):
        EndpointJudge(address, "j")


def test_a_silent_server_times_out(server):
    free = threading.Event()

    def script(number, _):
        if number == 0:
            free.wait(600)
        return completion("late")

    server.script = script
    judge, waits = endpoint(server, timeout=0.3)
    assert judge.reply(TURNS).text == "late"
    free.set()
    assert waits


@pytest.mark.parametrize(
    ("answer", "kind", "message"),
    [
        ((401, {}, f'{{"error": "wrong key {KEY}"}}'.encode()), UnusableJudgeError, "[key]"),
        ((404, {}, b"no such model"), UnusableJudgeError, "correct the endpoint"),
        ((302, {"Location": "http://127.0.0.1:1/"}, b""), UnusableJudgeError, "HTTP 302"),
        ((307, {"Location": "/v1/elsewhere"}, b""), UnusableJudgeError, "HTTP 307"),
        ((400, {}, b"'temperature' does not support 0"), JudgeError, "leave the temperature out"),
        ((413, {}, b""), JudgeError, "HTTP 413"),
        ((402, {}, b""), UnusableJudgeError, "the account"),
        ((407, {}, b""), UnusableJudgeError, "HTTP 407"),
        ((200, {}, b" " * (LARGEST_REPLY + 1)), JudgeError, "more than 65536 bytes"),
        (within_a_200({"code": 401, "message": KEY}), UnusableJudgeError, "[key]"),
        (within_a_200({"code": "404"}), UnusableJudgeError, "correct the endpoint"),
        (within_a_200({"code": 400, "message": "temperature"}), JudgeError, "leave the temp"),
        ((200, {}, b'{"object": "error", "code": 400}'), JudgeError, "HTTP 200"),
    ],
)
def test_what_calling_again_cannot_mend(server, answer, kind, message, monkeypatch):
    monkeypatch.setattr("benchmarks.judges.endpoint.LARGEST_REPLY", LARGEST_REPLY)
    server.script = lambda number, _: answer
    judge, waits = endpoint(server, key=f"{KEY}\n")
    with pytest.raises(kind) as caught:
        judge.reply(TURNS)
    assert message in str(caught.value)
    assert KEY not in str(caught.value)
    assert not waits
    assert len(server.requests) == 1


def test_a_model_that_takes_no_temperature_is_named_so(server):
    judge, _ = endpoint(server, temperature=False)
    server.script = lambda number, _: completion(None)
    assert judge.reply(TURNS).text == ""
    _, headers, body = server.requests[0]
    assert "temperature" not in body
    assert "Authorization" not in headers
    assert judge.name.endswith("own temperature")
    with pytest.raises(ValueError, match="no key has") as caught:
        EndpointJudge(server.url, "j", key="a\nb")
    assert "a\nb" not in str(caught.value)
