"""All pairs of many images: the report's numbers without a square matrix.

Of each pair one float32 is kept, 340 MB for 13,000 images, and counted in
chunks. The numbers are those of `protocols.verification_report`; the intervals
come from scores in bins, and their binning error is told.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from facesiam_jax.evaluation import protocols, triplets
from facesiam_jax.metrics import calibration, checks, identification, resampling
from facesiam_jax.metrics import tally as tally_lib
from facesiam_jax.metrics.resampling import Tile

BINS = 4096
RESAMPLES = 200
# Rows compared at once, and scores looked at at once.
_ROWS, _CHUNK = 1024, 2**20


class Condensed(NamedTuple):
  """Scores of all pairs of N images, those of a person side by side.

  Attributes:
    scores: of the pairs (0, 1), (0, 2), ..., (N - 2, N - 1), [P].
    starts: where each person's images start, and N, int [K + 1].
  """

  scores: np.ndarray
  starts: np.ndarray

  @property
  def size(self) -> int:
    """Number of images."""
    return int(self.starts[-1])

  def offset(self, row: ArrayLike) -> Any:
    """Returns where the pairs (row, row + 1), ... start."""
    rows = np.asarray(row, np.int64)
    return rows * (2 * self.size - rows - 1) // 2

  def pick(self, first: ArrayLike, second: ArrayLike) -> np.ndarray:
    """Returns the scores of pairs; an image with itself has any."""
    low, high = np.minimum(first, second), np.maximum(first, second)
    places = self.offset(low) + high - low - 1
    return self.scores[np.clip(places, 0, self.scores.size - 1)]

  def block(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Returns the scores of images [A] with images [B], [A, B]."""
    return self.pick(first[:, None], second)

  def row(self, image: int) -> np.ndarray:
    """Returns the scores of an image with all, [N]."""
    return self.pick(image, np.arange(self.size))

  def genuine(self) -> np.ndarray:
    """Returns the scores of the genuine pairs, person after person."""
    ends = np.repeat(self.starts[1:], np.diff(self.starts))
    begin = self.offset(np.arange(self.size))
    lengths = ends - np.arange(self.size) - 1
    parts = zip(begin.tolist(), lengths.tolist(), strict=True)
    return np.concatenate([self.scores[b : b + n] for b, n in parts])


