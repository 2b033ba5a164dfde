"""What the HTTP service does, without HTTP: photos in, what is told out."""

import asyncio
import concurrent.futures
import dataclasses
import hashlib
import io
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from facesiam_jax import errors
from facesiam_jax.bundle import Bundle
from facesiam_jax.faces import grading, pixels
from facesiam_jax.faces.photo import Cut, Reader, near
from facesiam_jax.gallery import enrolment, records, telling
from facesiam_jax.gallery.gallery import Gallery, Identification
from facesiam_jax.serving import problems
from facesiam_jax.serving.batching import Batcher
from facesiam_jax.serving.metrics import Metrics
from facesiam_jax.serving.searching import Answer, Question, Searcher

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Settings:
  """How the service works.

  Attributes:
    gallery: the gallery's file.
    max_pixels: photos of more are refused.
    delay_s: how long a question waits for others to join it, in seconds.
    limits: beyond one of these a face is poor.
    key_file: the gallery's key, where it is encrypted.
  """

  gallery: pathlib.Path
  max_pixels: int = 50_000_000
  delay_s: float = 0.004
  limits: grading.Limits = grading.Limits()
  key_file: str | None = None


class Photo(NamedTuple):
  """A photo as it came.

  Attributes:
    name: what to call it.
    data: an encoded image.
  """

  name: str
  data: bytes


class Enrolment(NamedTuple):
  """Whom to enrol and how.

  Attributes:
    name: as it is to be stored.
    terms: on what terms.
    face: which face of each photo is meant, 1 for the largest; None where it
      must show one.
    allow_duplicate: also who is enrolled under another name, by their looks.
    refuse_poor: refuse poor faces, instead of telling of them.
  """

  name: str
  terms: records.Terms
  face: int | None = None
  allow_duplicate: bool = False
  refuse_poor: bool = False


