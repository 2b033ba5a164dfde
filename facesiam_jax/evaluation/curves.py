"""What the curves of a report show: bands, ranks, strangers, reliability.

Numbers only; `curve_figures` draws them.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from facesiam_jax.metrics import calibration, checks, open_set, resampling
from facesiam_jax.metrics import tally as tally_lib

_GRID = np.unique(
  np.concatenate([np.geomspace(1e-5, 1, 101), np.linspace(0, 1, 51)])
)
_FPIR = np.geomspace(1e-3, 1, 61)
_DENSITY_POINTS = 400


class Bands(NamedTuple):
  """Intervals over people of the curves.

  Attributes:
    fmr: false match rates, float64 [M], rising.
    tar: ends of the true accept rate there, float64 [2, M].
    shares: ends of the share of genuine pairs in each bin of `reliability`,
      float64 [2, bins]; NaN where resamples had no pair.
  """

  fmr: np.ndarray
  tar: np.ndarray
  shares: np.ndarray


class Reliability(NamedTuple):
  """Probabilities at even odds against what they came to.

  Attributes:
    predicted: mean probability in each bin, float64 [bins]; NaN without pairs.
    observed: share of genuine pairs in it, both kinds weighted alike.
    weight: share of all (weighted) pairs in it.
  """

  predicted: np.ndarray
  observed: np.ndarray
  weight: np.ndarray

  @property
  def ece(self) -> float:
    """Expected calibration error of these bins at even odds, 0..1."""
    gap = np.abs(self.predicted - self.observed)
    return float(np.nansum(self.weight * gap))


class OpenSetBand(NamedTuple):
  """FNIR by FPIR over random galleries, float64 [M] each."""

  fpir: np.ndarray
  mean: np.ndarray
  low: np.ndarray
  high: np.ndarray


def bands(
  logits: ArrayLike,
  people_a: ArrayLike,
  people_b: ArrayLike,
  *,
  resamples: int = 200,
  level: float = 0.95,
  seed: int = 0,
  bins: int = 10,
) -> Bands | None:
  """Computes pointwise intervals by drawing people with replacement.

  Args:
    logits: score of each pair, float [P].
    people_a: person at one end of each pair, int [P].
    people_b: person at the other end, int [P].
    resamples: number of resamples.
    level: coverage at each point, 0..1.
    seed: of the draws.
    bins: of the probability at even odds.

  Returns:
    The Bands; None with fewer people than an interval needs.

  Raises:
    ValueError: as `metrics.person_bootstrap`.
  """
  scores = np.asarray(logits)
  known, ends = checks.check_ends(people_a, people_b, scores.shape)
  scores, same = checks.check_pairs(scores, ends[0] == ends[1])
  if known.size < calibration.MIN_PEOPLE:
    return None
  edges = _edges(bins)
  rates, shares = [], []
  for resample in resampling.resamples_of(
    [scores], same, ends, known.size,
    resamples=resamples, seed=seed, cuts=[edges.tolist()],
  ):  # fmt: skip
    (counts,) = resample.tallies
    rates.append(tars_of(counts, _GRID))
    shares.append(_observed(counts, edges)[0])
  tails = [(1 - level) / 2, (1 + level) / 2]
  table = np.array(shares)
  empty = np.isnan(table).all(axis=0)
  table[:, empty] = 0.0
  share_ends = np.nanquantile(table, tails, axis=0)
  share_ends[:, empty] = np.nan
  return Bands(_GRID, np.quantile(rates, tails, axis=0), share_ends)


def tars_of(counts: tally_lib.Tally, fmrs: np.ndarray) -> np.ndarray:
  """True accept rates at false match rates of at most `fmrs`, float64 [M]."""
  accepts, rejects = tally_lib.operating_points(counts)
  k = np.searchsorted(accepts / accepts[-1], fmrs, side="right") - 1
  return 1 - rejects[k] / rejects[0]


def _edges(bins: int) -> np.ndarray:
  """Logits between bins of equal width in probability, float64 [bins - 1]."""
  inner = np.arange(1, bins) / bins
  return np.log(inner) - np.log1p(-inner)


def _observed(
  counts: tally_lib.Tally, edges: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Share of genuine pairs in each bin at even odds; the bin's weight."""
  place = np.searchsorted(edges, counts.values, side="right")
  genuine, impostor = (
    np.bincount(place, some, edges.size + 1) / some.sum()
    for some in (counts.genuine, counts.impostor)
  )
  both = genuine + impostor
  observed = np.full(both.size, np.nan)
  np.divide(genuine, both, out=observed, where=both > 0)
  return observed, both / 2


