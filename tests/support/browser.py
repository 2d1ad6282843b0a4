"""A headless Chromium driven by the Chrome DevTools protocol over a pipe, which needs no further package.

Messages are JSON, each ended by a zero byte: `--remote-debugging-pipe` reads them from file descriptor 3 and
writes to 4.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import queue
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
           "--disable-background-networking", "--disable-component-update", "--disable-sync",
           "--disable-dev-shm-usage", "--mute-audio", "--use-fake-device-for-media-stream",
           "--use-fake-ui-for-media-stream", "--remote-debugging-pipe")
# Puts both ends of the pipes where the browser looks for them, and becomes the browser.
LAUNCHER = ("import os, sys; [os.dup2(int(sys.argv[i]), i + 2) for i in (1, 2)]; "
            "os.execv(sys.argv[3], sys.argv[3:])")
KEYS = {" ": ("Space", 32), "Enter": ("Enter", 13), "Delete": ("Delete", 46), "ArrowLeft": ("ArrowLeft", 37),
        "ArrowUp": ("ArrowUp", 38), "ArrowRight": ("ArrowRight", 39), "ArrowDown": ("ArrowDown", 40),
        "Tab": ("Tab", 9), "m": ("KeyM", 77), ",": ("Comma", 188), ".": ("Period", 190)}


def find_browser() -> str | None:
    """The path of a Chromium or Chrome, None where there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One tab. `errors` collects what its console reports as an error, and exceptions of its scripts."""

    def __init__(self, profile: Path) -> None:
        """profile: an empty folder for the browser's data."""
        there_in, here_out = os.pipe()
        here_in, there_out = os.pipe()
        # Copies that are neither 3 nor 4, which the launcher is about to fill.
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (there_in, there_out)]
        command = [find_browser(), *OPTIONS, f"--user-data-dir={profile}", "about:blank"]
        self._process = subprocess.Popen(
            [sys.executable, "-c", LAUNCHER, *map(str, ends), *command], pass_fds=ends,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for end in (there_in, there_out, *ends):
            os.close(end)
        self._out, self._in = os.fdopen(here_out, "wb", 0), os.fdopen(here_in, "rb", 0)
        self._answers: queue.Queue[dict] = queue.Queue()
        self._count = 0
        self._held = False
        self.errors: list[str] = []
        threading.Thread(target=self._receive, daemon=True).start()
        self._session: str | None = None
        target = next(info for info in self.ask("Target.getTargets")["targetInfos"] if info["type"] == "page")
        attached = self.ask("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "DOM"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **parameters: Any) -> dict:
        """The result of one command of the protocol."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters}
        if self._session and not method.startswith(("Target.", "Browser.")):
            message["sessionId"] = self._session
        self._out.write(json.dumps(message).encode() + b"\0")
        while True:
            answer = self._answers.get(timeout=30)
            if answer["id"] == self._count:
                break
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression; promises are awaited."""
        result = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(result["exceptionDetails"].get("exception", {}).get("description", expression))
        return result["result"].get("value")

    def wait(self, expression: str, seconds: float = 30) -> Any:
        """The value of the expression as soon as it is true. Raises TimeoutError."""
        end = time.monotonic() + seconds
        while not (value := self.evaluate(expression)):
            if time.monotonic() > end:
                shown = self.evaluate("document.body.innerText")
                raise TimeoutError(f"{expression}; errors: {self.errors}; the page shows: {shown}")
            time.sleep(0.05)
        return value

    def open(self, address: str) -> None:
        """Load a page and wait until it is there."""
        self.ask("Page.navigate", url=address)
        self.wait(f"location.href.startsWith({json.dumps(address)}) && document.readyState === 'complete'")

    def size(self, width: int, height: int, mobile: bool = False) -> None:
        """Give the page so many CSS pixels."""
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height,
                 deviceScaleFactor=2 if mobile else 1, mobile=mobile)

    def scheme(self, name: str) -> None:
        """'light' or 'dark'."""
        self.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    def click(self, selector: str) -> None:
        """Press the mouse in the middle of an element."""
        x, y = self.middle(selector)
        self._mouse("mouseMoved", x, y)
        self._mouse("mousePressed", x, y)
        self._mouse("mouseReleased", x, y)

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Drag the mouse between two points of the window."""
        self._mouse("mousePressed", *start)
        for fraction in (0.3, 0.7, 1.0):
            self._mouse("mouseMoved", *(a + fraction * (b - a) for a, b in zip(start, end)))
        self._mouse("mouseReleased", *end)

    def press(self, key: str, shift: bool = False) -> None:
        """Press a key of KEYS."""
        code, number = KEYS[key]
        text = {"text": "\r" if key == "Enter" else key} if len(key) == 1 or key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            self.ask("Input.dispatchKeyEvent", type=kind, key=key, code=code, windowsVirtualKeyCode=number,
                     modifiers=8 if shift else 0, **(text if kind == "keyDown" else {}))

    def choose_files(self, selector: str, files: list[Path]) -> None:
        """Put files into a file input, as its dialogue does."""
        root = self.ask("DOM.getDocument")["root"]["nodeId"]
        node = self.ask("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.ask("DOM.setFileInputFiles", nodeId=node, files=[str(file) for file in files])

    def download_to(self, folder: Path) -> None:
        """Let downloads go into `folder` without asking."""
        self.ask("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))

    def screenshot(self, file: Path) -> None:
        """Write what the window shows as a PNG file."""
        file.write_bytes(base64.b64decode(self.ask("Page.captureScreenshot", format="png")["data"]))

    def middle(self, selector: str) -> tuple[float, float]:
        """The middle of an element in the window, scrolled into it."""
        left, top, width, height = self.rectangle(selector)
        return left + width / 2, top + height / 2

    def rectangle(self, selector: str) -> tuple[float, float, float, float]:
        """Left, top, width, height of an element in the window, scrolled into it."""
        return tuple(self.evaluate(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); "
            "e.scrollIntoView({block: 'nearest'}); const r = e.getBoundingClientRect(); "
            "return [r.left, r.top, r.width, r.height]; })()"))

    def close(self) -> None:
        """End the browser."""
        with contextlib.suppress(OSError, RuntimeError, queue.Empty):
            self.ask("Browser.close")
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._out.close()

    def _mouse(self, kind: str, x: float, y: float) -> None:
        if kind != "mouseMoved":
            self._held = kind == "mousePressed"
        self.ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, buttons=int(self._held),
                 button="none" if kind == "mouseMoved" and not self._held else "left",
                 clickCount=0 if kind == "mouseMoved" else 1)

    def _receive(self) -> None:
        rest = b""
        while chunk := self._in.read(1 << 16):
            *messages, rest = (rest + chunk).split(b"\0")
            for message in map(json.loads, messages):
                if "id" in message:
                    self._answers.put(message)
                else:
                    self._note(message["method"], message["params"])

    def _note(self, method: str, parameters: dict) -> None:
        if method == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            self.errors.append(f"{parameters['entry']['text']} {parameters['entry'].get('url', '')}")
        elif method == "Runtime.exceptionThrown":
            details = parameters["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description", details["text"]))


@contextlib.contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """A browser that is ended with the block."""
    opened = Browser(profile)
    try:
        yield opened
    finally:
        opened.close()