class Service:
  """A bundle and a gallery for many who ask at once; for one event loop.

  Each kind of work has a thread of its own. Photos are read in one, since not
  every detector is for several and OpenCV uses all cores by itself; the device
  is called in another, for all who ask at the time; a third one writes, which
  may wait for other programs.

  Attributes:
    bundle: what embeds and decides.
    metrics: what is counted.
  """

  def __init__(self, bundle: Bundle, reader: Reader, settings: Settings):
    """Makes a service that is not started.

    Args:
      bundle: what embeds and decides.
      reader: what finds the faces, as the bundle wants them.
      settings: Settings.
    """
    self.bundle = bundle
    self.metrics = Metrics()
    self._reader = reader
    self._settings = settings
    self._photos, self._device, self._files = (
      concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix=name)
      for name in ("photos", "device", "files")
    )
    self._searcher = Searcher(
      bundle, settings.gallery, self.metrics, key_file=settings.key_file
    )
    self._batcher: Batcher[Question, Answer] = Batcher(
      self._searcher.answer, self._device, delay_s=settings.delay_s
    )
    # So that two at once do not enrol one person under two names.
    self._enrolling = asyncio.Lock()

  def start(self) -> dict[str, int]:
    """Opens the gallery and compiles what is needed.

    Returns:
      name -> number of photos of those who are enrolled.

    Raises:
      UserError: if the gallery cannot be opened, or another bundle filled it.
    """
    people = self._device.submit(self._searcher.warm)
    size = self._reader.size
    noise = np.random.default_rng(0).integers(
      0, 256, (size, size, self._reader.channels), np.uint8
    )
    self._photos.submit(grading.measure, [Cut(noise, None)]).result()
    return people.result()

  def close(self) -> None:
    """Finishes what was begun and ends the threads."""
    self._device.submit(self._searcher.close)
    for thread in (self._photos, self._files, self._device):
      thread.shutdown()

  async def _in(
    self,
    thread: concurrent.futures.Executor | None,
    do: Callable[..., T],
    *args: Any,
  ) -> T:
    return await asyncio.get_running_loop().run_in_executor(thread, do, *args)

  def _question(self, cuts: Sequence[Cut], k: int) -> Question:
    shape = (*self.bundle.input_size, self.bundle.channels)
    faces = np.array([cut.pixels for cut in cuts], np.uint8)
    return Question(faces.reshape(-1, *shape), k)

  def _read(self, photo: Photo) -> list[Cut]:
    if not photo.data:
      raise errors.UserError(f"{photo.name} is empty (0 bytes): send it again.")
    decoded = pixels.decode(
      io.BytesIO(photo.data), photo.name, max_pixels=self._settings.max_pixels
    )
    return self._reader.find(decoded, photo.name)

  def _read_one(self, photo: Photo, number: int | None) -> Cut:
    """Returns the face of that number, or the only one that is near."""
    cuts = self._read(photo)
    faces = [cut.face for cut in cuts if cut.face is not None]
    # A cropped face has no place in a photo, and is the only one.
    count = len(near(faces)) or len(cuts)
    if not cuts or (number is None and count > 1):
      raise problems.of_photo(photo.name, count)
    if number is not None and number > len(cuts):
      raise errors.UserError(
        f"{photo.name} shows {len(cuts)} faces, and face {number} was asked "
        "for: give the number of one that it shows."
      )
    return cuts[(number or 1) - 1]

  async def identify(self, photo: Photo, k: int) -> list[dict[str, Any]]:
    """Says who each face of a photo is, as `facesiam identify --json` does.

    Args:
      photo: the photo.
      k: how many people to tell of for each face, >= 1.

    Returns:
      `telling.face` of each face, the largest first; for a photo without a
      face one that has no number.

    Raises:
      UserError: if the photo is no sound image, or the gallery cannot be read.
    """
    cuts = await self._in(self._photos, self._read, photo)
    answer = await self._batcher.ask(self._question(cuts, k))
    assert answer.point is not None
    if not cuts:
      self.metrics.faces.labels("none").inc()
      nobody = (0, None, None, answer.point)
      return [telling.face(self.bundle, photo.name, *nobody)]
    for one in answer.found:
      decision = "unknown" if one.name is None else "known"
      self.metrics.faces.labels(decision).inc()
    told = zip(cuts, answer.found, strict=True)
    return [
      telling.face(self.bundle, photo.name, number, cut, one, answer.point)
      for number, (cut, one) in enumerate(told, 1)
    ]

  async def verify(
    self, photos: tuple[Photo, Photo], *, largest: bool = False
  ) -> dict[str, Any]:
    """Says whether two photos show one person, as `verify --json` does.

    Args:
      photos: the two.
      largest: take the largest face where a photo shows several.

    Returns:
      `telling.comparison`.

    Raises:
      UserError: if a photo is no sound image, or does not show one face.
    """
    number = 1 if largest else None
    cuts = [
      await self._in(self._photos, self._read_one, photo, number)
      for photo in photos
    ]
    rows = (await self._batcher.ask(self._question(cuts, 0))).embeddings
    logits = await self._in(
      self._device, self.bundle.logits, rows[:1], rows[1:]
    )
    names = [photo.name for photo in photos]
    return telling.comparison(self.bundle, names, float(logits[0]))

  async def enroll(
    self, asked: Enrolment, photos: Sequence[Photo]
  ) -> dict[str, Any]:
    """Enrols one person, or gives an enrolled one more templates.

    Args:
      asked: whom and how.
      photos: of that person, at least one.

    Returns:
      name, photos (how many are new), already (which were enrolled before) and
      notes (what is poor or odd about the photos).

    Raises:
      UserError: if a name, term or photo cannot be used, or the gallery cannot
        be written; Problem with status 409 for somebody who is enrolled under
        another name.
    """
    asked = asked._replace(
      name=records.clean_name(asked.name), terms=_clean_terms(asked.terms)
    )
    cuts = [
      await self._in(self._photos, self._read_one, photo, asked.face)
      for photo in photos
    ]
    graded = await self._in(self._photos, grading.measure, cuts)
    notes = self._notes(photos, graded, asked.refuse_poor)
    async with self._enrolling:
      answer = await self._batcher.ask(self._question(cuts, 1))
      templates = _templates(cuts, photos, answer.embeddings)._replace(
        quality=[grading.weight(quality) for quality in graded]
      )
      told = await self._in(
        self._files, self._add, asked, templates, answer.found
      )
    return told | {"notes": notes + told["notes"]}

  def _notes(
    self, photos: Sequence[Photo], graded: list[grading.Quality], refuse: bool
  ) -> list[str]:
    notes = []
    for photo, quality in zip(photos, graded, strict=True):
      poor = ", ".join(grading.shortcomings(quality, self._settings.limits))
      if poor and refuse:
        raise errors.UserError(
          f"The face in {photo.name} is poor ({poor}): give another photo."
        )
      if poor:
        notes.append(f"{photo.name}: poor face, {poor}")
    return notes

  def _add(
    self,
    asked: Enrolment,
    templates: records.Templates,
    found: list[Identification],
  ) -> dict[str, Any]:
    people = {asked.name: templates}
    known = enrolment.known_as(lambda rows: found, people).get(asked.name)
    if known and not asked.allow_duplicate:
      raise problems.Problem(
        f"{asked.name} is already enrolled as {known.name}, by {known.photos} "
        f"of {known.of} photos: enrol them as {known.name}, or say that they "
        "are two people (allow_duplicate).",
        409,
      )
    with self._open() as gallery:
      added = gallery.store.add(people, asked.terms)
    return {
      "name": asked.name,
      "photos": added.templates,
      "already": added.duplicates,
      "notes": [
        f"{templates.labels[place]}: unlike the other photos of {asked.name}; "
        "look whether it shows the same person"
        for place in enrolment.odd_ones(self.bundle, templates)
      ],
    }

  def _open(self) -> Gallery:
    """Opens the gallery for one call, in whichever thread."""
    try:
      return self._searcher.open()
    except errors.UserError as error:
      raise problems.Problem(str(error), 503) from error

  async def remove(self, name: str) -> dict[str, Any]:
    """Removes a person and erases what the files hold of them.

    Args:
      name: as enrolled.

    Returns:
      name, and photos: how many were erased.

    Raises:
      UserError: for an unknown name (a Problem with status 404), or if the
        gallery cannot be written or another program keeps it from erasing.
    """
    name = records.clean_name(name)
    count = await self._in(self._files, self._remove, name)
    return {"name": name, "photos": count}

  def _remove(self, name: str) -> int:
    with self._open() as gallery:
      if name not in gallery.people():
        raise problems.Problem(f"Nobody called {name!r} is enrolled.", 404)
      try:
        return gallery.remove(name)
      except errors.UserError as error:
        raise problems.Problem(str(error), 503) from error

  async def people(self, contains: str, limit: int) -> dict[str, Any]:
    """Tells who is enrolled.

    Args:
      contains: text that a name is to contain, in whichever case.
      limit: how many people to tell of, the first by name.

    Returns:
      total (of those who are enrolled), matching (how many names contain the
      text) and people, `telling.person` of each.

    Raises:
      Problem: if the gallery cannot be read.
    """
    return await self._in(self._files, self._people, contains, limit)

  def _people(self, contains: str, limit: int) -> dict[str, Any]:
    with self._open() as gallery:
      members = gallery.store.members()
    text = contains.casefold()
    matching = [one for one in members if text in one.name.casefold()]
    return {
      "total": len(members),
      "matching": len(matching),
      "people": [telling.person(one) for one in matching[:limit]],
    }

  async def check(self) -> None:
    """Raises Problem if the gallery cannot be read at this time."""
    # In a thread of its own: the others may have much to do.
    await self._in(None, lambda: self._open().close())


def _clean_terms(terms: records.Terms) -> records.Terms:
  try:
    return records.clean_terms(terms)
  except errors.UserError as error:
    # It speaks of flags, which a request has not.
    raise errors.UserError(str(error).removeprefix("--")) from error


def _templates(
  cuts: Sequence[Cut], photos: Sequence[Photo], embeddings: np.ndarray
) -> records.Templates:
  return records.Templates(
    embeddings,
    enrolment.digests(np.stack([cut.pixels for cut in cuts])),
    [photo.name for photo in photos],
    [_source(photo) for photo in photos],
  )


def _source(photo: Photo) -> records.Source:
  """Returns where a template came from: a name that can be listed."""
  name = "".join(filter(str.isprintable, pathlib.PurePath(photo.name).name))
  return records.Source(name or None, hashlib.sha256(photo.data).digest())
