"""Triplet accuracy of a similarity matrix: all triplets, and an interval."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from facesiam_jax.metrics import intervals


class TripletCounts(NamedTuple):
  """Triplets by the person of the anchor and that of the negative.

  Attributes:
    right: those whose positive scores above their negative, float [P, P].
    all: all of them, float [P, P]; 0 on the diagonal.
  """

  right: np.ndarray
  all: np.ndarray

  @property
  def accuracy(self) -> float:
    """Share of the triplets that are right, 0..1."""
    return float(
      self.right.sum(dtype=np.float64) / self.all.sum(dtype=np.float64)
    )


def count_triplets(
  similarity: ArrayLike, identity_ids: ArrayLike
) -> TripletCounts:
  """Counts the right ones of all triplets: anchor, positive, negative.

  The positive is another image of the anchor's person, the negative one of
  anybody else; a person with n of N images has n (n - 1) (N - n) triplets.
  Batch meaning: all images together make the counts.

  Args:
    similarity: score of each pair of images, float [N, N], bigger is closer;
      the diagonal is not used.
    identity_ids: person of each image, int [N].

  Returns:
    The TripletCounts, people in the order of their ids.

  Raises:
    ValueError: if the shapes do not agree, or there is no triplet.

  Degenerate input: equal scores count as wrong, as in
  `metrics.triplet_accuracy`.

  >>> similarity = np.array([[0, 9, 1], [9, 0, 10], [1, 10, 0]])
  >>> count_triplets(similarity, [5, 5, 7]).accuracy
  0.5
  """
  scores, ids = np.asarray(similarity), np.asarray(identity_ids)
  if ids.ndim != 1 or scores.shape != (ids.size, ids.size):
    raise ValueError(
      f"similarity must have shape [N, N] and identity_ids [N], got "
      f"{scores.shape} and {ids.shape}"
    )
  return count_triplets_of(lambda anchor: scores[anchor], ids)


def count_triplets_of(
  scores: Callable[[int], np.ndarray], ids: np.ndarray
) -> TripletCounts:
  """Counts triplets of scores that are no matrix; see `count_triplets`.

  Args:
    scores: image -> its similarity to all images, [N].
    ids: person of each image, int [N].

  Raises:
    ValueError: if there is no triplet.

  Example:
    >>> rows = np.array([[0, 9, 1], [9, 0, 10], [1, 10, 0]])
    >>> count_triplets_of(lambda n: rows[n], np.array([5, 5, 7])).accuracy
    0.5
  """
  people, places, sizes = np.unique(
    ids, return_inverse=True, return_counts=True
  )
  # Halves the memory of many people, and holds so small counts exactly.
  few = int(sizes.max()) ** 3 < 2**24
  kind = np.float32 if few else np.float64
  total = np.outer(sizes * (sizes - 1.0), sizes).astype(kind)
  np.fill_diagonal(total, 0.0)
  if not total.any():
    raise ValueError("identity_ids: no person has two images beside another's")
  right = np.zeros((people.size, people.size), kind)
  for anchor in np.flatnonzero(sizes[places] > 1):
    row = scores(int(anchor))
    own = places == places[anchor]
    others = ~own
    own[anchor] = False
    positives = np.sort(row[own])
    above = positives.size - np.searchsorted(
      positives, row[others], side="right"
    )
    right[places[anchor]] += np.bincount(
      places[others], weights=above, minlength=people.size
    ).astype(kind)
  return TripletCounts(right, total)


def triplet_interval(
  counts: TripletCounts,
  *,
  resamples: int = 1000,
  level: float = 0.95,
  seed: int = 0,
) -> list[float]:
  """Computes an interval of the accuracy by drawing people with replacement.

  A person drawn twice counts twice as an anchor and as a negative; triplets of
  a person with their own copy are dropped.

  Args:
    counts: from `count_triplets`.
    resamples: number of resamples, >= 1.
    level: share of resamples inside the interval, 0..1.
    seed: of the draws.

  Returns:
    [low, high]. Below thirty people it covers the truth much less often than
    `level`.

  Degenerate input: resamples without a triplet are left out. Where no error
  was seen the low end is that of the rule of three on people.
  """
  size = len(counts.right)
  if counts.accuracy == 1.0:
    return [1.0 - intervals.rule_of_three(size, level=level), 1.0]
  rng = np.random.default_rng(seed)
  drawn = rng.integers(0, size, (resamples, size))
  times = np.stack([np.bincount(row, minlength=size) for row in drawn])
  sums = [
    np.einsum("ri,ij,rj->r", times, table, times, optimize=True)
    for table in counts
  ]
  some = sums[1] > 0
  tail = (1 - level) / 2
  low, high = np.quantile(sums[0][some] / sums[1][some], [tail, 1 - tail])
  return [float(low), float(high)]
