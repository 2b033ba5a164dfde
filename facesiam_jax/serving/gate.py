"""Lets through what is to be answered: key, host, size, number at once.

An ASGI application around another. It looks at a request's head before any of
its body is read, and reads the body whole, so that what is behind it never
waits for a slow sender.
"""

import asyncio
import dataclasses
import hashlib
import hmac
import json
import time
import urllib.parse
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from facesiam_jax.serving.metrics import Metrics

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

# What tells nothing of the gallery: the page, its own description, and health.
OPEN = frozenset({"/", "/openapi.json", "/health"})
_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
# A refused body is read to its end, so long, that the sender reads the answer.
_DRAIN_S = 10.0
_HEADERS = (
  (b"cache-control", b"no-store"),
  (b"x-content-type-options", b"nosniff"),
  (b"referrer-policy", b"no-referrer"),
)


@dataclasses.dataclass(frozen=True)
class Rules:
  """What is let through.

  Attributes:
    key: what `Authorization: Bearer` must carry; None asks for none, and lets
      through only what this machine's own programs and pages ask.
    max_bytes: longer bodies are refused.
    max_requests: more than so many bodies at a time are refused.
    body_s: how long the body may take to arrive, in seconds.
  """

  key: str | None = None
  max_bytes: int = 16_000_000
  max_requests: int = 64
  body_s: float = 60.0


class _Refused(Exception):
  """Carries the status, the sentence and further headers of a refusal."""


class Gate:
  """The ASGI application."""

  def __init__(self, app: App, rules: Rules, metrics: Metrics):
    """Puts a gate before an application.

    Args:
      app: what answers.
      rules: what is let through.
      metrics: where requests are counted.
    """
    self._app = app
    self._rules = rules
    self._metrics = metrics
    self._bodies = 0

  async def __call__(
    self, scope: Message, receive: Receive, send: Send
  ) -> None:
    """Answers one request, or hands it on."""
    if scope["type"] != "http":
      await self._app(scope, receive, send)
      return
    begun = time.perf_counter()
    status = 500

    async def sent(message: Message) -> None:
      nonlocal status
      if message["type"] == "http.response.start":
        status = message["status"]
        message["headers"] = [*message.get("headers", ()), *_HEADERS]
      await send(message)

    try:
      await self._admit(scope, receive, sent)
    finally:
      # Whatever was asked for that is not there is one endpoint, not many.
      route = scope.get("route")
      endpoint = getattr(route, "path", "other")
      self._metrics.requests.labels(endpoint, str(status)).inc()
      taken = time.perf_counter() - begun
      self._metrics.seconds.labels(endpoint).observe(taken)

  async def _admit(self, scope: Message, receive: Receive, send: Send) -> None:
    # The first of a name counts; ASGI has them in lower case.
    headers = dict(reversed(scope["headers"]))
    try:
      self._check_sender(scope["path"], headers)
      if scope["method"] in ("GET", "HEAD"):
        await self._app(scope, receive, send)
        return
      if self._bodies >= self._rules.max_requests:
        raise _Refused(
          503,
          f"{self._bodies} requests are being answered; ask again in a moment.",
          [(b"retry-after", b"1")],
        )
      self._bodies += 1
      try:
        body = await self._body(headers, receive)
        await self._app(scope, _replay(body, receive), send)
      finally:
        self._bodies -= 1
    except _Refused as refused:
      await _refuse(send, *refused.args)

  def _check_sender(self, path: str, headers: dict[bytes, bytes]) -> None:
    if self._rules.key is not None:
      if path not in OPEN and not self._has_key(headers):
        raise _Refused(
          401,
          "Wrong or missing API key: send it as `Authorization: Bearer KEY`.",
          [(b"www-authenticate", b"Bearer")],
        )
      return
    # Any web page can have a browser ask this machine: it sends its Origin, or
    # has its own name lead here, which is then the Host.
    host = headers.get(b"host", b"").decode("latin-1")
    origin = headers.get(b"origin")
    name = urllib.parse.urlsplit(f"//{host}").hostname
    local = name in _LOCAL_NAMES
    if not local or origin not in (None, f"http://{host}".encode("latin-1")):
      raise _Refused(
        403,
        "Without an API key only this machine's own pages and programs are "
        "answered: ask by http://127.0.0.1, or have the service started with "
        "--api_key_file.",
      )

  def _has_key(self, headers: dict[bytes, bytes]) -> bool:
    given = headers.get(b"authorization", b"")
    scheme, _, key = given.partition(b" ")
    # Digests are of one length, so that the time tells nothing of the key's.
    digests = [
      hashlib.sha256(text).digest()
      for text in (key.strip(), (self._rules.key or "").encode())
    ]
    return hmac.compare_digest(*digests) and scheme.lower() == b"bearer"

  async def _body(self, headers: dict[bytes, bytes], receive: Receive) -> bytes:
    limit = self._rules.max_bytes
    declared = headers.get(b"content-length", b"0")
    too_long = declared.isdigit() and int(declared) > limit
    parts: list[bytes] = []
    length = 0
    try:
      async with asyncio.timeout(self._rules.body_s):
        # Who asks before sending sends nothing once refused.
        more = not (too_long and b"expect" in headers)
        async with asyncio.timeout(_DRAIN_S if too_long else None):
          while more:
            message = await receive()
            if message["type"] == "http.disconnect":
              raise _Refused(400, "The body was cut short.")
            more = message.get("more_body", False)
            length += len(message.get("body", b""))
            too_long = too_long or length > limit
            if too_long:
              parts.clear()
            else:
              parts.append(message.get("body", b""))
    except TimeoutError:
      if not too_long:
        raise _Refused(
          408, f"The body did not arrive in {self._rules.body_s:g} s."
        ) from None
    if too_long:
      raise _Refused(
        413,
        f"The body is longer than {limit / 1e6:g} MB: send smaller photos.",
      )
    return b"".join(parts)


def _replay(body: bytes, receive: Receive) -> Receive:
  """Returns a `receive` that gives a body that was read already."""
  messages = [{"type": "http.request", "body": body, "more_body": False}]

  async def again() -> Message:
    return messages.pop() if messages else await receive()

  return again


async def _refuse(
  send: Send,
  status: int,
  sentence: str,
  headers: list[tuple[bytes, bytes]] | None = None,
) -> None:
  body = json.dumps({"detail": sentence}).encode()
  length = str(len(body)).encode()
  await send(
    {
      "type": "http.response.start",
      "status": status,
      "headers": [
        (b"content-type", b"application/json"),
        (b"content-length", length),
        # The rest of a body that was not read must not be taken for a request.
        (b"connection", b"close"),
        *(headers or ()),
      ],
    }
  )
  await send({"type": "http.response.body", "body": body})
