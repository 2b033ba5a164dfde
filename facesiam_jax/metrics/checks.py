"""Checks of arguments: bad ones are refused by a ValueError that names them.

Metrics run on the host in NumPy, so values can be looked at: NaN would
otherwise sort anywhere and give a number that looks right.
"""

import numpy as np
from numpy.typing import ArrayLike

_INT64_END = 2**63


def check_floats(name: str, values: ArrayLike, rank: int) -> np.ndarray:
  """Returns finite numbers as float32 or float64, or refuses them by name.

  Args:
    name: of the argument, for the message.
    values: numbers, finite, of rank `rank` and not empty.
    rank: number of dimensions wanted.

  Returns:
    The array, float32 if it came as float32 and float64 otherwise, so that a
    threshold taken from it survives storing in its own type.

  Raises:
    ValueError: naming `name`, if the rank is another, there is no entry, an
      entry is no number, or NaN or infinite.

  Degenerate input: integers and booleans are numbers.
  Example:
    >>> check_floats("scores", [1, 2], 1).tolist()
    [1.0, 2.0]
  """
  array = np.asarray(values)
  if array.ndim != rank:
    raise ValueError(f"{name} must have rank {rank}, got shape {array.shape}")
  if array.size == 0:
    raise ValueError(f"{name} must not be empty, got shape {array.shape}")
  return _finite(name, array)


def _finite(name: str, array: np.ndarray) -> np.ndarray:
  if array.dtype.kind not in "biuf":
    raise ValueError(f"{name} must be real numbers, got dtype {array.dtype}")
  if array.dtype != np.float32:
    array = array.astype(np.float64)
  if not np.isfinite(array).all():
    raise ValueError(f"{name} must be finite, got NaN or infinity")
  return array


def check_pairs(
  scores: ArrayLike, same: ArrayLike, name: str = "scores"
) -> tuple[np.ndarray, np.ndarray]:
  """Returns scores [P] and same (bool [P]), or refuses them by name.

  Args:
    scores: number of each pair, float [P], finite.
    same: 1 = same person, 0 = not, bool or number [P].
    name: what the caller calls `scores`.

  Returns:
    The scores, float32 if they came as float32 and float64 otherwise; and
    `same` as bool [P].

  Raises:
    ValueError: naming `name` or `same`, if ranks or lengths are wrong, a
      score is NaN or infinite, a label is neither 0 nor 1, or one of the two
      kinds of pair is absent.

  Degenerate input: one genuine and one impostor pair are enough.
  Example:
    >>> check_pairs([0.9, 0.1], [1, 0])[1].tolist()
    [True, False]
  """
  array, labels = np.asarray(scores), np.asarray(same)
  if array.ndim != 1:
    raise ValueError(f"{name} must have rank 1, got shape {array.shape}")
  if labels.shape != array.shape:
    raise ValueError(
      f"same must have the shape of {name} {array.shape}, got {labels.shape}"
    )
  array = _finite(name, array)
  # `isin` would build a table; two comparisons are quicker on many pairs.
  if not ((labels == 0) | (labels == 1)).all():
    raise ValueError("same must hold only 0 and 1")
  labels = labels.astype(bool)
  if not labels.any() or labels.all():
    raise ValueError(
      "same must hold at least one genuine (1) and one impostor (0) pair, got "
      f"{int(labels.sum())} genuine of {labels.size}"
    )
  return array, labels


def check_ids(name: str, ids: ArrayLike) -> np.ndarray:
  """Returns ids [N], or refuses them by name.

  Args:
    name: of the argument, for the message.
    ids: integers or strings [N], N > 0.

  Returns:
    The array.

  Raises:
    ValueError: naming `name`, for another rank, no entry, or another type
      (floats could be NaN, which differs from itself).

  Degenerate input: one entry is enough.
  Example:
    >>> check_ids("people_a", ["ann", "bob"]).shape
    (2,)
  """
  array = np.asarray(ids)
  if array.ndim != 1 or array.size == 0:
    raise ValueError(f"{name} must be [N] with N > 0, got {array.shape}")
  if array.dtype.kind not in "iuUS":
    raise ValueError(
      f"{name} must be integers or strings, got dtype {array.dtype}"
    )
  return array


