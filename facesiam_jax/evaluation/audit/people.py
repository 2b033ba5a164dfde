"""Who is in two data sets, and who is under a wrong name, in pure functions.

A person is the mean of his embeddings, less the mean of his data set, as a unit
vector: what all faces of a set have in common, its framing and its light, goes.
Two such vectors are compared by their cosine, less what the next nearest others
reach: a network that has seen few faces of a kind finds all of that kind alike,
and then nobody of them is told of.

How sure that is follows from the data at hand. Nearly all pairs with two names
are of two people. How many of them reach a value is counted, and the count goes
on as a parabola of its logarithm where the pairs become few: that is how many
pairs of two people would look as alike as a pair does, were nobody in it twice.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

# How many pairs of two people may be expected among those that are told of as
# sure, and among those to look at, in one comparison of two sets.
SURE, LOOK = 0.05, 2.0
# Of fewer pairs of people the count of the highest is too rough for that: among
# 1,800 one of two that were told of as sure was wrong.
FEWEST_FOR_SURE = 2000
# Images that a person must have for a word on whether one is theirs.
FEWEST = 3
# The next nearest others of a person or an image, whose mean is subtracted.
_OTHERS = 10
# Fewer pairs than this do not say how high chance goes, nor do fewer than this
# many times the pairs that may be of one person.
_FEWEST_PAIRS, _TIMES = 200, 20
# The most that are told of, and where values are counted.
_MOST = 1000
_EDGES = np.linspace(-3.0, 3.0, 6001)
_BLOCK = 1024


class People(NamedTuple):
  """Embeddings summed up by person.

  Attributes:
    directions: unit vectors, float32 [P, D]; zero for a person without images.
    num_images: of each person, int64 [P].
  """

  directions: np.ndarray
  num_images: np.ndarray


class Chance(NamedTuple):
  """How many pairs of two people reach a value: exp(a v^2 + b v + c).

  Attributes:
    a: never above 0.
    b: of v.
    c: constant.
    pairs: how many pairs it was counted on.
  """

  a: float
  b: float
  c: float
  pairs: int

  def expected(self, value: float) -> float:
    """Returns how many pairs of two people would reach a value."""
    # Before its summit a parabola falls to the left too.
    summit = -self.b / (2 * self.a) if self.a else -np.inf
    v = max(value, summit)
    return float(min(np.exp(self.a * v * v + self.b * v + self.c), self.pairs))


class Alike(NamedTuple):
  """Two people who look like one.

  Attributes:
    i: of the first set.
    j: of the second.
    value: cosine above that of the next nearest others.
    expected: pairs of two people that would reach it.
  """

  i: int
  j: int
  value: float
  expected: float


class Suspect(NamedTuple):
  """An image that may be of somebody else.

  Attributes:
    row: the image.
    other: the person whom it is nearest to.
    own: cosine with its own person's other images, above that with the next
      nearest others.
    nearest: the same of the other person.
    expected: pairs of an image and another's person that would reach `nearest`;
      None where too few people are there to say.
  """

  row: int
  other: int
  own: float
  nearest: float
  expected: float | None


def summarise(embeddings: ArrayLike, person: ArrayLike, num: int) -> People:
  """Sums embeddings up by person.

  Args:
    embeddings: float [N, D].
    person: whose each is, int [N], 0 to num - 1.
    num: P, the number of people.

  Returns:
    The people. The centre is the mean of the people, so that one with many
    images does not draw it to himself.
  """
  total, count, centre = _sums(embeddings, person, num)
  means = total / np.maximum(count, 1)[:, None] - centre
  means[count == 0] = 0
  return People(_unit(means), count)


def _sums(
  embeddings: ArrayLike, person: ArrayLike, num: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Returns sums by person, their number of images, and the centre."""
  values = np.asarray(embeddings, np.float64)
  who = np.asarray(person, np.int64)
  count = np.bincount(who, minlength=num)
  total = np.zeros((num, values.shape[1]))
  np.add.at(total, who, values)
  here = count > 0
  means = total[here] / count[here, None]
  centre = means.mean(axis=0) if len(means) else np.zeros(values.shape[1])
  return total, count, centre


