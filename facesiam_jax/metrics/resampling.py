"""Resamples of people, and the tallies that several scores get in each.

People are drawn with replacement, not pairs: pairs share people. One draw gives
every pair its number of copies, whatever scored it, so that scores of the same
pairs are compared on the same people each time.

Pairs of the same two people have the same number of copies. Counting them is
then a product of a sparse matrix, score by pair of people, with the copies of
many draws at once: pure additions of rows, in whole numbers.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent import futures
from typing import NamedTuple

import numpy as np

from facesiam_jax.metrics import checks
from facesiam_jax.metrics.tally import Tally, tally

# Counts in float32 are exact below this; beyond it float64 is taken.
_EXACT = 2**24
# Counts held at once, and draws made at once at most.
_MOST_COUNTS, _MOST_DRAWS = 2**22, 32
# Pairs of a tile; no fewer than a few for each group of scores.
_TILE, _TILE_GROUPS = 2**19, 4
_THREADS = min(os.cpu_count() or 1, 4)


class Resample(NamedTuple):
  """One draw of people.

  Attributes:
    copies: how many times each person was drawn, int64 [K].
    tallies: of each score's pairs, a pair with its number of copies.
  """

  copies: np.ndarray
  tallies: tuple[Tally, ...]


class Tile(NamedTuple):
  """Some of the pairs of one kind, those of the same people side by side.

  Attributes:
    groups: group of scores that each pair is in, int [n].
    starts: where the pairs of each two people start, and n, int [c + 1].
    first: the one person of each two, 0..K-1, int [c].
    second: the other; None for genuine pairs.
  """

  groups: np.ndarray
  starts: np.ndarray
  first: np.ndarray
  second: np.ndarray | None


class Table(NamedTuple):
  """Pairs by groups of scores, T of them, from high to low.

  Attributes:
    values: the highest score of each group, [T].
    genuine: () -> the Tiles of the genuine pairs.
    impostor: () -> the Tiles of the impostor pairs.
  """

  values: np.ndarray
  genuine: Callable[[], Iterable[Tile]]
  impostor: Callable[[], Iterable[Tile]]


def resamples_of(
  score_sets: Sequence[np.ndarray],
  labels: np.ndarray,
  ends: np.ndarray,
  num_people: int,
  *,
  resamples: int,
  seed: int,
  cuts: Sequence[Sequence[float] | None],
  bins: int | None = None,
) -> Iterator[Resample]:
  """Yields each resample that has both kinds of pair.

  A person drawn m times counts m times in their own genuine pairs, and m * n
  times in impostor pairs with someone drawn n times; pairs of a person with
  their own copy are dropped.

  Args:
    score_sets: similarities of the same pairs by several systems, [P] each.
    labels: whether a pair is of one person, bool [P].
    ends: the two people of each pair, 0..K-1, int [2, P].
    num_people: K.
    resamples: number of draws.
    seed: of the draws; the same seed draws the same people.
    cuts: for each system the thresholds that are applied to its tallies, or
      None; see `calibration.person_bootstrap`.
    bins: how many groups scores are counted in, or None; see there.

  Yields:
    The Resample.

  Example:
    >>> drawn = resamples_of(
    ...   [np.array([0.9, 0.1, 0.2])], np.array([True, False, False]),
    ...   np.array([[0, 0, 0], [0, 1, 1]]), 2, resamples=50, seed=0,
    ...   cuts=[None])
    >>> {int(r.copies @ [1, 1]) for r in drawn}
    {2}
  """
  own = ends[0, labels]
  columns = [_columns(own, None), _columns(*ends[:, ~labels])]
  tables = []
  for scores, cut in zip(score_sets, cuts, strict=True):
    values, groups = _groups(scores, labels, cut, bins)
    tables.append(
      Table(
        values,
        *(
          columns[kind].tiles(groups[mask], values.size)
          for kind, mask in enumerate((labels, ~labels))
        ),
      )
    )
  return draw(tables, num_people, resamples=resamples, seed=seed)


def draw(
  tables: Sequence[Table], num_people: int, *, resamples: int, seed: int
) -> Iterator[Resample]:
  """Yields the resamples of tables; see `resamples_of`.

  Args:
    tables: the same pairs as several systems score them.
    num_people: K.
    resamples: number of draws.
    seed: of the draws.

  Yields:
    The Resample; what was counted at once depends on no thread.
  """
  rng = np.random.default_rng(seed)
  groups = max(table.values.size for table in tables)
  together = int(np.clip(_MOST_COUNTS // groups, 1, _MOST_DRAWS))

  def counted(copies: np.ndarray) -> list[list[np.ndarray]]:
    return [
      [
        _counts(tiles(), copies, table.values.size)
        for tiles in (table.genuine, table.impostor)
      ]
      for table in tables
    ]

  with futures.ThreadPoolExecutor(_THREADS) as pool:
    for first in range(0, resamples, together * _THREADS):
      left = min(resamples - first, together * _THREADS)
      copies = np.stack([_copies(rng, num_people) for _ in range(left)])
      parts = [
        copies[start : start + together] for start in range(0, left, together)
      ]
      for part, found in zip(parts, pool.map(counted, parts), strict=True):
        for n, one in enumerate(part):
          if all(some[n].any() for some in found[0]):
            tallies = (
              _tally(table.values, *(some[n] for some in both))
              for table, both in zip(tables, found, strict=True)
            )
            yield Resample(one, tuple(tallies))


def _copies(rng: np.random.Generator, num_people: int) -> np.ndarray:
  drawn = rng.integers(num_people, size=num_people)
  return np.bincount(drawn, minlength=num_people)


def _tally(
  values: np.ndarray, genuine: np.ndarray, impostor: np.ndarray
) -> Tally:
  seen = (genuine + impostor) > 0
  return Tally(values[seen], genuine[seen], impostor[seen])


def _counts(
  tiles: Iterable[Tile], copies: np.ndarray, groups: int
) -> np.ndarray:
  """Returns the copies of the pairs in each group, int64 [draws, groups]."""
  # A tenth of a second, which whoever only imports the metrics is spared.
  import scipy.sparse

  counts = np.zeros((groups, len(copies)), np.int64)
  times = np.ascontiguousarray(copies.T, dtype=np.float32)
  for tile in tiles:
    weights = times[tile.first]
    if tile.second is not None:
      weights *= times[tile.second]
    pairs = np.diff(tile.starts)
    if (pairs.astype(np.float64) @ weights).max() >= _EXACT:
      weights = weights.astype(np.float64)
    matrix = scipy.sparse.csc_array(
      (np.ones(tile.groups.size, weights.dtype), tile.groups, tile.starts),
      shape=(groups, pairs.size),
    )
    counts += (matrix @ weights).astype(np.int64)
  return np.ascontiguousarray(counts.T)


class _Columns(NamedTuple):
  """Pairs of one kind in the order of their people.

  Attributes:
    order: the pairs, those of the same people side by side, int64 [n].
    starts: where the pairs of each two people start, and n, int64 [c + 1].
    first: one person of each two, [c].
    second: the other; None for genuine pairs.
  """

  order: np.ndarray
  starts: np.ndarray
  first: np.ndarray
  second: np.ndarray | None

  def tiles(
    self, groups: np.ndarray, num_groups: int
  ) -> Callable[[], Iterator[Tile]]:
    """Returns what cuts pairs of these groups [n] into tiles."""
    groups = groups.astype(np.int32)[self.order]
    size = max(_TILE, _TILE_GROUPS * num_groups)
    # Whole runs only; a longer one is a tile of its own.
    marks = np.arange(0, groups.size + size, size)
    bounds = np.unique(np.searchsorted(self.starts, marks).clip(
      max=self.first.size))  # fmt: skip

    def cut() -> Iterator[Tile]:
      for low, high in zip(bounds[:-1], bounds[1:], strict=True):
        part = slice(low, high)
        begin, end = self.starts[low], self.starts[high]
        yield Tile(
          groups[begin:end],
          (self.starts[low : high + 1] - begin).astype(np.int32),
          self.first[part],
          None if self.second is None else self.second[part],
        )

    return cut


def _columns(first: np.ndarray, second: np.ndarray | None) -> _Columns:
  keys = first.astype(np.int64)
  if second is not None:
    span = max(int(first.max()), int(second.max())) + 1
    keys = np.minimum(first, second) * span + np.maximum(first, second)
  order = np.argsort(keys, kind="stable")
  ordered = keys[order]
  starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
  heads = order[starts]
  return _Columns(
    order,
    np.append(starts, keys.size),
    first[heads],
    None if second is None else second[heads],
  )


def _groups(
  scores: np.ndarray,
  labels: np.ndarray,
  cuts: Sequence[float] | None,
  bins: int | None,
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the highest score of each group [T] and each pair's group [P]."""
  counts = tally(scores, labels)
  values = counts.values
  if cuts is not None or bins is not None:
    values = values[first_of_groups(counts, cuts or [], bins)]
  return values, groups_of(scores, values)


