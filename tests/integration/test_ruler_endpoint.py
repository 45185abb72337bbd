"""An endpoint of the chat completions protocol, and what may go wrong with one."""

import json
import os
import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from benchmarks.judges import JudgeError, Turn, UnusableJudgeError
from benchmarks.judges.endpoint import ATTEMPTS, EndpointJudge

KEY = "sk-a-key-that-must-not-be-seen"


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


def completion(text, **fields):
    message = {"role": "assistant", "content": text}
    return 200, {}, json.dumps({"choices": [{"message": message}], **fields}).encode()


class Server:
    """Answers the n-th POST with `script(n)`: status, headers, body."""

    def __init__(self):
        self.script = lambda number: completion("hello")
        self.requests = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.requests.append((self.path, dict(self.headers), body))
                status, headers, data = server.script(len(server.requests) - 1)
                try:
                    self.send_response(status)
                    for name, value in {**headers, "Content-Length": str(len(data))}.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(data)
                except OSError:  # the caller has left
                    pass

            def log_message(self, format, *args):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()


@pytest.fixture
def server():
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


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
    server.script = lambda number: script[number]
    judge, waits = endpoint(server)
    reply = judge.reply(TURNS)
    assert (reply.text, reply.served, reply.tokens) == ("hello", "j-1", {"total_tokens": 5})
    bounds = [(7, 7), (1.5, 2.5), (6, 591), (6, 10)]
    assert len(waits) == len(bounds)
    assert all(low <= wait <= high for wait, (low, high) in zip(waits, bounds, strict=True))


def test_it_gives_up(server):
    server.script = lambda number: (502, {}, b"down")
    judge, waits = endpoint(server)
    with pytest.raises(JudgeError, match=f"502: 'down', after {ATTEMPTS} calls"):
        judge.reply(TURNS)
    assert (len(server.requests), len(waits)) == (ATTEMPTS, ATTEMPTS - 1)
    server.script = lambda number: (429, {"Retry-After": "86400"}, b"")
    with pytest.raises(JudgeError, match="told to wait 86400 s"):
        judge.reply(TURNS)
    server.http.shutdown()
    server.http.server_close()
    with pytest.raises(JudgeError, match="URLError"):
        judge.reply(TURNS)


def test_a_silent_server_times_out(server):
    free = threading.Event()

    def script(number):
        if number == 0:
            free.wait(600)
        return completion("late")

    server.script = script
    judge, waits = endpoint(server, timeout=1)
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
        ((200, {}, b"<html>"), JudgeError, "expected a chat completion"),
        ((200, {}, b'{"choices": []}'), JudgeError, "expected a chat completion"),
        ((200, {}, b'["' + KEY.encode() + b'"]'), JudgeError, "[key]"),
    ],
)
def test_what_calling_again_cannot_mend(server, answer, kind, message):
    server.script = lambda number: answer
    judge, waits = endpoint(server, key=f"{KEY}\n")
    with pytest.raises(kind) as caught:
        judge.reply(TURNS)
    assert message in str(caught.value)
    assert KEY not in str(caught.value)
    assert not waits
    assert len(server.requests) == 1


def test_a_model_that_takes_no_temperature_is_named_so(server):
    judge, _ = endpoint(server, temperature=False)
    server.script = lambda number: completion(None)
    assert judge.reply(TURNS).text == ""
    _, headers, body = server.requests[0]
    assert "temperature" not in body
    assert "Authorization" not in headers
    assert judge.name.endswith("own temperature")
    with pytest.raises(ValueError, match="no key has") as caught:
        EndpointJudge(server.url, "j", key="a\nb")
    assert "a\nb" not in str(caught.value)
