"""A judge behind an OpenAI-compatible chat completions endpoint.

One POST per call needs no client library. Redirects are refused: a key must not follow one to
another host.
"""

from __future__ import annotations

import base64
import email.utils
import http.client
import json
import random
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from concurrent.futures import Future
from email.message import Message
from io import BytesIO
from typing import TYPE_CHECKING, Any

from benchmarks.judges.base import JudgeError, Reply, Turn, UnusableJudgeError

if TYPE_CHECKING:
    from PIL.Image import Image

ATTEMPTS = 6
"""Calls made before a conversation is given up."""
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0
"""Seconds before the second call, doubled before each further one, and the most that gives."""
LONGEST_RETRY_AFTER = 600.0
"""Seconds a server may ask to be left alone; one that asks for more is given up."""
TIMEOUT = 900.0
"""Seconds a call may take in all. A reasoning model thinks for minutes; some servers send blanks
meanwhile."""
LARGEST_REPLY = 2**24
"""Bytes."""
_BUSY = {408, 409, 425, 429}
_UNUSABLE = {401, 402, 403, 404, 405, 407}
JPEG_QUALITY = 95


class EndpointJudge:
    """Asks `<endpoint>/chat/completions` at temperature 0.

    Args:
        endpoint: the base address, e.g. `https://api.openai.com/v1`.
        model: the model's name there.
        key: sent as a bearer token; None sends none. It is in no message, name or record.
        temperature: False leaves it out of the request. Reasoning models (o3) take none but
            their own; the judge's name then says so.
        timeout: seconds a call may take in all.
        wait: sleeps between attempts.

    Raises:
        ValueError: an address that is not one, or that holds a secret, or a key that cannot be
            sent.
    """

    def __init__(
        self,
        endpoint: str,
        model: str,
        *,
        key: str | None = None,
        temperature: bool = True,
        timeout: float = TIMEOUT,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        try:
            parts = urllib.parse.urlsplit(endpoint)
            host = (parts.hostname or "").encode("idna")
            whole = parts.port != 0 and endpoint.isascii() and " " not in endpoint
        except ValueError:  # brackets that do not close, a port beyond 65535, an empty label
            parts, host, whole = urllib.parse.urlsplit(""), b"", False
        if parts.scheme not in ("http", "https") or not (host and whole and endpoint.isprintable()):
            raise ValueError(
                f"endpoint: got {endpoint!r}, expected the base address of an OpenAI-compatible "
                "API, e.g. https://api.openai.com/v1"
            )
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError(
                "endpoint: got an address with a name, password or query in it, expected none: it "
                "is written down; put the key into an environment variable"
            )
        key = key.strip() if key is not None else None
        if key is not None and not (key.isascii() and key.isprintable() and key):
            raise ValueError("key: got characters that no key has, expected printable ASCII")
        self.model = model
        self.name = f"{model} at {parts.netloc}" + ("" if temperature else ", own temperature")
        self._url = endpoint.rstrip("/") + "/chat/completions"
        self._key = key
        self._temperature = {"temperature": 0} if temperature else {}
        self._timeout = timeout
        self._wait = wait
        self._opener = urllib.request.build_opener(_NoRedirect)

    def reply(self, turns: tuple[Turn, ...]) -> Reply:
        """See `Judge.reply`.

        Calls again where it is the server's fault: 408, 409, 425, 429, 5xx, connections that break
        or take too long, a 200 without a chat completion in it.
        """
        body = {"model": self.model, "messages": list(map(_message, turns)), **self._temperature}
        data = json.dumps(body).encode()
        fault = ""
        for attempt in range(ATTEMPTS):
            pause = None
            try:
                status, headers, answer = self._call(data)
            except (OSError, http.client.HTTPException) as error:  # URLError, timeouts, resets
                fault = self._redacted(f"{type(error).__name__}: {error}")
            else:
                reply, complaint = _read(answer) if 200 <= status < 300 else (None, status)
                if reply is not None:
                    return reply
                fault = f"HTTP {status}: {self._excerpt(answer)}"
                self._refuse(complaint, fault)
                pause = _retry_after(headers.get("Retry-After"))
            if attempt + 1 < ATTEMPTS:
                backoff = min(FIRST_WAIT * 2**attempt, LONGEST_WAIT) * random.uniform(0.75, 1.25)
                if pause is not None and pause > LONGEST_RETRY_AFTER:
                    raise JudgeError(f"got {fault}, and was told to wait {pause:.0f} s")
                self._wait(max(pause or 0.0, backoff))
        raise JudgeError(f"got {fault}, expected a chat completion, after {ATTEMPTS} calls")

    def _refuse(self, status: int, fault: str) -> None:
        """Raises where calling again mends nothing."""
        if status in _UNUSABLE or 300 <= status < 400:
            raise UnusableJudgeError(
                f"judge {self.name}: got {fault}, expected a reply; correct the endpoint, the "
                "model's name, the key or the account"
            )
        if 400 <= status < 500 and status not in _BUSY:
            remedy = "; leave the temperature out" if "temperature" in fault else ""
            raise JudgeError(f"got {fault}{remedy}")

    def _call(self, data: bytes) -> tuple[int, Message, bytearray]:
        """Status, headers and body, in `timeout` seconds or not at all.

        A socket's own timeout starts anew with every byte, and a name may take for ever to look
        up, so the call has a thread that can be left behind.
        """
        left, result = threading.Event(), Future()

        def call() -> None:
            try:
                result.set_result(self._post(data, left))
            except BaseException as error:
                result.set_exception(error)

        threading.Thread(target=call, daemon=True).start()
        try:
            return result.result(self._timeout)
        except TimeoutError:
            raise TimeoutError(f"no whole reply in {self._timeout:.0f} s") from None
        finally:
            left.set()

    def _post(self, data: bytes, left: threading.Event) -> tuple[int, Message, bytearray]:
        headers = {"Content-Type": "application/json", "User-Agent": "vlmteach"}
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key}"
        request = urllib.request.Request(self._url, data, headers)
        try:
            response: Any = self._opener.open(request, timeout=self._timeout)
        except urllib.error.HTTPError as error:
            response = error  # any other status than 2xx
        body = bytearray()
        with response:
            while len(body) <= LARGEST_REPLY and not left.is_set():
                part = response.read1(2**16)
                if not part:
                    return response.status, response.headers, body
                body += part
        raise JudgeError(f"got a reply of more than {LARGEST_REPLY} bytes")

    def _excerpt(self, answer: bytearray) -> str:
        return repr(self._redacted(answer[:2000].decode("utf-8", "replace"))[:300])

    def _redacted(self, text: str) -> str:
        """Some servers repeat the key in their complaint about it."""
        return text.replace(self._key, "[key]") if self._key else text


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


