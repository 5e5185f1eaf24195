"""A headless Chromium, driven through chromedriver's own protocol; tests skip where it is not installed."""

from __future__ import annotations

import base64
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from tests.paths import PATIENCE

AVAILABLE = all(shutil.which(name) for name in ("chromium", "chromedriver"))
OPTIONS = {
    "args": ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--window-size=1500,1000"]
}


class Browser:
    """Context manager: one browser window."""

    def __enter__(self) -> Browser:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{port}"
        self.driver = subprocess.Popen(
            ["chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        capabilities = {"goog:chromeOptions": OPTIONS, "goog:loggingPrefs": {"browser": "ALL"}}
        for _ in range(int(PATIENCE * 10)):
            try:
                self._call("GET", "/status")
                break
            except urllib.error.URLError:
                time.sleep(0.1)
        made = self._call("POST", "/session", {"capabilities": {"alwaysMatch": capabilities}})
        self.address += f"/session/{made['sessionId']}"
        return self

    def __exit__(self, kind: type | None, value: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self._call("DELETE", "")
        finally:
            self.driver.terminate()
            self.driver.wait()

    def open(self, url: str) -> float:
        """Load a page; returns the processor seconds that the browser took until its first drawing was done.

        On an idle machine that is more than the seconds a person waits, as part of it runs side by side; on a busy one
        it is not, and stays the same.
        """
        before = self._processor_seconds()
        self._call("POST", "/url", {"url": url})
        self.wait("document.documentElement.dataset.ready === 'true'")
        return self._processor_seconds() - before

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression."""
        return self._call("POST", "/execute/sync", {"script": f"return ({script});", "args": []})

    def wait(self, condition: str, seconds: float = PATIENCE) -> None:
        """Until an expression is true. Raises TimeoutError."""
        end = time.monotonic() + seconds
        while not self.run(condition):
            if time.monotonic() > end:
                raise TimeoutError(condition)
            time.sleep(0.05)

    def complaints(self) -> list[str]:
        """Errors and warnings in the console since the last call."""
        lines = self._call("POST", "/se/log", {"type": "browser"})
        return [line["message"] for line in lines if line["level"] in ("SEVERE", "WARNING")]

    def look(self, width: int, *, dark: bool = False, height: int = 1000) -> None:
        """Show pages as a window of so many pixels does, in the light or the dark theme."""
        self._devtools(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self._devtools("Emulation.setEmulatedMedia", features=scheme)

    def screenshot(self, path: Path, *, whole: bool = False) -> None:
        """Write what the window shows, or the whole page, as PNG."""
        shot = self._devtools("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))

    def press(self, key: str) -> None:
        """A key of the keyboard, such as Tab or Enter."""
        for kind in ("keyDown", "keyUp"):
            text = "\r" if key == "Enter" and kind == "keyDown" else ""
            code = {"Enter": 13, "Tab": 9, "Escape": 27, "ArrowRight": 39}.get(key, 0)
            self._devtools(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key, text=text, windowsVirtualKeyCode=code
            )

    def _devtools(self, command: str, **parameters: Any) -> Any:
        return self._call("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def _processor_seconds(self) -> float:
        times = [child.cpu_times() for child in psutil.Process(self.driver.pid).children(recursive=True)]
        return float(sum(time.user + time.system for time in times))

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.address + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return json.loads(answer.read())["value"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(json.loads(error.read())["value"]["message"]) from error


OVERLAPS = """(() => {
  const found = [];
  for (const svg of document.querySelectorAll('.plot svg, .parallel svg')) {
    const boxes = [...svg.querySelectorAll('text')].map(t => [t.textContent, t.getBoundingClientRect()]);
    boxes.forEach(([a, p], i) => boxes.slice(i + 1).forEach(([b, q]) => {
      const wide = Math.min(p.right, q.right) - Math.max(p.left, q.left);
      const tall = Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top);
      if (wide > 2 && tall > 4) found.push(`${a} | ${b}`);
    }));
  }
  return found;
})()"""
NAMELESS = """[...document.querySelectorAll(
  'select, input, button, [tabindex="0"], [role="img"], table'
)].filter(node => {
  const label = node.closest('label'), caption = node.querySelector('caption');
  return !(node.getAttribute('aria-label') || node.innerText?.trim() && node.tagName === 'BUTTON'
    || label?.innerText.trim() || caption?.textContent);
}).map(node => node.outerHTML.slice(0, 80))"""
ABOVE = """[...document.querySelectorAll('main section, main section *')]
  .filter(n => !n.closest('.scroll, svg, .unseen, .command'))
  .filter(n => n.getBoundingClientRect().right > innerWidth + 1).map(n => n.outerHTML.slice(0, 80))"""
