"""A headless Chromium driven over its debugging pipe: no driver, no package, no port."""

import base64
import fcntl
import json
import os
import shutil
import subprocess
import time
from contextlib import contextmanager

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--window-size=1100,900",
    "--remote-debugging-pipe",
)


class Browser:
    """One page; every call waits for its answer and keeps the events that came meanwhile."""

    def __init__(self, to_browser, from_browser):
        self._to, self._from = to_browser, from_browser
        self._number = 0
        self._held = b""
        self.events = []
        self._session = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]
        for domain in ("Page", "Runtime", "Network", "Log", "DOM"):
            self.call(f"{domain}.enable")

    def call(self, method, **parameters):
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            told = self._next()
            if told.get("id") == self._number:
                assert "error" not in told, told["error"]
                return told["result"]
            self.events.append(told)

    def _next(self):
        while b"\0" not in self._held:
            piece = os.read(self._from, 1 << 16)
            assert piece, "the browser has died"
            self._held += piece
        line, _, self._held = self._held.partition(b"\0")
        return json.loads(line)

    def evaluate(self, expression):
        """The value of a JavaScript expression in the page."""
        told = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    def until(self, expression, limit_s=30):
        """Wait until an expression holds; pages may load meanwhile."""
        deadline = time.monotonic() + limit_s
        while True:
            try:
                if value := self.evaluate(expression):
                    return value
            except AssertionError:
                pass  # between two pages there is nothing to evaluate in
            assert time.monotonic() < deadline, f"{expression} in {self.text()[:1000]}"
            time.sleep(0.05)

    def open(self, url):
        self.call("Page.navigate", url=url)
        self.until(f"document.readyState === 'complete' && location.href === {json.dumps(url)}")

    def text(self):
        return self.evaluate("document.body.innerText")

    def choose_file(self, selector, path):
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    def screenshot(self, path):
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=False)[
            "data"
        ]
        path.write_bytes(base64.b64decode(data))

    def complaints(self):
        """What the console and the policies have said, and requests that went elsewhere."""
        self.evaluate("1")
        said = [
            e["params"]["entry"]["text"] for e in self.events if e["method"] == "Log.entryAdded"
        ]
        said += [str(e["params"]) for e in self.events if e["method"] == "Runtime.exceptionThrown"]
        return said

    def requested(self):
        return {
            e["params"]["request"]["url"]
            for e in self.events
            if e["method"] == "Network.requestWillBeSent"
        }


@contextmanager
def chromium(profile):
    """A browser with a new profile folder; gone at the end."""
    child_in, to_browser = os.pipe()
    from_browser, child_out = os.pipe()

    def wire():
        # Chromium reads descriptor 3 and writes descriptor 4; neither may be overwritten first
        first, second = (fcntl.fcntl(end, fcntl.F_DUPFD, 100) for end in (child_in, child_out))
        os.dup2(first, 3)
        os.dup2(second, 4)

    process = subprocess.Popen(
        [CHROMIUM, *FLAGS, f"--user-data-dir={profile}"],
        preexec_fn=wire,  # noqa: PLW1509 - four dup2 calls
        pass_fds=(3, 4),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(child_in)
    os.close(child_out)
    try:
        yield Browser(to_browser, from_browser)
    finally:
        os.close(to_browser)
        os.close(from_browser)
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
