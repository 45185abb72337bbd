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
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
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
TIMEOUT = 600.0
"""Seconds without a byte. A reasoning model thinks for minutes before its first one."""
LARGEST_REPLY = 2**24
"""Bytes."""
_BUSY = {408, 409, 425, 429}
_UNUSABLE = {401, 403, 404, 405}
JPEG_QUALITY = 95


class EndpointJudge:
    """Asks `<endpoint>/chat/completions` at temperature 0.

    Args:
        endpoint: the base address, e.g. `https://api.openai.com/v1`.
        model: the model's name there.
        key: sent as a bearer token; None sends none. It is in no message, name or record.
        temperature: False leaves it out of the request. Reasoning models (o3) take none but
            their own; the judge's name then says so.
        timeout: seconds without a byte.
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
        parts = urllib.parse.urlsplit(endpoint)
        if parts.scheme not in ("http", "https") or not parts.hostname:
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
        """See `Judge.reply`. Calls again on 408, 409, 425, 429, 5xx and broken connections."""
        body = {"model": self.model, "messages": list(map(_message, turns)), **self._temperature}
        data = json.dumps(body).encode()
        fault = ""
        for attempt in range(ATTEMPTS):
            try:
                return self._read(self._call(data))
            except urllib.error.HTTPError as error:
                fault = f"HTTP {error.code}: {self._excerpt(error)}"
                if error.code in _UNUSABLE or 300 <= error.code < 400:
                    raise UnusableJudgeError(
                        f"judge {self.name}: got {fault}, expected a reply; correct the endpoint, "
                        "the model's name or the key"
                    ) from None
                if error.code not in _BUSY and error.code < 500:
                    remedy = "; leave the temperature out" if "temperature" in fault else ""
                    raise JudgeError(f"got {fault}{remedy}") from None
                pause = _retry_after(error.headers.get("Retry-After"))
            except (OSError, http.client.HTTPException) as error:  # URLError, timeouts, resets
                fault, pause = self._redacted(f"{type(error).__name__}: {error}"), None
            if attempt + 1 < ATTEMPTS:
                backoff = min(FIRST_WAIT * 2**attempt, LONGEST_WAIT) * random.uniform(0.75, 1.25)
                if pause is not None and pause > LONGEST_RETRY_AFTER:
                    raise JudgeError(f"got {fault}, and was told to wait {pause:.0f} s")
                self._wait(max(pause or 0.0, backoff))
        raise JudgeError(f"got {fault}, after {ATTEMPTS} calls")

    def _call(self, data: bytes) -> bytes:
        headers = {"Content-Type": "application/json", "User-Agent": "vlmteach"}
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key}"
        request = urllib.request.Request(self._url, data, headers)
        with self._opener.open(request, timeout=self._timeout) as response:
            reply = response.read(LARGEST_REPLY + 1)
        if len(reply) > LARGEST_REPLY:
            raise JudgeError(f"got a reply of more than {LARGEST_REPLY} bytes")
        return reply

    def _read(self, data: bytes) -> Reply:
        try:
            reply = json.loads(data)
            text = reply["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError, RecursionError):
            shown = self._redacted(data[:200].decode("utf-8", "replace"))
            raise JudgeError(f"got {shown!r}, expected a chat completion") from None
        served, usage = reply.get("model"), reply.get("usage")
        return Reply(
            text if isinstance(text, str) else "",  # null: the model declined
            served[:200] if isinstance(served, str) else None,
            {name: n for name, n in usage.items() if type(n) is int}
            if isinstance(usage, dict)
            else {},
        )

    def _excerpt(self, error: urllib.error.HTTPError) -> str:
        try:
            with error:
                return repr(self._redacted(error.read(2000).decode("utf-8", "replace"))[:300])
        except (OSError, http.client.HTTPException):
            return "no body"

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
