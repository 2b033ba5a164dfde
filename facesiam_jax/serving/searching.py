"""The device's side of the service: embeds faces and searches the gallery."""

import itertools
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from facesiam_jax import errors
from facesiam_jax.bundle import Bundle
from facesiam_jax.gallery.gallery import Gallery, Identification
from facesiam_jax.gallery.open_set import OperatingPoint
from facesiam_jax.serving.metrics import Metrics
from facesiam_jax.serving.problems import Problem

# Numbers of faces in one call that are compiled before anybody asks.
_WARM = (1, 16, 32, 64)


class Question(NamedTuple):
  """What is to be embedded, and maybe found.

  Attributes:
    faces: as the bundle wants them, uint8 [N, H, W, C].
    k: how many people to find for each; 0 wants the embeddings alone.
  """

  faces: np.ndarray
  k: int


class Answer(NamedTuple):
  """What came of a question.

  Attributes:
    embeddings: float32 [N, D].
    found: who each face is, length N; empty where k was 0.
    point: how often strangers are accepted; None where k was 0.
  """

  embeddings: np.ndarray
  found: Sequence[Identification]
  point: OperatingPoint | None = None


class Searcher:
  """A bundle and a gallery; every method but `open` is for one thread alone.

  Attributes:
    bundle: what embeds and decides.
    path: the gallery's file.
    key_file: the key, where it is encrypted.
  """

  def __init__(
    self,
    bundle: Bundle,
    path: pathlib.Path,
    metrics: Metrics,
    *,
    key_file: str | None = None,
  ):
    """Makes a searcher that has not opened its gallery."""
    self.bundle = bundle
    self.path = path
    self.key_file = key_file
    self._metrics = metrics
    self._gallery: Gallery | None = None
    self._place: tuple[int, int] | None = None

  def warm(self) -> dict[str, int]:
    """Opens the gallery and compiles what is needed.

    Returns:
      name -> number of photos of those who are enrolled.

    Raises:
      UserError: if the gallery cannot be opened, or another bundle filled it.
    """
    people = self._current().people()
    rng = np.random.default_rng(0)
    shape = (*self.bundle.input_size, self.bundle.channels)
    embed, search = self.bundle.embed, self._current().identify
    for count in _WARM:
      rows = embed(rng.integers(0, 256, (count, *shape), np.uint8))
      search(embeddings=rows)
    self.bundle.logits(rows[:1], rows[:1])
    return people

  def open(self) -> Gallery:
    """Opens the gallery once more, for whichever thread; UserError if not."""
    return Gallery.open(self.path, self.bundle, key_file=self.key_file)

  def close(self) -> None:
    """Closes the gallery."""
    if self._gallery is not None:
      self._gallery.close()
    self._gallery = None

  def _current(self) -> Gallery:
    """Returns the gallery, opened anew if another file took its place.

    One that was deleted could be read on, without what others enrol and remove.
    """
    place = _place(self.path)
    if place != self._place:
      self.close()
    if self._gallery is None:
      self._gallery = self.open()
      self._place = place
    return self._gallery

  def answer(self, questions: Sequence[Question]) -> list[Answer | Exception]:
    """Embeds all faces in one call, and searches the gallery in one more.

    Args:
      questions: at least one.

    Returns:
      An answer each, or what kept it from having one.
    """
    ends = np.cumsum([len(asked.faces) for asked in questions])[:-1]
    rows = np.split(
      self.bundle.embed(np.concatenate([asked.faces for asked in questions])),
      ends,
    )
    if count := sum(map(len, rows)):
      self._metrics.batches.observe(count)
    answers: list[Answer | Exception] = [
      Answer(own, ())
      if np.isfinite(own).all()
      else Problem("The embedding of a face is not finite: try another.", 422)
      for own in rows
    ]
    wanted = [
      place
      for place, asked in enumerate(questions)
      if asked.k and isinstance(answers[place], Answer)
    ]
    if wanted:
      found = self._search(
        [rows[place] for place in wanted],
        [questions[place].k for place in wanted],
      )
      for place, answer in zip(wanted, found, strict=True):
        answers[place] = answer
    return answers

  def _search(
    self, rows: Sequence[np.ndarray], ks: Sequence[int]
  ) -> Sequence[Answer | Exception]:
    try:
      gallery = self._current()
      point = gallery.operating_point()
      found = gallery.identify(
        embeddings=np.concatenate(rows), k=max(ks), threshold=point.threshold
      )
    except errors.UserError as error:
      # The faces are sound: it is the gallery that is not.
      return [Problem(str(error), 503)] * len(rows)
    # Matches come best first, so that those of a smaller k lead.
    each = iter(found)
    return [
      Answer(
        own,
        [
          one._replace(matches=one.matches[:k])
          for one in itertools.islice(each, len(own))
        ],
        point,
      )
      for own, k in zip(rows, ks, strict=True)
    ]


def _place(path: pathlib.Path) -> tuple[int, int] | None:
  """Returns what tells a file from another of its name; None without one."""
  try:
    found = path.stat()
  except OSError:
    return None
  return found.st_dev, found.st_ino
