"""A real browser, headless, driven by its own protocol (DevTools) over a websocket."""

import asyncio
import base64
import json
import os
import shutil
import subprocess
import time
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

NAMES = ("chromium", "chromium-browser", "google-chrome")
SECONDS = 60


def find_chromium() -> str | None:
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Tab:
    """One page of the browser; every problem it tells of is kept in `complaints`."""

    def __init__(self, socket):
        self.socket = socket
        self.number = 0
        self.complaints = []
        self.requests = []

    async def send(self, method, **parameters):
        self.number += 1
        number = self.number
        await self.socket.send_json({"id": number, "method": method, "params": parameters})
        while True:
            answer = await self.socket.receive_json(timeout=SECONDS)
            self._note(answer)
            if answer.get("id") == number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]

    def _note(self, told):
        method, said = told.get("method"), told.get("params", {})
        if method == "Runtime.exceptionThrown" or method == "Page.javascriptDialogOpening":
            self.complaints.append(json.dumps(said))
        elif method == "Log.entryAdded" and said["entry"]["level"] == "error":
            self.complaints.append(f"{said['entry']['text']} {said['entry'].get('url', '')}")
        elif method == "Network.requestWillBeSent":
            self.requests.append(said["request"]["url"])

    async def open(self, url):
        await self.send("Page.navigate", url=url)
        await self.until("document.readyState === 'complete'")

    async def run(self, script):
        """The value of an expression, awaited."""
        answer = await self.send(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    async def until(self, script):
        end = time.monotonic() + SECONDS
        while not await self.run(script):
            assert time.monotonic() < end, f"never came true: {script}"
            await asyncio.sleep(0.05)

    async def press(self, key):
        for kind in ("keyDown", "keyUp"):
            text = {"text": key} if kind == "keyDown" and len(key) == 1 else {}
            await self.send("Input.dispatchKeyEvent", type=kind, key=key, **text)

    async def look(self, path, width, height, *, dark=False, scale=1):
        """A picture of the window."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.send("Emulation.setEmulatedMedia", features=[scheme])
        await self.size(width, height, scale)
        await asyncio.sleep(1)
        shot = await self.send("Page.captureScreenshot", format="png")
        Path(path).write_bytes(base64.b64decode(shot["data"]))

    async def size(self, width, height, scale=1):
        await self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=width < 600,
        )


@asynccontextmanager
async def browser(profile):
    """A tab of a browser with an empty profile, gone afterwards."""
    found = find_chromium()
    assert found is not None
    flags = ["--headless=new", "--remote-debugging-port=0", f"--user-data-dir={profile}"]
    flags += ["--no-first-run", "--disable-gpu", "--disable-dev-shm-usage", "--mute-audio"]
    flags += ["--disable-background-networking", "--hide-scrollbars"]
    flags += ["--no-sandbox"] * (os.getuid() == 0)
    with subprocess.Popen(
        [found, *flags, "about:blank"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            port = Path(profile) / "DevToolsActivePort"
            end = time.monotonic() + SECONDS
            while not (port.exists() and len(lines := port.read_text().split()) == 2):
                assert process.poll() is None, "the browser has ended"
                assert time.monotonic() < end, "the browser does not answer"
                await asyncio.sleep(0.05)
            address = f"http://127.0.0.1:{lines[0]}/json/list"
            async with aiohttp.ClientSession() as session:
                async with session.get(address) as answer:
                    tabs = await answer.json()
                page = next(tab for tab in tabs if tab["type"] == "page")
                where = page["webSocketDebuggerUrl"]
                async with session.ws_connect(where, max_msg_size=0) as socket:
                    tab = Tab(socket)
                    for domain in ("Page", "Runtime", "Log", "Network"):
                        await tab.send(f"{domain}.enable")
                    yield tab
        finally:
            process.terminate()