def _unit(vectors: np.ndarray) -> np.ndarray:
  norms = np.linalg.norm(vectors, axis=1, keepdims=True)
  return (vectors / np.maximum(norms, 1e-12)).astype(np.float32)


def alike(
  a: People,
  b: People | None = None,
  *,
  known: ArrayLike = (),
  block: int = _BLOCK,
) -> tuple[list[Alike], Chance | None]:
  """Finds people who look like one, of two sets or of one.

  All pairs are compared, a block of rows at a time: memory grows with the sets,
  not with their product.

  Args:
    a: people.
    b: people; None compares those of a with each other.
    known: pairs (i, j) that are not to be told of, int [K, 2].
    block: rows compared at once.

  Returns:
    Pairs of which at most `LOOK` are expected by chance, the surest first, at
    most 1,000; and what chance does, None where there are too few pairs to say
    (then there is no pair).
  """
  own = b is None
  b = a if b is None else b
  rows = _cohort(a.directions, b.directions, own, block)
  columns = rows if own else _cohort(b.directions, a.directions, own, block)
  skip = np.asarray(known, np.int64).reshape(-1, 2)
  counts = np.zeros(len(_EDGES) - 1, np.int64)
  best = np.zeros((0, 3))
  for first, values in _products(a.directions, b.directions, own, block):
    values -= (rows[first : first + len(values), None] + columns) / 2
    if own:
      later = (
        np.arange(values.shape[1]) > first + np.arange(len(values))[:, None]
      )
      values = np.where(later, values, -np.inf)
    here = skip[(skip[:, 0] >= first) & (skip[:, 0] < first + len(values))]
    values[here[:, 0] - first, here[:, 1]] = -np.inf
    counts += _count(values)
    best = _highest(best, values, first)
  at_most = min(len(a.directions), len(b.directions)) // (2 if own else 1)
  chance = fit(counts, at_most)
  if chance is None:
    return [], None
  told = [
    Alike(int(i), int(j), float(v), chance.expected(v)) for v, i, j in best
  ]
  return [pair for pair in told if pair.expected <= LOOK], chance


def _products(
  a: np.ndarray, b: np.ndarray, own: bool, block: int
) -> Iterator[tuple[int, np.ndarray]]:
  """Yields (first row, cosines [block, B]); -inf of a person with himself."""
  for first in range(0, len(a), block):
    values = a[first : first + block] @ b.T
    if own:
      here = np.arange(len(values))
      values[here, first + here] = -np.inf
    yield first, values


def _cohort(a: np.ndarray, b: np.ndarray, own: bool, block: int) -> np.ndarray:
  """Mean cosine with the next nearest after the nearest, float32 [A]."""
  parts = [_next(values)[1] for _, values in _products(a, b, own, block)]
  return np.concatenate([np.zeros(0, np.float32), *parts])


