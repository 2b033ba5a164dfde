"""Errors counted for each two people, and how far their rate may be off.

Pairs of the same two people go wrong together, and so do pairs that share one
person. `spread` estimates the variance that follows for the rate, in these two
parts; `facesiam_jax.metrics.intervals` says how, and makes an interval of it.
"""

from typing import NamedTuple

import numpy as np

from facesiam_jax.metrics import checks


class Cells(NamedTuple):
  """Pairs of one kind, counted for each two people.

  Attributes:
    wrong: errors, int [C].
    pairs: pairs, > 0, int [C].
    first: person at one end, numbered from 0, int [C].
    second: person at the other end, int [C]; of genuine pairs the same.
  """

  wrong: np.ndarray
  pairs: np.ndarray
  first: np.ndarray
  second: np.ndarray


class Spread(NamedTuple):
  """Variance of a rate in two parts, and its degrees of freedom.

  Attributes:
    own: from pairs of the same two people.
    shared: from pairs that share one person.
    freedom: of the estimate.
  """

  own: float
  shared: float
  freedom: float


def count(errors: np.ndarray, ends: np.ndarray, num_people: int) -> Cells:
  """Counts the pairs of one kind for each two people.

  Batch meaning: all pairs together make the cells.

  Args:
    errors: whether each pair went wrong, bool [P], not empty.
    ends: the two people of each pair, 0..K-1, int [2, P].
    num_people: K.

  Returns:
    The Cells.

  Degenerate input: a pair of one person with themselves makes a cell.
  Example:
    >>> cells = count(np.array([True, False]), np.array([[0, 1], [1, 0]]), 2)
    >>> cells.wrong.tolist(), cells.pairs.tolist()
    ([1], [2])
  """
  keys = ends.min(axis=0) * num_people + ends.max(axis=0)
  known, index = checks.number(keys)
  wrong = np.bincount(index, errors, known.size).astype(np.int64)
  return Cells(wrong, np.bincount(index), *divmod(known, num_people))


def spread(cells: Cells, rate: float) -> Spread:
  """Estimates the variance of the share of errors over people drawn anew.

  Batch meaning: all cells together make one result.

  Args:
    cells: of one kind of pair.
    rate: share of errors, inside 0..1.

  Returns:
    The Spread; its parts are >= 0, and not both 0.

  Degenerate input: a single cell differs from no other, and its pairs count as
  independent; where no two cells share a person, `shared` is 0.
  Example:
    >>> ids = np.arange(4)
    >>> cells = Cells(np.array([2, 0, 0, 0]), np.full(4, 2), ids, ids)
    >>> spread(cells, 0.25).own
    0.046875
  """
  excess = cells.wrong - rate * cells.pairs
  even = excess / np.sqrt(cells.pairs)
  own = _own_variance(cells.pairs, float(even @ even), rate)
  if (cells.first == cells.second).all():
    return Spread(own, 0.0, freedom(even))
  people = int(max(cells.first.max(), cells.second.max())) + 1

  def by_person(values: np.ndarray) -> np.ndarray:
    sums = np.bincount(cells.first, values, people)
    return sums + np.bincount(cells.second, values, people)

  def of_sharing(values: np.ndarray) -> float:
    """Sum of products over two cells that share one person."""
    sums = by_person(values)
    return float(sums @ sums - 2 * (values @ values))

  weights = np.sqrt(cells.pairs)
  sums, counted = by_person(even), by_person(weights)
  known = freedom(sums[counted > 0])
  most = of_sharing(weights)
  # Rounding leaves a little where no two cells share a person.
  if not most > 1e-9 * float(counted @ counted):
    return Spread(own, 0.0, known)
  alike = max(of_sharing(even), 0.0) / most
  shared = alike * of_sharing(cells.pairs.astype(float))
  number = float(counted.sum()) ** 2 / float(counted @ counted)
  shared *= number / max(number - 2, 1)
  return Spread(own, shared / float(cells.pairs.sum()) ** 2, known)


def _own_variance(pairs: np.ndarray, squares: float, rate: float) -> float:
  """Variance of a rate if only the pairs of a cell go wrong together."""
  total, number = float(pairs.sum()), pairs.size
  alike = 0.0
  # A single cell differs from no other.
  if 1 < number < total:
    relative = squares / (rate * (1 - rate)) * number / (number - 1)
    alike = min(max((relative - number) / (total - number), 0.0), 1.0)
  square = float(pairs.astype(float) @ pairs)
  return rate * (1 - rate) * (total + alike * (square - total)) / total**2


def freedom(sums: np.ndarray) -> float:
  """Returns the degrees of freedom of a variance estimated from n sums.

  A variance of n values of kurtosis k has relative variance (k - 1) / n, that
  of a chi-square of f degrees of freedom has 2 / f.
  """
  squares = sums**2
  most = max(sums.size - 1, 1)
  if not squares.any():
    return most
  kurtosis = sums.size * float(squares @ squares) / float(squares.sum()) ** 2
  return min(2 * sums.size / max(kurtosis - 1, 1e-9), most)
