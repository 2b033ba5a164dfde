"""Tests of joining questions into calls, and that nobody waits for others."""

import asyncio
import concurrent.futures
import threading

import numpy as np
import pytest

from facesiam_jax import errors
from facesiam_jax.serving import batching, gate
from facesiam_jax.serving.searching import Question
from facesiam_jax.serving.service import Photo

pytest.importorskip("fastapi", reason="the extra serve is not installed")
httpx2 = pytest.importorskip("httpx2", reason="the extra dev is not installed")

from facesiam_jax.serving import app  # noqa: E402

_WAIT_S = 60


def _run(work):
  """Runs a coroutine, given a thread to answer in."""
  with concurrent.futures.ThreadPoolExecutor(1) as executor:
    return asyncio.run(asyncio.wait_for(work(executor), _WAIT_S))


def test_questions_at_one_time_are_one_call():
  calls = []

  def answer(questions):
    calls.append(list(questions))
    return [2 * question for question in questions]

  async def work(executor):
    asker = batching.Batcher(answer, executor, delay_s=0)
    return await asyncio.gather(*(asker.ask(number) for number in range(9)))

  assert _run(work) == [2 * number for number in range(9)]
  assert calls == [list(range(9))]


def test_questions_during_a_call_are_the_next_one_and_no_call_is_too_large():
  calls, goes_on = [], threading.Event()

  def answer(questions):
    calls.append(len(questions))
    assert goes_on.wait(_WAIT_S)
    return questions

  async def work(executor):
    asker = batching.Batcher(answer, executor, delay_s=0, most=4)
    first = asyncio.create_task(asker.ask(0))
    while not calls:
      await asyncio.sleep(0.001)
    rest = [asyncio.create_task(asker.ask(number)) for number in range(1, 11)]
    await asyncio.sleep(0.01)
    assert calls == [1]
    goes_on.set()
    return await asyncio.gather(first, *rest)

  assert _run(work) == list(range(11))
  assert calls == [1, 4, 4, 2]


def test_what_keeps_one_question_keeps_no_other():
  def answer(questions):
    if "all" in questions:
      raise OSError("the device is gone")
    return [ValueError(q) if q == "bad" else q for q in questions]

  async def work(executor):
    asker = batching.Batcher(answer, executor, delay_s=0)
    ask = lambda *qs: asyncio.gather(
      *map(asker.ask, qs), return_exceptions=True
    )
    gone = asyncio.create_task(asker.ask("gone"))
    await asyncio.sleep(0)
    gone.cancel()
    return await ask("a", "bad", "b"), await ask("all", "c"), await ask("d")

  first, second, third = _run(work)
  assert (first[0], first[2]) == ("a", "b")
  assert isinstance(first[1], ValueError)
  assert all(isinstance(error, OSError) for error in second)
  assert third == ["d"]


def _asking(service, work):
  """Runs a coroutine that is given an HTTP client of a service."""

  async def whole():
    transport = httpx2.ASGITransport(app=app.create(service, gate.Rules()))
    async with httpx2.AsyncClient(
      transport=transport, base_url="http://127.0.0.1", timeout=_WAIT_S
    ) as client:
      return await work(client)

  return asyncio.run(whole())


def test_32_at_once_are_all_right_and_few_calls(serve, made, monkeypatch):
  service = serve()
  reader, bundle = type(service._reader), type(made.bundle)
  find, embed = reader.find, bundle.embed
  seen, calls, all_seen = [], [], threading.Event()

  def counted(self, pixels, path):
    cuts = find(self, pixels, path)
    seen.append(path)
    if len(seen) == 32:
      all_seen.set()
    return cuts

  def held(self, images):
    # The first call takes as long as it takes the others to come.
    calls.append(len(images))
    assert all_seen.wait(_WAIT_S)
    return embed(self, images)

  monkeypatch.setattr(reader, "find", counted)
  monkeypatch.setattr(bundle, "embed", held)
  whom = {made.ada: ["Ada"], made.bob: ["Bob"], made.stranger: [None]}
  photos = [*whom] * 10 + [made.two] * 2
  whom[made.two] = ["Ada", "Bob"]

  async def work(client):
    return await asyncio.gather(
      *(
        client.post(
          "/identify",
          files={"photo": (f"{number}", path.read_bytes())},
          data={"k": 1 + number % 2},
        )
        for number, path in enumerate(photos)
      )
    )

  answers = [told.json() for told in _asking(service, work)]
  for number, (path, faces) in enumerate(zip(photos, answers, strict=True)):
    assert [face["name"] for face in faces] == whom[path]
    assert {face["photo"] for face in faces} == {f"{number}"}
    assert all(len(face["matches"]) == 1 + number % 2 for face in faces)
  assert sum(calls) == 34 and len(calls) <= 3, calls
  # What is answered does not depend on whom it was asked with: every sixth
  # photo is the same one, and wants as many people.
  for face in range(6):
    alike = [[f | {"photo": ""} for f in a] for a in answers[face:30:6]]
    assert len(alike) == 5 and all(faces == alike[0] for faces in alike)


def test_the_event_loop_is_not_kept_by_a_slow_photo(serve, made, monkeypatch):
  service = serve()
  begun, goes_on = threading.Event(), threading.Event()
  reader = type(service._reader)
  find = reader.find

  def slow(self, pixels, path):
    begun.set()
    assert goes_on.wait(_WAIT_S)
    return find(self, pixels, path)

  monkeypatch.setattr(reader, "find", slow)

  async def work(client):
    files = {"photo": ("a", made.ada.read_bytes())}
    asked = asyncio.create_task(client.post("/identify", files=files))
    while not begun.is_set():
      await asyncio.sleep(0.001)
    others = [await client.get(path) for path in ("/health", "/people", "/")]
    assert not asked.done()
    goes_on.set()
    return [*others, await asked]

  told = _asking(service, work)
  assert [one.status_code for one in told] == [200] * 4
  assert told[-1].json()[0]["name"] == "Ada"


def test_two_at_once_do_not_enrol_one_face_under_two_names(serve, made):
  async def work(client):
    return await asyncio.gather(
      *(
        client.post(
          "/enroll",
          files={"photos": ("a", made.stranger.read_bytes())},
          data={"name": name, "consent": "form 7"},
        )
        for name in ("Cy", "Dee", "Eve")
      )
    )

  told = _asking(serve(), work)
  assert sorted(one.status_code for one in told) == [200, 409, 409]


def test_a_face_that_embeds_to_nothing_spoils_no_other(
  serve, made, monkeypatch
):
  service = serve()
  bundle = type(made.bundle)
  embed = bundle.embed

  def first_is_bad(self, images):
    rows = embed(self, images).copy()
    rows[0] = np.nan
    return rows

  monkeypatch.setattr(bundle, "embed", first_is_bad)
  (ada,), (bob,) = (
    service._read(Photo("a", path.read_bytes()))
    for path in (made.ada, made.bob)
  )
  questions = [
    Question(cut.pixels[None], k) for cut, k in ((ada, 2), (bob, 0), (bob, 2))
  ]
  # The gallery is for the thread that opened it.
  bad, embedded, found = service._device.submit(
    service._searcher.answer, questions
  ).result()
  assert isinstance(bad, errors.UserError) and "not finite" in str(bad)
  assert embedded.embeddings.shape == (1, 256) and embedded.found == ()
  assert found.found[0].name == "Bob"