def groups_of(scores: np.ndarray, values: np.ndarray) -> np.ndarray:
  """Returns the group of each score, given the highest of each group.

  Args:
    scores: of the type of `values`, [P], none above the first of these.
    values: from high to low, [T].

  Returns:
    int32 [P], 0..T-1.

  Example:
    >>> groups_of(np.array([0.5, 3.0, 2.5]), np.array([3.0, 1.0])).tolist()
    [1, 0, 0]
  """
  places = np.searchsorted(values[::-1], scores)
  return (values.size - 1 - places).astype(np.int32)


def first_of_groups(
  counts: Tally, cuts: Sequence[float], bins: int | None
) -> np.ndarray:
  """Says which scores begin a group of scores that are counted together.

  Without bins those are runs of impostor scores, which changes no rate. Bins
  hold alike shares of the genuine and impostor pairs, each kind weighted alike.

  Args:
    counts: of every distinct score, T of them.
    cuts: thresholds that no group may straddle.
    bins: about how many groups there are to be, or None.

  Returns:
    bool [T], the first True.

  Raises:
    ValueError: if there is less than one bin.

  Example:
    >>> counts = Tally(np.array([3.0, 2.0, 1.0]), np.array([1, 0, 0]),
    ...                np.array([0, 1, 1]))
    >>> first_of_groups(counts, [], None).tolist()
    [True, True, False]
  """
  values = counts.values
  if bins is None:
    genuine = counts.genuine > 0
    # The first of a run: a genuine score here or before, or a cut between.
    first = np.append(True, genuine[1:] | genuine[:-1])
  else:
    if bins < 1:
      raise ValueError(f"bins must be at least 1, got {bins}")
    shares = counts.genuine / counts.num_genuine
    shares += counts.impostor / counts.num_impostor
    place = (np.cumsum(shares) - shares) * (bins / 2)
    place = place.astype(np.int64)
    first = np.append(True, place[1:] != place[:-1])
  for cut in cuts:
    limit = checks.check_threshold(cut)
    first[1:] |= (values[:-1] >= limit) & (values[1:] < limit)
  return first


def binning_error_of(counts: Tally) -> float:
  """Bounds how far binned counts put a rate or an area from the exact one.

  Between the ends of a bin the ROC curve stays inside a box as wide and as high
  as the bin's shares of the two kinds of pair; with one kind alone it is a
  straight line, as the binned curve is.

  Args:
    counts: of bins.

  Returns:
    The largest share of genuine or impostor pairs in a bin that holds both. It
    bounds the error of the EER (both kinds), the AUC and the TAR at any FAR.

  Example:
    >>> binning_error_of(Tally(np.array([2.0, 1.0]), np.array([3, 1]),
    ...                        np.array([0, 4])))
    1.0
  """
  mixed = (counts.genuine > 0) & (counts.impostor > 0)
  shares = [
    int(some[mixed].max(initial=0)) / int(some.sum())
    for some in (counts.genuine, counts.impostor)
  ]
  return max(shares)
