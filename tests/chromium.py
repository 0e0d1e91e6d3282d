"""A headless Chromium for tests, spoken to over two pipes: no driver, no websocket, no port."""

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

FOUND = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
needs_chromium = pytest.mark.skipif(FOUND is None, reason="Chromium is not installed")
PATIENCE = 120  # seconds


class Page:
    """A tab, and what its console said."""

    def __init__(self, browser: "Chromium", target: str) -> None:
        """For a new tab of the browser."""
        self.browser = browser
        self.session = browser.call("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        self.problems: list[str] = []
        browser.pages[self.session] = self
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call("Emulation.setFocusEmulationEnabled", {"enabled": True})

    def call(self, method: str, parameters: dict[str, Any] | None = None) -> Any:  # Any: JSON
        return self.browser.call(method, parameters, self.session)

    def size(self, width: int, height: int) -> None:
        """As a window, or a phone, of so many pixels."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", metrics)

    def open(self, url: str) -> None:
        self.call("Page.navigate", {"url": url})

    def evaluate(self, expression: str) -> Any:  # Any: JSON
        told = self.call("Runtime.evaluate", {"expression": expression, "returnByValue": True, "awaitPromise": True})
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    def wait_for(self, expression: str) -> None:
        """Until the expression is true."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if self.evaluate(f"Boolean({expression})"):
                return
            time.sleep(0.02)
        raise AssertionError(
            f"{expression} did not come true; the page says: {self.evaluate('document.body.innerText')}"
        )

    def press(self, key: str) -> None:
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", {"type": kind, "key": key, "text": key if kind == "keyDown" else ""})

    def click(self, selector: str) -> None:
        """In the middle of what the selector finds, as a finger would."""
        found = f"document.querySelector({selector!r})"
        self.evaluate(f"{found}.scrollIntoView({{block: 'nearest'}})")
        box = self.evaluate(f"{found}.getBoundingClientRect().toJSON()")
        place = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2, "button": "left", "clickCount": 1}
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", {"type": kind, **place})

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))


class Chromium:
    """The process, and its two pipes."""

    def __init__(self, read: int, write: int) -> None:
        """For pipes that are open already."""
        self.source, self.sink = os.fdopen(read, "rb", buffering=0), os.fdopen(write, "wb", buffering=0)
        self.pages: dict[str, Page] = {}
        self.number = 0
        self.rest = b""

    def new_page(self) -> Page:
        """In a window and a profile of its own, as another person's; a tab behind another plays no video."""
        own = {"browserContextId": self.call("Target.createBrowserContext")["browserContextId"], "newWindow": True}
        return Page(self, self.call("Target.createTarget", {"url": "about:blank", **own})["targetId"])

    def call(
        self, method: str, parameters: dict[str, Any] | None = None, session: str | None = None
    ) -> Any:  # Any: JSON
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters or {}}
        self.sink.write(json.dumps(message | ({"sessionId": session} if session else {})).encode() + b"\0")
        while (told := self._read()).get("id") != self.number:
            page = self.pages.get(told.get("sessionId", ""))
            if page is not None and (problem := _problem(told["method"], told["params"])):
                page.problems.append(problem)
        assert "error" not in told, (method, told["error"])
        return told["result"]

    def _read(self) -> dict[str, Any]:  # Any: JSON
        while b"\0" not in self.rest:
            got = self.source.read(2**16)
            assert got, "Chromium ended"
            self.rest += got
        line, self.rest = self.rest.split(b"\0", 1)
        return dict(json.loads(line))


def _problem(event: str, told: dict[str, Any]) -> str:  # Any: JSON
    """What the console shows as an error or a warning; '' of all else."""
    if event == "Runtime.exceptionThrown":
        return str(told["exceptionDetails"])
    if event == "Runtime.consoleAPICalled" and told["type"] in ("error", "warning", "assert"):
        return str(told["args"])
    if event == "Log.entryAdded" and told["entry"]["level"] in ("error", "warning"):
        return f"{told['entry']['text']} {told['entry'].get('url', '')}"
    return ""


@contextmanager
def chromium(profile: Path) -> Iterator[Chromium]:
    """A browser of its own, with a profile in this folder."""
    assert FOUND
    command_read, command_write = os.pipe()
    answer_read, answer_write = os.pipe()
    # Chromium reads commands from descriptor 3 and answers on 4.
    flags = f"--headless --no-sandbox --disable-gpu --hide-scrollbars --remote-debugging-pipe --user-data-dir={profile}"
    shell = f'exec "{FOUND}" {flags} about:blank 3<&{command_read} 4>&{answer_write}'
    process = subprocess.Popen(
        ["bash", "-c", shell],
        pass_fds=(command_read, answer_write),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(command_read)
    os.close(answer_write)
    browser = Chromium(answer_read, command_write)
    try:
        yield browser
        browser.call("Browser.close")
    finally:
        browser.sink.close()
        process.terminate()
        process.wait(30)
        browser.source.close()