def reliability(
  logits: ArrayLike, same: ArrayLike, *, bins: int = 10
) -> Reliability:
  """Compares the probabilities of a calibrated bundle with what came true.

  At even odds, so that it does not depend on how many pairs are genuine: each
  kind of pair has half of the weight.

  Args:
    logits: log likelihood ratio of "same person" of each pair, float [P].
    same: 1 = same person, 0 = not, [P].
    bins: of equal width in probability.

  Returns:
    The Reliability.

  Raises:
    ValueError: as `metrics.roc`.
  """
  scores, labels = checks.check_pairs(logits, same)
  edges = _edges(bins)
  observed, weight = _observed(tally_lib.tally(scores, labels), edges)
  place = np.searchsorted(edges, scores, side="right")
  each = np.where(labels, 0.5 / labels.sum(), 0.5 / (~labels).sum())
  small = np.exp(-np.abs(scores.astype(np.float64)))
  probability = np.where(scores < 0, small, 1.0) / (1 + small)
  sums = np.bincount(place, each * probability, bins)
  predicted = np.full(bins, np.nan)
  np.divide(sums, weight, out=predicted, where=weight > 0)
  return Reliability(predicted, observed, weight)


def open_set_band(
  similarity: ArrayLike,
  identity_ids: ArrayLike,
  *,
  draws: int = 20,
  seed: int = 0,
) -> OpenSetBand | None:
  """Enrols half of the people with one photo each; everybody else is a probe.

  Args:
    similarity: float [N, N], bigger is closer.
    identity_ids: person of each image, int [N].
    draws: random galleries.
    seed: of the draws.

  Returns:
    The OpenSetBand: mean and range over the galleries (no confidence interval:
    they share people). None where fewer than two people have two images, or
    there are fewer than four people.
  """
  similarity, ids = np.asarray(similarity), np.asarray(identity_ids)
  people, counts = np.unique(ids, return_counts=True)
  several = people[counts > 1]
  enrolled = min(len(people) // 2, len(several))
  if len(people) < 4 or enrolled < 2:
    return None
  rng = np.random.default_rng(seed)
  found = []
  for _ in range(draws):
    chosen = rng.permutation(several)[:enrolled]
    gallery = np.array([rng.choice(np.flatnonzero(ids == p)) for p in chosen])
    probes = np.delete(np.arange(ids.size), gallery)
    curve = open_set.open_set_curve(
      similarity[np.ix_(probes, gallery)], ids[probes], ids[gallery]
    )
    k = np.searchsorted(curve.fpir, _FPIR, side="right") - 1
    found.append(curve.fnir[k])
  table = np.array(found)
  return OpenSetBand(_FPIR, table.mean(0), table.min(0), table.max(0))


def distances(embeddings: ArrayLike) -> np.ndarray:
  """Euclidean distances of all pairs (0, 1), (0, 2), ..., float64 [P]."""
  rows = np.asarray(embeddings, np.float64)
  squares = np.square(rows).sum(axis=1)
  every = squares[:, None] + squares - 2 * (rows @ rows.T)
  return np.sqrt(np.maximum(every[np.triu_indices(len(rows), 1)], 0))


def density(values: ArrayLike) -> tuple[np.ndarray, np.ndarray] | None:
  """Estimates a density by a Gaussian kernel of Silverman's width.

  Args:
    values: float [P].

  Returns:
    (places, density), float64 [400] each; None where all values are equal. The
    values are binned first, finer than the kernel is wide.
  """
  values = np.asarray(values, np.float64)
  low, high = values.min(), values.max()
  quartiles = np.quantile(values, [0.25, 0.75])
  spread = min(values.std(), np.ptp(quartiles) / 1.349) or values.std()
  if not spread > 0:
    return None
  width = 0.9 * spread * values.size**-0.2
  low, high = low - 4 * width, high + 4 * width
  size = max(_DENSITY_POINTS, int(np.ceil((high - low) / width * 8)))
  counts, edges = np.histogram(values, size, (low, high))
  step = edges[1] - edges[0]
  reach = int(np.ceil(4 * width / step))
  kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) * step / width) ** 2)
  smooth = np.convolve(counts, kernel / kernel.sum(), "same")
  places = np.linspace(low, high, _DENSITY_POINTS)
  middles = (edges[:-1] + edges[1:]) / 2
  return places, np.interp(places, middles, smooth / (values.size * step))


def principal_plane(embeddings: ArrayLike) -> tuple[np.ndarray, float]:
  """Projects embeddings onto their two first principal components.

  Args:
    embeddings: float [N, D], D >= 2.

  Returns:
    (float64 [N, 2], share of the variance that lies in them, 0..1); the sign of
    each axis makes its largest weight positive.
  """
  rows = np.asarray(embeddings, np.float64)
  centred = rows - rows.mean(axis=0)
  values, axes = np.linalg.eigh(centred.T @ centred)
  plane = axes[:, [-1, -2]]
  largest = np.abs(plane).argmax(axis=0)
  plane = plane * np.sign(plane[largest, [0, 1]])
  total = values.sum()
  share = float(values[-2:].sum() / total) if total > 0 else 1.0
  return centred @ plane, share