def _retry_after(header: str | None) -> float | None:
    """Seconds, from a number or an HTTP date (RFC 9110, 10.2.3); None where it is neither."""
    if header is None:
        return None
    if header.strip().isdecimal():
        return float(header)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(header).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def _read(answer: bytearray) -> tuple[Reply | None, int]:
    """The chat completion in a 2xx body; else None and the status it should have had.

    Gateways put an upstream server's error into a 200, with its status as `code`.
    """
    try:
        said = json.loads(answer)
        choice = (said.get("choices") or [{}])[0]
        error = said.get("error") or choice.get("error")
        if not error and isinstance(choice.get("message"), dict):
            served, usage = said.get("model"), said.get("usage")
            counts = usage.items() if isinstance(usage, dict) else ()
            return Reply(
                _text(choice["message"].get("content")),
                served[:200] if isinstance(served, str) else None,
                {name: n for name, n in counts if type(n) is int and 0 <= n < 2**53},
            ), 200
        code = str((error if isinstance(error, dict) else said).get("code"))
        if code.isdecimal() and 300 <= int(code) < 600:
            return None, int(code)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        pass  # cut off, of another kind, or no JSON at all
    return None, 502


def _text(content: Any) -> str:
    """A message's content: text, a list of parts, or null where the model declined."""
    parts = content if isinstance(content, list) else [content]
    texts = (part.get("text") if isinstance(part, dict) else part for part in parts)
    return "".join(text for text in texts if isinstance(text, str))


def _message(turn: Turn) -> dict[str, Any]:
    if all(isinstance(part, str) for part in turn.parts):
        return {"role": turn.role, "content": "\n".join(map(str, turn.parts))}
    return {"role": turn.role, "content": [_part(part) for part in turn.parts]}


def _part(part: str | Image) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    buffer = BytesIO()
    part.save(buffer, "JPEG", quality=JPEG_QUALITY)
    url = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
    return {"type": "image_url", "image_url": {"url": url}}
