"""A headless Chromium, driven over its DevTools protocol: what a page does, and what it shows, at any width and in either scheme."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def find():
    """The path of a Chromium, or None; `CHROMIUM` in the environment comes first."""
    return os.environ.get("CHROMIUM") or next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """One browser with one tab."""

    def __init__(self, path):
        from websockets.sync.client import connect

        self.open_things = contextlib.ExitStack()
        home = self.open_things.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-extensions"]
        options += ["--remote-debugging-port=0", f"--user-data-dir={home}", "--disable-background-networking"]
        process = subprocess.Popen([path, *options, "about:blank"], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        self.open_things.enter_context(process)
        self.open_things.callback(process.terminate)
        address = next(m.group(1) for line in process.stderr if (m := re.search(r"listening on (ws://\S+)", line)))
        self.socket = self.open_things.enter_context(connect(address, max_size=None, compression=None))
        self.numbers, self.events, self.session = itertools.count(1), [], None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method, **parameters):
        """Ask, and wait for the answer; what happens meanwhile is kept in `events`."""
        number = next(self.numbers)
        asked = {"id": number, "method": method, "params": parameters}
        self.socket.send(json.dumps(asked | ({"sessionId": self.session} if self.session else {})))
        while True:
            heard = self._hear()
            if heard.get("id") == number:
                if "error" in heard:
                    raise RuntimeError(f"{method}: {heard['error']['message']}")
                return heard["result"]

    def _hear(self):
        heard = json.loads(self.socket.recv(timeout=60))
        if "method" in heard:
            self.events.append(heard)
        return heard

    def open(self, url):
        """Load a page; `events` are then those of this page alone."""
        self.events.clear()
        self.call("Page.navigate", url=url)
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self._hear()

    def look(self, width, scheme):
        """Show the page at a width, in the light or the dark scheme."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def evaluate(self, script):
        """The value of a JavaScript expression; promises are awaited."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"]["exception"]["description"])
        return answer["result"].get("value")

    def complaints(self):
        """Everything on the console, uncaught errors, requests that failed, and requests that left the machine."""
        found = []
        for event in self.events:
            method, what = event["method"], event["params"]
            if method == "Runtime.consoleAPICalled" and what["type"] in ("error", "warning", "assert"):
                found.append(f"console {what['type']}: {' '.join(str(a.get('value', a.get('description'))) for a in what['args'])}")
            elif method == "Runtime.exceptionThrown":
                found.append(
                    f"uncaught: {what['exceptionDetails'].get('exception', {}).get('description', what['exceptionDetails']['text'])}"
                )
            elif method == "Log.entryAdded" and what["entry"]["level"] in ("error", "warning"):
                found.append(f"log {what['entry']['level']}: {what['entry']['text']} {what['entry'].get('url', '')}")
            elif method == "Network.loadingFailed":
                found.append(f"request failed: {what['errorText']}")
            elif method == "Network.requestWillBeSent" and not what["request"]["url"].startswith(("file:", "data:", "about:")):
                found.append(f"left the machine: {what['request']['url']}")
        return found

    def picture(self, path):
        """Keep what is shown as a PNG."""
        import base64

        Path(path).write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def close(self):
        """End the browser, which is this one's own."""
        self.open_things.close()
