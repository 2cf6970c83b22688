"""A headless Chromium for tests: pages are opened, asked and photographed through its debugging protocol."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import http.server
import io
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import numpy as np
from PIL import Image

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    *("--headless=new", "--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"),
    *("--disable-background-networking", "--no-first-run", "--no-default-browser-check", "--disable-sync"),
    *("--disable-component-update", "--disable-extensions", "--remote-debugging-port=0", "--mute-audio"),
    *("--autoplay-policy=no-user-gesture-required", "--hide-scrollbars"),
)
START_S, ANSWER_S = 60.0, 120.0


def find_chromium() -> str | None:
    """The path of an installed Chromium, or None."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a plain web server of a folder, on the loopback interface."""
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


class Browser:
    """One Chromium with one page; `requests` are the addresses it asked for, `problems` its console's complaints."""

    def __init__(self, executable: str):
        self._profile = tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True)
        self._process = subprocess.Popen(
            [executable, *FLAGS, f"--user-data-dir={self._profile.name}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._loop = asyncio.new_event_loop()
        self.requests: list[str] = []
        self.problems: list[str] = []
        self._number = 0
        port = self._port()
        self._loop.run_until_complete(self._connect(port))

    def _port(self) -> int:
        file, end = Path(self._profile.name) / "DevToolsActivePort", time.monotonic() + START_S
        while time.monotonic() < end:
            with contextlib.suppress(OSError, ValueError, IndexError):
                return int(file.read_text().splitlines()[0])
            time.sleep(0.05)
        raise TimeoutError("Chromium did not start")

    async def _connect(self, port: int) -> None:
        self._session = aiohttp.ClientSession()
        async with self._session.get(f"http://127.0.0.1:{port}/json/list") as answer:
            pages = [page for page in await answer.json() if page["type"] == "page"]
        self._socket = await self._session.ws_connect(pages[0]["webSocketDebuggerUrl"], max_msg_size=0)
        for domain in ("Page", "Runtime", "Network", "Log"):
            await self._call(f"{domain}.enable", {})

    async def _call(self, method: str, parameters: dict) -> dict:
        self._number += 1
        number = self._number
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        while True:
            message = await asyncio.wait_for(self._socket.receive_json(), ANSWER_S)
            if message.get("id") == number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                return message["result"]
            self._note(message)

    def _note(self, message: dict) -> None:
        found = message.get("params", {})
        if message.get("method") == "Network.requestWillBeSent":
            self.requests.append(found["request"]["url"])
        elif message.get("method") == "Runtime.exceptionThrown":
            details = found["exceptionDetails"]
            self.problems.append(details.get("exception", {}).get("description") or details["text"])
        elif message.get("method") == "Log.entryAdded" and found["entry"]["level"] == "error":
            self.problems.append(f"{found['entry']['text']} {found['entry'].get('url', '')}")

    def call(self, method: str, **parameters: object) -> dict:
        """One command of the protocol."""
        return self._loop.run_until_complete(self._call(method, parameters))

    def size(self, width: int, height: int, *, dark: bool = False) -> None:
        """The size of the window, and the colours that the system asks for."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, url: str) -> None:
        """Go to an address; what was asked for and complained of is counted anew."""
        self.requests.clear()
        self.problems.clear()
        self.call("Page.navigate", url=url)

    def ask(self, script: str) -> object:
        """The value of an expression in the page."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"].get("exception", {}).get("description", "failed"))
        return answer["result"].get("value")

    def wait(self, script: str, seconds: float = 60.0) -> float:
        """Wait until an expression holds; returns the seconds it took."""
        start = time.monotonic()
        while time.monotonic() < start + seconds:
            with contextlib.suppress(RuntimeError):
                if self.ask(f"Boolean({script})"):
                    return time.monotonic() - start
            time.sleep(0.05)
        raise TimeoutError(f"{script} did not hold within {seconds} s; problems: {self.problems}")

    def press(self, key: str, code: str = "") -> None:
        """Type a key."""
        text = {"text": key} if len(key) == 1 else {}
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=code, **(text if kind == "keyDown" else {}))

    def picture(self, selector: str | None = None) -> np.ndarray:
        """What is seen, or one element of it. [h w 3] uint8"""
        options: dict[str, object] = {"format": "png"}
        if selector is not None:
            box = self.ask(
                f"(() => {{ const r = document.querySelector({selector!r}).getBoundingClientRect(); "
                "return {x: r.x + scrollX, y: r.y + scrollY, width: r.width, height: r.height, scale: 1}; })()"
            )
            options["clip"] = box
        data = base64.b64decode(self.call("Page.captureScreenshot", **options)["data"])
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))

    def close(self) -> None:
        """End the browser that was started here."""
        with contextlib.suppress(Exception):
            self._loop.run_until_complete(asyncio.wait_for(self._call("Browser.close", {}), 5))
        with contextlib.suppress(Exception):
            self._loop.run_until_complete(self._session.close())
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._loop.close()
        self._profile.cleanup()