def _next(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns the highest of each row and the mean of `_OTHERS` after it."""
  many = min(_OTHERS + 1, values.shape[1])
  top = -np.sort(-np.partition(values, -many, axis=1)[:, -many:], axis=1)
  rest = top[:, 1:]
  usable = np.isfinite(rest)
  total = np.where(usable, rest, 0).sum(axis=1)
  return top[:, 0], total / np.maximum(usable.sum(axis=1), 1)


def _count(values: np.ndarray) -> np.ndarray:
  usable = values[np.isfinite(values)]
  return np.histogram(np.clip(usable, _EDGES[0], _EDGES[-1]), _EDGES)[0]


def _highest(best: np.ndarray, values: np.ndarray, first: int) -> np.ndarray:
  """Merges a block into the highest so far: rows (value, i, j), sorted."""
  flat = values.ravel()
  many = min(_MOST, len(flat))
  places = np.argpartition(flat, len(flat) - many)[len(flat) - many :]
  i, j = np.divmod(places, values.shape[1])
  rows = np.stack([flat[places], i + first, j], axis=1)
  rows = np.concatenate([best, rows[np.isfinite(rows[:, 0])]])
  return rows[np.lexsort((rows[:, 2], rows[:, 1], -rows[:, 0]))][:_MOST]


def fit(counts: np.ndarray, at_most: int) -> Chance | None:
  """Says how many pairs of two people reach a value, from a count of all.

  The logarithm of the rank is fitted by a parabola in the value, from rank
  `at_most`, since the pairs before it may all be of one person, to ten times
  that or a twentieth of all.

  Args:
    counts: of the pairs in the bins between `_EDGES`, int [6000].
    at_most: pairs that may be of one person.

  Returns:
    The parabola, or the line through both ends where it would bend upwards;
    None where there are too few pairs.
  """
  pairs = int(counts.sum())
  at_most = max(at_most, 1)
  if pairs < max(_FEWEST_PAIRS, _TIMES * at_most):
    return None
  reached = counts[::-1].cumsum()
  last = max(10 * at_most, pairs // 20)
  ranks = np.unique(np.geomspace(at_most, last, 12).astype(np.int64))
  bins = np.searchsorted(reached, ranks)
  values = _EDGES[::-1][bins + 1]
  values, first = np.unique(values, return_index=True)
  logs = np.log(reached[bins[first]])
  if len(values) < 3:
    return None
  a, b, c = np.polyfit(values, logs, 2)
  if a >= 0:
    a = 0.0
    b = (logs[-1] - logs[0]) / (values[-1] - values[0])
    c = logs[0] - b * values[0]
  return Chance(float(a), float(b), float(c), pairs)


def suspects(
  embeddings: ArrayLike, person: ArrayLike, num: int, *, block: int = _BLOCK
) -> tuple[list[Suspect], Chance | None]:
  """Finds images that are no more like their person than strangers are.

  That is, no more than the ten people next nearest to the image after the
  nearest are on average.

  Args:
    embeddings: float [N, D].
    person: whose each is, int [N].
    num: P, the number of people.
    block: images compared at once.

  Returns:
    The suspects: first those that surely look like another person, then those
    that are like their own the least. And what chance does, None where there
    are too few people to say. People with fewer than `FEWEST` images are
    neither suspected nor named.
  """
  values, who = np.asarray(embeddings, np.float64), np.asarray(person, np.int64)
  total, count, centre = _sums(values, who, num)
  directions = summarise(values, who, num).directions
  known = count >= FEWEST
  faces = _unit(values - centre)
  others = (total[who] - values) / np.maximum(count[who] - 1, 1)[:, None]
  own = (faces * _unit(others - centre)).sum(axis=1)
  counts = np.zeros(len(_EDGES) - 1, np.int64)
  found = []
  for first in range(0, len(who) if known.sum() > 2 else 0, block):
    rows = np.arange(first, min(first + block, len(who)))
    near = faces[rows] @ directions.T
    near[rows - first, who[rows]] = -np.inf
    near[:, ~known] = -np.inf
    other, (best, cohort) = near.argmax(axis=1), _next(near)
    counts += _count(near - cohort[:, None])
    strange = (own[rows] <= cohort) & known[who[rows]]
    found += [
      (
        int(rows[k]),
        int(other[k]),
        own[rows[k]] - cohort[k],
        best[k] - cohort[k],
      )
      for k in np.flatnonzero(strange)
    ]
  chance = fit(counts, int(known[who].sum()))
  told = [
    Suspect(
      row, other, float(mine), float(theirs),
      None if chance is None else chance.expected(theirs),
    )
    for row, other, mine, theirs in found
  ]  # fmt: skip
  return sorted(told, key=_order), chance


def _order(suspect: Suspect) -> tuple[bool, float, int]:
  sure = suspect.expected is not None and suspect.expected <= SURE
  return not sure, suspect.own, suspect.row
