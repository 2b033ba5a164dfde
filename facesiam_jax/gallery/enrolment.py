"""What is asked of photos before they are enrolled, and their embeddings."""

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import jax
import numpy as np
from jax.typing import ArrayLike

from facesiam_jax.gallery import search
from facesiam_jax.gallery.records import Source, Templates

if TYPE_CHECKING:
  from facesiam_jax.gallery.gallery import Identification


class Bundle(Protocol):
  """What a gallery needs of a model bundle (`facesiam_jax.bundle.Bundle`)."""

  @property
  def fingerprint(self) -> str:
    """Tells one bundle from another."""

  @property
  def dim(self) -> int:
    """D of the embeddings."""

  @property
  def metric(self) -> str:
    """ "cosine" or "euclidean"; any other means: as its head compares."""

  @property
  def threshold(self) -> float:
    """The logit from which two faces count as the same person."""

  @property
  def calibrated(self) -> bool:
    """Whether the sigmoid of a logit is a probability."""

  @property
  def thresholds(self) -> dict[str, dict[str, Any]]:
    """All thresholds by name, each with "logit" and "fmr"."""

  @property
  def calibration(self) -> dict[str, Any]:
    """What is known of the people it was calibrated with."""

  def embed(self, images: np.ndarray) -> np.ndarray:
    """Returns embeddings float32 [N, D] of uint8 images [N, H, W(, C)]."""

  def logits_from_scores(self, scores: np.ndarray) -> np.ndarray:
    """Returns logits of the gallery's scores, of any shape."""

  @property
  def head(self) -> search.Head:
    """Embeddings float32 [P, D] and [P, D] -> logits [P]; one and the same."""


# Photos of a person compared with all of theirs at a time.
_ROWS = 512

_top_k = jax.jit(search.top_k, static_argnames=("k", "metric", "block"))


class Known(NamedTuple):
  """Somebody who is enrolled already, under another name.

  Attributes:
    name: the other name.
    photos: how many photos are accepted as that person.
    of: how many photos there are.
  """

  name: str
  photos: int
  of: int


def digests(rows: np.ndarray) -> list[bytes]:
  """Returns a SHA-256 of the type, shape and bytes of each row."""
  kind = f"{rows.dtype.str}{rows.shape[1:]}".encode()
  return [hashlib.sha256(kind + row.tobytes()).digest() for row in rows]


def embed(
  bundle: Bundle,
  people: Mapping[str, ArrayLike],
  *,
  labels: Mapping[str, Sequence[str]] | None = None,
  sources: Mapping[str, Sequence[Source]] | None = None,
  quality: Mapping[str, Sequence[float]] | None = None,
) -> dict[str, Templates]:
  """Embeds the faces of several people at once.

  Args:
    bundle: what embeds.
    people: name -> faces, uint8 [N, H, W(, C)], N >= 1.
    labels: name -> what to call each in messages, such as its path.
    sources: name -> where each came from.
    quality: name -> what each weighs in a weighted mean; see `Templates`.

  Returns:
    name -> Templates, for `Store.add`.
  """
  images = {name: np.asarray(rows) for name, rows in people.items()}
  if not images:
    return {}
  embeddings = bundle.embed(np.concatenate(list(images.values())))
  templates, start = {}, 0
  for name, rows in images.items():
    called = [f"image {i} of {name}" for i in range(len(rows))]
    templates[name] = Templates(
      np.asarray(embeddings[start : start + len(rows)], np.float32),
      digests(rows),
      called if labels is None else labels[name],
      () if sources is None else sources[name],
      () if quality is None else quality[name],
    )
    start += len(rows)
  return templates


def _best_with_others(bundle: Bundle, embeddings: np.ndarray) -> np.ndarray:
  """Returns the best logit of each row [N, D] with another one, [N]."""
  count = len(embeddings)
  if bundle.metric in ("cosine", "euclidean"):
    rows = embeddings.astype(np.float64)
    # Part by part: somebody may have thousands of photos.
    parts = [
      _logits_with(bundle, rows, first) for first in range(0, count, _ROWS)
    ]
    return np.concatenate(parts)
  # Few sizes, hence few compilations.
  size = 1 << (count - 1).bit_length()
  rows = np.pad(embeddings, ((0, size - count), (0, 0)))
  places = np.arange(size)
  found = _top_k(
    rows, places < count, places, rows, k=2, metric=bundle.head,
    block=min(size, search.BLOCK),
  )  # fmt: skip
  first, second = np.asarray(found.scores)[:count].T
  itself = np.asarray(found.ids)[:count, 0] == places[:count]
  return np.where(itself, second, first)


def _logits_with(bundle: Bundle, rows: np.ndarray, first: int) -> np.ndarray:
  """Returns the best logits with others of rows from a place on."""
  own = rows[first : first + _ROWS]
  products = own @ rows.T
  of_own, squares = np.square(own).sum(axis=1), np.square(rows).sum(axis=1)
  scores = -(of_own[:, None] + squares[None, :] - 2 * products)
  if bundle.metric == "cosine":
    norms = np.sqrt(np.maximum(squares, np.finfo(np.float64).tiny))
    scores = products / (norms[first : first + _ROWS, None] * norms[None, :])
  logits = np.array(bundle.logits_from_scores(scores.astype(np.float32)))
  places = np.arange(len(own))
  logits[places, first + places] = -np.inf
  return logits.max(axis=1)


def odd_ones(bundle: Bundle, templates: Templates) -> list[int]:
  """Returns which photos of a person are like none of the others.

  A photo is odd if its best logit with the person's other photos is below the
  bundle's threshold, although some two of the others reach it. Two photos that
  are unlike are both odd: which one is wrong cannot be told.

  Args:
    bundle: what decides.
    templates: of one person, N.

  Returns:
    Places of the odd ones, ascending.

  Degenerate input: with one photo, with N > 1 none of which is like another,
  except for N = 2, or where the bundle has no threshold, there is none.
  """
  if len(templates.embeddings) < 2 or not math.isfinite(bundle.threshold):
    return []
  alone = _best_with_others(bundle, templates.embeddings) < bundle.threshold
  if alone.all() and len(alone) > 2:
    return []
  return [int(place) for place in np.flatnonzero(alone)]


def known_as(
  identify: "Callable[[np.ndarray], list[Identification]]",
  people: Mapping[str, Templates],
) -> dict[str, Known]:
  """Looks for people in a gallery before they are enrolled in it.

  Somebody is known by another name if more than half of their photos are
  accepted as one and the same person of that name.

  Args:
    identify: from embeddings float32 [N, D] to one answer each.
    people: name -> templates, names as stored.

  Returns:
    Those who are: name -> Known.
  """
  if not people:
    return {}
  rows = np.concatenate([t.embeddings for t in people.values()])
  answers = iter(identify(rows))
  found = {}
  for name, templates in people.items():
    count = len(templates.embeddings)
    votes = Counter(next(answers).name for _ in range(count))
    other, photos = votes.most_common(1)[0]
    if other is not None and other != name and 2 * photos > count:
      found[name] = Known(other, photos, count)
  return found
