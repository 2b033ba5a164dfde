"""What is measured on the CelebA test people beside a verification report.

Triplets are those of the third document the project grew from: an anchor drawn
from all images, another image of the same person, an image of anybody else; the
share in which the first is nearer. Here all of them are counted, none drawn.
Closed-set rank-1 is the share of probes that find their own person first in a
gallery of one image each, over many draws of the gallery's images. Intervals
come from people drawn with replacement, never images. Ties are errors.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

RESAMPLES = 1000
DRAWS = 200
_LEVEL = 0.95


class Estimate(NamedTuple):
  """A share and its interval over people."""

  value: float
  low: float
  high: float


def _estimate(
  share: Callable[[np.ndarray], float], num_people: int
) -> Estimate:
  """Returns share(copies of each person), all once, and its percentiles."""
  rng = np.random.default_rng(0)
  shares = []
  while len(shares) < RESAMPLES:
    drawn = rng.integers(num_people, size=num_people)
    copies = np.bincount(drawn, minlength=num_people)
    # Of one person alone there is nothing to tell apart.
    if np.count_nonzero(copies) > 1:
      shares.append(share(copies))
  tail = (1 - _LEVEL) / 2
  low, high = np.quantile(shares, [tail, 1 - tail])
  return Estimate(float(share(np.ones(num_people))), float(low), float(high))


def _number(people: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns people numbered from 0, int [N], and how often each is there."""
  _, index, images = np.unique(people, return_inverse=True, return_counts=True)
  if len(images) < 2 or images.min() < 2:
    raise ValueError("people must be two or more, each with two images or more")
  return index, images


def triplet_accuracy(similarity: np.ndarray, people: np.ndarray) -> Estimate:
  """Counts all triplets of the images.

  Args:
    similarity: float [N, N], bigger is closer.
    people: person of each image, int [N], each at least twice.

  Returns:
    The probability that the positive of a random triplet is nearer, and its
    interval: a person drawn twice counts twice as anchor and as negative.

  Raises:
    ValueError: if there is one person only, or one image of a person.
  """
  index, images = _number(people)
  # Pairs (positive, negative) in the right order, by anchor and negative's
  # person.
  right = np.zeros((len(index), len(images)))
  for a, person in enumerate(index):
    own = index == person
    positives = own.copy()
    positives[a] = False
    ranked = np.sort(similarity[a, positives])
    above = len(ranked) - np.searchsorted(ranked, similarity[a], side="right")
    right[a] = np.bincount(index, np.where(own, 0, above), len(images))
  others = images[None] * (index[:, None] != np.arange(len(images)))
  pairs = others * (images[index] - 1)[:, None]

  def share(copies: np.ndarray) -> float:
    each = right @ copies / (pairs @ copies)
    return float(copies[index] @ each / copies[index].sum())

  return _estimate(share, len(images))


def rank_one(
  similarity: np.ndarray,
  people: np.ndarray,
  distractors: np.ndarray,
  sizes: Sequence[int],
) -> dict[int, Estimate]:
  """Closed-set rank-1 with one image a person in the gallery.

  Args:
    similarity: of the test images with each other, float [N, N].
    people: person of each of them, int [N], each at least twice; all are in
      the gallery.
    distractors: similarity of the test images with one image of each further
      person, float [N, M].
    sizes: people in the gallery; those beyond the test people are the first of
      the distractors.

  Returns:
    size -> share of probes whose own person's score is the highest, over
    `DRAWS` draws of the test people's gallery images; its interval is over the
    probes' people, the gallery's further people being as they are.

  Raises:
    ValueError: if there are too few people for a size, or images of a person.
  """
  index, images = _number(people)
  num = len(images)
  if min(sizes) < num or max(sizes) > num + distractors.shape[1]:
    raise ValueError(
      f"sizes must be in {num}..{num + distractors.shape[1]}, got {sizes}"
    )
  highest = [
    distractors[:, : size - num].max(axis=1, initial=-np.inf) for size in sizes
  ]
  members = [np.flatnonzero(index == person) for person in range(num)]
  rng = np.random.default_rng(0)
  hits = np.zeros((len(sizes), len(index)))
  probes = np.zeros(len(index))
  for _ in range(DRAWS):
    chosen = np.array([rng.choice(rows) for rows in members])
    scores = similarity[:, chosen].astype(np.float64)
    own = scores[np.arange(len(index)), index]
    scores[np.arange(len(index)), index] = -np.inf
    best, is_probe = scores.max(axis=1), np.ones(len(index), bool)
    is_probe[chosen] = False
    probes += is_probe
    for row, other in zip(hits, highest, strict=True):
      row += is_probe & (own > np.maximum(best, other))
  return {
    size: _of_people(row, probes, index)
    for size, row in zip(sizes, hits, strict=True)
  }


def _of_people(
  hits: np.ndarray, probes: np.ndarray, index: np.ndarray
) -> Estimate:
  own, of = np.bincount(index, hits), np.bincount(index, probes)
  return _estimate(lambda copies: float(own @ copies / (of @ copies)), len(of))


def told_apart(a: np.ndarray, b: np.ndarray) -> float:
  """Returns the share of pairs in which the value of a is the larger one.

  Args:
    a: float [A].
    b: float [B].

  Returns:
    0..1; half where a and b have one distribution. Ties count half.
  """
  ranked = np.sort(b)
  below = np.searchsorted(ranked, a, side="left")
  upto = np.searchsorted(ranked, a, side="right")
  return float((below + upto).mean() / 2 / len(b))