def compare_all(
  embeddings: np.ndarray,
  index: np.ndarray,
  matrix: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> Condensed:
  """Scores all pairs, some rows at a time.

  Args:
    embeddings: float [N, D].
    index: person of each, 0..K-1, int [N].
    matrix: (float [A, D], float [B, D]) -> similarity [A, B].

  Returns:
    The Condensed, images in the order of their people.

  Raises:
    ValueError: if a score is NaN or infinite.
  """
  rows = embeddings[np.argsort(index, kind="stable")]
  size = len(rows)
  starts = np.append(0, np.cumsum(np.bincount(index)))
  found = Condensed(np.empty(size * (size - 1) // 2, np.float32), starts)
  for first in range(0, size, _ROWS):
    block = matrix(rows[first : first + _ROWS], rows[first:])
    if not np.isfinite(block).all():
      raise ValueError("scores must be finite, got NaN or infinity")
    for n, line in enumerate(block):
      begin = found.offset(first + n)
      found.scores[begin : begin + len(line) - n - 1] = line[n + 1 :]
  return found


def count(pairs: Condensed, threshold: float | None) -> tally_lib.Tally:
  """Counts pairs exactly; impostor scores between genuine ones as one.

  Args:
    pairs: all of them.
    threshold: that is to be applied to the tally, or None.

  Returns:
    The Tally: its rates, areas and error rates at the threshold are those of
    every score.
  """
  kind, times = np.unique(pairs.genuine(), return_counts=True)
  marks, genuine = kind, times
  if threshold is not None and np.isfinite(threshold):
    cut = _at_least(threshold)
    marks = np.unique(np.append(kind, cut))
    genuine = np.zeros(marks.size, np.int64)
    genuine[np.searchsorted(marks, kind)] = times
  # Pairs below each mark, and up to it.
  below, upto = np.zeros((2, marks.size), np.int64)
  for first in range(0, pairs.scores.size, _CHUNK):
    chunk = np.sort(pairs.scores[first : first + _CHUNK])
    below += np.searchsorted(chunk, marks)
    upto += np.searchsorted(chunk, marks, side="right")
  under = np.nextafter(marks, np.float32(-np.inf))
  above = max(np.nextafter(marks[-1], np.float32(np.inf)), pairs.scores.max())
  # From low to high: under the first mark, at it, between it and the next, ...
  values = np.stack([under, marks], 1).ravel()
  impostor = np.stack([np.diff(below, prepend=0), upto - below - genuine], 1)
  impostor[1:, 0] -= (upto - below)[:-1]
  both = np.stack([np.zeros_like(genuine), genuine], 1)
  values = np.append(values, np.float32(above))[::-1]
  genuine = np.append(both.ravel(), 0)[::-1]
  impostor = np.append(impostor.ravel(), pairs.scores.size - upto[-1])[::-1]
  seen = genuine + impostor > 0
  return tally_lib.Tally(values[seen], genuine[seen], impostor[seen])


def _at_least(threshold: float) -> np.float32:
  """The lowest float32 that is accepted at a threshold."""
  limit = checks.check_threshold(threshold)
  near = np.float32(limit)
  return near if near >= limit else np.nextafter(near, np.float32(np.inf))


class _Binned:
  """Pairs by bin, in the order in which tiles want them."""

  def __init__(self, pairs: Condensed, values: np.ndarray) -> None:
    self.starts = pairs.starts
    self.own = resampling.groups_of(pairs.genuine(), values)
    self.groups: list[np.ndarray] = []
    kind = np.uint16 if values.size <= 2**16 else np.int32
    for people in self._parts():
      some = [
        resampling.groups_of(self._others(pairs, p), values).astype(kind)
        for p in people
      ]
      self.groups.append(np.concatenate(some))

  def _parts(self) -> Iterator[range]:
    """People whose pairs with those after them make a tile."""
    sizes = np.diff(self.starts)
    pairs = np.cumsum(sizes * (self.starts[-1] - self.starts[1:]))
    ends = np.searchsorted(pairs, np.arange(0, pairs[-1], _CHUNK // 2)) + 1
    bounds = np.unique(np.append([0, sizes.size], np.minimum(ends, sizes.size)))
    for low, high in zip(bounds[:-1], bounds[1:], strict=True):
      yield range(low, high)

  def _others(self, pairs: Condensed, person: int) -> np.ndarray:
    """Scores of a person with everybody after them, image by image of these."""
    low, high = self.starts[person : person + 2]
    lines = [
      pairs.scores[pairs.offset(n) + high - n - 1 : pairs.offset(n + 1)]
      for n in range(low, high)
    ]
    return np.stack(lines, axis=1).ravel()

  def genuine(self) -> Iterator[Tile]:
    """Returns one tile of all genuine pairs."""
    sizes = np.diff(self.starts)
    starts = np.append(0, np.cumsum(sizes * (sizes - 1) // 2))
    yield Tile(self.own, starts, np.arange(sizes.size), None)

  def impostor(self) -> Iterator[Tile]:
    """Returns tiles of the impostor pairs."""
    sizes = np.diff(self.starts)
    for people, groups in zip(self._parts(), self.groups, strict=True):
      others = [np.arange(p + 1, sizes.size) for p in people]
      second = np.concatenate(others)
      first = np.repeat(np.array(people), [len(some) for some in others])
      starts = np.append(0, np.cumsum(sizes[first] * sizes[second]))
      yield Tile(
        groups.astype(np.int32), starts.astype(np.int32), first, second
      )


def report(
  embeddings: np.ndarray,
  identity_ids: ArrayLike,
  matrix: Callable[[np.ndarray, np.ndarray], np.ndarray],
  threshold: float | None,
  *,
  seed: int = 0,
  draws: int = 200,
  ways: int = protocols.ONE_SHOT_WAYS,
  resamples: int = RESAMPLES,
  level: float = 0.95,
  bins: int = BINS,
) -> dict[str, Any]:
  """Measures all pairs of many images; see `protocols.verification_report`.

  Args:
    embeddings: float [N, D].
    identity_ids: person of each, int [N].
    matrix: (float [A, D], float [B, D]) -> similarity [A, B], symmetric.
    threshold: decision threshold in its unit; None leaves some metrics null.
    seed: of the one-shot draws and of the bootstrap.
    draws: number of one-shot draws of references.
    ways: people in a one-shot draw; all people where there are fewer.
    resamples: number of bootstrap resamples of people.
    level: coverage of the intervals, 0..1.
    bins: of scores, for the intervals alone.

  Returns:
    As `protocols.verification_report`, and `binning`: bins, resamples and
    error, the most that an interval's end may be off for it; null without
    intervals.

  Raises:
    ValueError: as there.

  Degenerate input: as there.
  """
  people, index = checks.number(checks.check_ids("identity_ids", identity_ids))
  if people.size < 2 or people.size == index.size:
    raise ValueError(
      "identity_ids must name two people or more, one of them twice, got "
      f"{people.size} people in {index.size} images"
    )
  pairs = compare_all(np.asarray(embeddings), index, matrix)
  ids = np.sort(index)
  ranks = identification.rank_counts_of(
    pairs.block, np.arange(people.size), ids,
    seed=seed, draws=draws, ways=min(ways, people.size),
  )  # fmt: skip
  measured = protocols.Measured(
    count(pairs, threshold), ranks, triplets.count_triplets_of(pairs.row, ids)
  )
  table = _table(pairs, measured.counts, threshold, bins)
  # From here on the bins are enough, in half of the memory.
  del pairs
  bootstrap = _bootstrap(table, people.size, threshold, resamples, level, seed)
  result = protocols.report_of(
    measured, bootstrap, ids, threshold,
    resamples=resamples, level=level, seed=seed,
  )  # fmt: skip
  error = bootstrap.binning_error
  result["binning"] = (
    None
    if error is None
    else {"bins": bins, "resamples": resamples, "error": error}
  )
  return result


def _table(
  pairs: Condensed,
  counts: tally_lib.Tally,
  threshold: float | None,
  bins: int,
) -> resampling.Table:
  cuts = [] if threshold is None else [threshold]
  values = counts.values[resampling.first_of_groups(counts, cuts, bins)]
  binned = _Binned(pairs, values)
  return resampling.Table(values, binned.genuine, binned.impostor)


def _bootstrap(
  table: resampling.Table,
  people: int,
  threshold: float | None,
  resamples: int,
  level: float,
  seed: int,
) -> calibration.Bootstrap:
  """Intervals over people, as `calibration.person_bootstrap` in bins."""
  if people < calibration.MIN_PEOPLE:
    return calibration.Bootstrap(
      None,
      f"an interval needs at least {calibration.MIN_PEOPLE} people, these "
      f"pairs have {people}",
    )
  drawn = resampling.draw([table], people, resamples=resamples, seed=seed)
  return calibration.summarised(
    (resample.tallies[0] for resample in drawn),
    lambda some: tally_lib.summary_of(some, threshold, protocols.TAR_TARGETS),
    num_people=people,
    resamples=resamples,
    level=level,
    binned=True,
  )
