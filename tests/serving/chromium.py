"""A headless Chromium, driven through a pipe by its debugging protocol.

References: https://chromedevtools.github.io/devtools-protocol/
"""

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import time

import pytest

_WAIT_S = 60
_FLAGS = (
  "--headless=new",
  "--remote-debugging-pipe",
  "--no-first-run",
  "--disable-gpu",
  "--disable-dev-shm-usage",
  # It runs as root in containers, and opens our own page alone.
  "--no-sandbox",
  "--use-fake-device-for-media-stream",
  "--use-fake-ui-for-media-stream",
)


class Page:
  """One page; `errors` collects what its scripts and policy complain of."""

  def __init__(self, process, to, out):
    self._process, self._to, self._out = process, to, out
    self._rest, self._number, self._session = b"", 0, None
    self.errors = []
    target = self.call("Target.createTarget", url="about:blank")["targetId"]
    attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
    self._session = attached["sessionId"]
    for domain in ("Page", "Runtime", "Log"):
      self.call(f"{domain}.enable")

  def call(self, method, **params):
    """Returns what a method of the protocol does."""
    self._number += 1
    message = {"id": self._number, "method": method, "params": params}
    if self._session:
      message["sessionId"] = self._session
    os.write(self._to, json.dumps(message).encode() + b"\0")
    while True:
      answer = self._message()
      if answer.get("id") == self._number:
        assert "error" not in answer, (method, answer)
        return answer["result"]
      self._note(answer)

  def _note(self, event):
    params = event.get("params", {})
    if event.get("method") == "Runtime.exceptionThrown":
      self.errors.append(params["exceptionDetails"])
    if event.get("method") == "Log.entryAdded":
      self.errors.append(params["entry"])

  def _message(self):
    end = time.monotonic() + _WAIT_S
    while b"\0" not in self._rest:
      ready, _, _ = select.select([self._out], [], [], end - time.monotonic())
      part = os.read(self._out, 1 << 20) if ready else b""
      assert part, f"Chromium says nothing (exit {self._process.poll()})"
      self._rest += part
    first, _, self._rest = self._rest.partition(b"\0")
    return json.loads(first)

  def js(self, expression):
    """Returns the value of an expression, a promise's when it is kept."""
    told = self.call(
      "Runtime.evaluate",
      expression=expression, awaitPromise=True, returnByValue=True,
    )  # fmt: skip
    assert "exceptionDetails" not in told, (expression, told)
    return told["result"].get("value")

  def until(self, expression):
    """Waits until an expression is true."""
    end = time.monotonic() + _WAIT_S
    while not self.js(f"!!({expression})"):
      assert time.monotonic() < end, (
        expression,
        self.js("document.body.innerText"),
      )
      time.sleep(0.05)

  def open(self, url, *, width=1280, height=900, phone=False):
    """Loads a page at a size in CSS pixels."""
    self.call(
      "Emulation.setDeviceMetricsOverride",
      width=width, height=height, mobile=phone,
      deviceScaleFactor=2 if phone else 1,
    )  # fmt: skip
    self.call("Emulation.setTouchEmulationEnabled", enabled=phone)
    self.call("Page.navigate", url=url)
    self.until(
      f"location.href.startsWith({url!r}) && document.readyState === 'complete'"
    )

  def drop(self, path, selector):
    """Drops a file on an element."""
    x, y = self.js(
      f"(() => {{ const r = document.querySelector({selector!r})"
      ".getBoundingClientRect();"
      "return [r.x + r.width / 2, r.y + r.height / 2]; })()"
    )
    data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
      self.call("Input.dispatchDragEvent", type=kind, x=x, y=y, data=data)

  def choose(self, path, selector):
    """Gives a file to an input."""
    root = self.call("DOM.getDocument")["root"]["nodeId"]
    node = self.call("DOM.querySelector", nodeId=root, selector=selector)
    self.call("DOM.setFileInputFiles", files=[str(path)], nodeId=node["nodeId"])

  def press(self, *keys):
    """Presses keys, one after the other."""
    codes = {"Tab": 9, "Enter": 13, "Escape": 27}
    for key in keys:
      text = {"text": "\r"} if key == "Enter" else {}
      named = {"key": key, "code": key, "windowsVirtualKeyCode": codes[key]}
      self.call("Input.dispatchKeyEvent", type="keyDown", **named, **text)
      self.call("Input.dispatchKeyEvent", type="keyUp", **named)

  def write(self, text):
    """Types text where the focus is."""
    self.call("Input.insertText", text=text)

  def picture(self, path, *, whole=True):
    """Writes a screenshot."""
    shot = self.call("Page.captureScreenshot", captureBeyondViewport=whole)
    path.write_bytes(base64.b64decode(shot["data"]))


@contextlib.contextmanager
def page(folder):
  """Yields a Page, or skips the test where there is no Chromium."""
  names = ("chromium", "chromium-browser", "google-chrome")
  program = next(filter(None, map(shutil.which, names)), None)
  if program is None:
    pytest.skip(f"none of {', '.join(names)} is installed")
  theirs, to = os.pipe()
  out, ours = os.pipe()
  argv = [program, *_FLAGS, f"--user-data-dir={folder}", "about:blank"]
  # It reads its file 3 and writes its file 4.
  with subprocess.Popen(
    ["bash", "-c", f'exec "$@" 3<&{theirs} 4>&{ours}', "chromium", *argv],
    pass_fds=(theirs, ours),
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
  ) as process:
    os.close(theirs)
    os.close(ours)
    try:
      yield Page(process, to, out)
    finally:
      process.terminate()
      process.wait()
      os.close(to)
      os.close(out)