def check_ends(
  ends_a: ArrayLike,
  ends_b: ArrayLike,
  shape: tuple[int, ...],
  name: str = "people",
) -> tuple[np.ndarray, np.ndarray]:
  """Numbers the people (or groups) at the two ends of each pair from 0.

  Args:
    ends_a: id at one end of each pair, integer or string [P].
    ends_b: id at the other end, [P].
    shape: of the scores.
    name: what the caller calls them: people -> people_a and people_b.

  Returns:
    (the distinct ids, ascending [N]; the place of each end among them,
    int64 [2, P]).

  Raises:
    ValueError: naming the argument, if a shape is not `shape` or an id is
      neither an integer nor a string.

  Degenerate input: one id at all ends gives N = 1.
  Example:
    >>> check_ends([7, 7], [7, 9], (2,))[1].tolist()
    [[0, 0], [0, 1]]
  """
  first = check_ids(f"{name}_a", ends_a)
  second = check_ids(f"{name}_b", ends_b)
  if first.shape != shape or second.shape != shape:
    raise ValueError(
      f"{name}_a and {name}_b must have the shape of scores {shape}, got "
      f"{first.shape} and {second.shape}"
    )
  known, index = number(np.concatenate([first, second]))
  return known, index.reshape(2, -1)


def number(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Numbers distinct ids in ascending order from 0.

  Args:
    ids: integers or strings [N], N > 0.

  Returns:
    (the distinct ids, ascending [K]; the place of each id among them, int64
    [N]), just as `np.unique(..., return_inverse=True)`.

  Degenerate input: one id gives K = 1.
  Example:
    >>> number(np.array([9, 4, 9]))[1].tolist()
    [1, 0, 1]
  """
  if ids.dtype.kind in "iu":
    lowest, highest = int(ids.min()), int(ids.max())
    # A table is many times quicker than sorting, if it is not much larger. In
    # int64, for the range of a narrow type may not fit it.
    if highest - lowest <= 2 * ids.size and highest < _INT64_END:
      offsets = ids.astype(np.int64) - lowest
      seen = np.bincount(offsets) > 0
      known = (np.flatnonzero(seen) + lowest).astype(ids.dtype)
      return known, (np.cumsum(seen) - 1)[offsets]
  known, index = np.unique(ids, return_inverse=True)
  return known, index


def check_share(name: str, value: float) -> None:
  """Raises ValueError unless 0 <= value <= 1.

  Args:
    name: of the argument, for the message.
    value: a share.

  Raises:
    ValueError: naming the argument and the value; NaN is refused too.

  Degenerate input: 0 and 1 are allowed.
  Example:
    >>> check_share("target", 0.5)
  """
  if not 0 <= value <= 1:
    raise ValueError(f"{name} must lie in 0..1, got {value}")


def check_inside(name: str, value: float) -> None:
  """Raises ValueError unless 0 < value < 1.

  Args:
    name: of the argument, for the message.
    value: a probability whose logarithm is taken.

  Raises:
    ValueError: naming the argument and the value; NaN is refused too.

  Degenerate input: 0 and 1 are refused.
  Example:
    >>> check_inside("prior", 0.5)
  """
  if not 0 < value < 1:
    raise ValueError(f"{name} must lie inside 0..1, got {value}")


def check_threshold(threshold: float) -> np.float64:
  """Returns the threshold as float64, or refuses NaN.

  Args:
    threshold: in the unit of the scores; may be infinite.

  Returns:
    The threshold. As float64: NumPy would round a Python float to the type of
    float32 scores before it compares them.

  Raises:
    ValueError: if it is NaN.

  Degenerate input: an infinite threshold accepts nothing, or everything.
  Example:
    >>> float(check_threshold(0.5))
    0.5
  """
  if np.isnan(threshold):
    raise ValueError("threshold must be a number, got NaN")
  return np.float64(threshold)
