"""Tests of what is refused before an application sees it."""

import asyncio
import itertools
import json

import pytest

from facesiam_jax.serving import gate, metrics

_MB = 1_000_000


class _Sender:
  """A client that sends parts of a body and keeps what it is answered."""

  def __init__(self, parts=(b"",), headers=(), method="POST"):
    self.scope = {
      "type": "http",
      "method": method,
      "path": "/x",
      "headers": [(b"host", b"127.0.0.1"), *headers],
    }
    self._parts = list(parts)
    self.taken = 0
    self.answered = []

  async def receive(self):
    if self.taken == len(self._parts):
      await asyncio.Event().wait()
    part = self._parts[self.taken]
    self.taken += 1
    if part is None:
      return {"type": "http.disconnect"}
    more = self.taken < len(self._parts)
    return {"type": "http.request", "body": part, "more_body": more}

  async def send(self, message):
    self.answered.append(message)

  @property
  def status(self):
    return self.answered[0]["status"]

  @property
  def detail(self):
    return json.loads(self.answered[1]["body"])["detail"]


def _gate(inner=None, **rules):
  async def answer(scope, receive, send):
    body = (await receive())["body"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})

  rules = gate.Rules(**({"max_bytes": _MB} | rules))
  return gate.Gate(inner or answer, rules, metrics.Metrics())


def _ask(one, sender):
  asyncio.run(one(sender.scope, sender.receive, sender.send))
  return sender


def test_a_body_is_handed_on_whole():
  sender = _ask(_gate(), _Sender([b"a", b"", b"bc"]))
  assert sender.status == 200 and sender.answered[1]["body"] == b"abc"
  headers = dict(sender.answered[0]["headers"])
  assert headers[b"cache-control"] == b"no-store"
  exact = _ask(_gate(), _Sender([bytes(_MB // 2)] * 2))
  assert exact.status == 200


@pytest.mark.parametrize("declared", [True, False])
def test_200_mb_are_refused_and_read_to_their_end(declared):
  """So that whoever sends them gets to read why."""
  headers = [(b"content-length", b"200000000")] if declared else []
  sender = _ask(_gate(), _Sender([bytes(_MB)] * 200, headers))
  assert sender.status == 413 and "1 MB" in sender.detail
  assert sender.taken == 200
  assert (b"connection", b"close") in sender.answered[0]["headers"]


def test_who_asks_before_sending_need_not_send():
  headers = [(b"content-length", b"200000000"), (b"expect", b"100-continue")]
  sender = _ask(_gate(), _Sender([bytes(_MB)] * 200, headers))
  assert sender.status == 413 and sender.taken == 0


def test_without_the_key_no_byte_is_read():
  sender = _ask(_gate(key="k" * 20), _Sender([bytes(_MB)] * 200))
  assert sender.status == 401 and sender.taken == 0


def test_a_body_that_does_not_come_is_not_waited_for():
  parts = itertools.repeat(b"x", 3)
  one = _gate(body_s=0.05)
  sender = _Sender(parts)
  sender._parts.append(b"")

  async def stops():
    if sender.taken == 2:
      await asyncio.Event().wait()
    return await _Sender.receive(sender)

  asyncio.run(one(sender.scope, stops, sender.send))
  assert sender.status == 408 and "0.05 s" in sender.detail


def test_who_goes_away_is_not_answered_for():
  sender = _ask(_gate(), _Sender([b"x", None]))
  assert sender.status == 400


def test_more_than_so_many_at_once_come_again():
  goes_on = asyncio.Event()

  async def inner(scope, receive, send):
    await goes_on.wait()
    await send({"type": "http.response.start", "status": 200, "headers": []})

  one = _gate(inner, max_requests=2)
  senders = [_Sender() for _ in range(4)]
  get = _Sender(method="GET")

  async def work():
    asked = [
      asyncio.create_task(one(s.scope, s.receive, s.send))
      for s in [*senders, get]
    ]
    while len([s for s in senders if s.answered]) < 2:
      await asyncio.sleep(0.001)
    goes_on.set()
    await asyncio.gather(*asked)
    after = _Sender()
    await one(after.scope, after.receive, after.send)
    return after

  after = asyncio.run(work())
  assert [s.status for s in senders] == [200, 200, 503, 503]
  assert (b"retry-after", b"1") in senders[2].answered[0]["headers"]
  # What carries no photo is not counted, and places become free again.
  assert get.status == after.status == 200
