"""The page of a run under way, on this machine alone: it fills while the run goes on.

Only loopback is listened on, at a port of the system's choice. What is given out are the page and
the clips and pictures it names, nothing else below the folder; a request that names another host (a
page elsewhere whose name was made to lead here) is refused.
"""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from vlmteach.report.build import PAGE, page_of, place_of, runs_of
from vlmteach.rows import BASE, CLIP, FIRST, PREDICTIONS

if TYPE_CHECKING:
    from aiohttp import web

HOST = "127.0.0.1"
FILES = frozenset({BASE, CLIP, FIRST, PREDICTIONS})
"""Of an instance's folder, what a page shows."""
FRESH = 1.0
"""Seconds for which a page that was built is given out again."""


class Pages:
    """The page of some folders, built anew when it is asked for and old.

    Args:
        paths: output folders of runs or sweeps.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths
        self.place = place_of(paths).parent.resolve()
        self.port = 0
        self._built = -FRESH
        self._text = ""

    def text(self) -> str:
        """The page."""
        if time.monotonic() - self._built >= FRESH:
            self._text = page_of(self.paths, live=True)
            self._built = time.monotonic()
        return self._text

    def run_text(self, name: str) -> str | None:
        """The page of one of the runs, where `name` is its path below the served folder."""
        for _, _, run in self._runs():
            if self._below(run) == name.removesuffix(f"/{PAGE}"):
                return page_of([run], live=True)
        return None

    def file(self, name: str) -> Path | None:
        """The file that a request may have; None for any other path."""
        folder, _, leaf = name.rpartition("/")
        run, _, instance = folder.rpartition("/")
        if leaf not in FILES or not instance or instance.startswith("."):
            return None
        for _, _, path in self._runs():
            found = path / instance / leaf
            whole = path.resolve() / instance / leaf
            # A link in a run's folder could lead anywhere.
            if self._below(path) == run and found.is_file() and found.resolve() == whole:
                return found
        return None

    def _runs(self) -> list:
        return [run for path in self.paths for run in runs_of(path)]

    def _below(self, run: Path) -> str:
        below = run.resolve().relative_to(self.place).as_posix()
        return "" if below == "." else below


def application(pages: Pages) -> web.Application:
    """The server as an aiohttp application."""
    from aiohttp import web

    @web.middleware
    async def guarded(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if request.headers.get("Host") not in (f"{HOST}:{pages.port}", f"localhost:{pages.port}"):
            raise web.HTTPForbidden(text="got another host, expected this machine's loopback\n")
        if request.method not in ("GET", "HEAD"):
            raise web.HTTPMethodNotAllowed(request.method, ("GET", "HEAD"))
        answer = await handler(request)
        answer.headers["X-Content-Type-Options"] = "nosniff"
        answer.headers["Cross-Origin-Resource-Policy"] = "same-origin"
        answer.headers["Content-Security-Policy"] = "frame-ancestors 'none'"
        return answer

    async def given(request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        if name in ("", PAGE):
            return _page(request, pages.text())
        if name.endswith(f"/{PAGE}") and (text := pages.run_text(name)) is not None:
            return _page(request, text)
        if (path := pages.file(name)) is not None:
            return web.FileResponse(path, headers={"Cache-Control": "no-cache"})
        raise web.HTTPNotFound(text="no such page or clip\n")

    app = web.Application(middlewares=[guarded])
    app.router.add_route("*", "/{name:.*}", given)
    return app


def _page(request: web.Request, text: str) -> web.Response:
    from aiohttp import web

    tag = f'"{hashlib.sha256(text.encode()).hexdigest()[:32]}"'
    headers = {"ETag": tag, "Cache-Control": "no-cache"}
    if request.headers.get("If-None-Match") == tag:
        return web.Response(status=304, headers=headers)
    return web.Response(text=text, content_type="text/html", charset="utf-8", headers=headers)


async def serve(pages: Pages, told: Callable[[str], None]) -> None:
    """Serves until it is cancelled.

    Args:
        pages: what is served.
        told: called once with the address.
    """
    import asyncio

    from aiohttp import web

    runner = web.AppRunner(application(pages), access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, HOST, 0)
        await site.start()
        pages.port = runner.addresses[0][1]
        told(f"http://{HOST}:{pages.port}/")
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()


def watch(paths: Sequence[Path]) -> int:
    """Serves the page of some folders until a signal asks to stop; returns 0."""
    import asyncio

    from vlmteach.stops import Stopped

    def tell(address: str) -> None:
        print(f"{address}  (this machine only; Ctrl-C ends it)", file=sys.stderr, flush=True)

    pages = Pages(paths)
    pages.text()  # what cannot be read is told before anything is served
    try:
        asyncio.run(serve(pages, tell))
    except (KeyboardInterrupt, Stopped):
        return 0
    return 0


def address_of(path: Path) -> str:
    """A local file as a browser's address."""
    return "file://" + quote(str(path.resolve()))
