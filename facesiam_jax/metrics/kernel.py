"""The maximum-likelihood threshold of scores that are not normal."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from facesiam_jax.metrics import tally as tally_lib

_GRID = 4096
# Beyond so many widths a normal kernel is below 1e-7 of its peak.
_REACH = 5.7


class KernelFit(NamedTuple):
  """Where two kernel densities cross, and the widths of their kernels."""

  threshold: float
  genuine_width: float
  impostor_width: float


def fit_kernel_threshold(scores: ArrayLike, same: ArrayLike) -> KernelFit:
  """Estimates a density for each kind of pair and finds where they cross.

  Normal kernels of Silverman's width, 0.9 min(sd, IQR / 1.349) n^(-1/5). Of all
  crossings between the two means the one is taken at which FMR + FNMR of the
  densities is least: the best single threshold at even odds.
  Batch meaning: all pairs together make one threshold.

  Args:
    scores: similarity of each pair, float [P], finite; bigger is closer.
    same: 1 = same person, 0 = not, [P].

  Returns:
    The KernelFit; the threshold lies between the two means.

  Raises:
    ValueError: naming the argument, for a wrong rank or length, NaN, infinity,
      labels other than 0 and 1, only one kind of pair, a kind whose scores are
      all equal, or genuine pairs that do not score higher on average.

  Degenerate input: where the kinds lie so far apart that between them both
  densities are 0, the middle of that gap.
  Example:
    >>> fit = fit_kernel_threshold([3.0, 4.0, 5.0, 0.0, 1.0, 2.0],
    ...                            [1, 1, 1, 0, 0, 0])
    >>> round(fit.threshold, 3)
    2.5

  References: Silverman 1986, Density estimation for statistics and data
  analysis, eq. 3.31.
  """
  return kernel_fit_of(tally_lib.tally(scores, same))


def kernel_fit_of(counts: tally_lib.Tally) -> KernelFit:
  """Returns `fit_kernel_threshold` of counted scores."""
  values = counts.values[::-1].astype(np.float64)
  kinds = counts.genuine[::-1], counts.impostor[::-1]
  widths = [
    _width(values, weights, name)
    for weights, name in zip(kinds, ("genuine", "impostor"), strict=True)
  ]
  high, low = (float(weights @ values / weights.sum()) for weights in kinds)
  if not high > low:
    raise ValueError(
      f"genuine scores, mean {high:g}, must be higher than impostor scores, "
      f"mean {low:g}"
    )
  margin = _REACH * max(widths)
  edges = np.linspace(low - margin, high + margin, _GRID + 1)
  genuine, impostor = (
    _shares(values, weights, width, edges)
    for weights, width in zip(kinds, widths, strict=True)
  )
  # FMR + FNMR at each edge, but for a constant.
  errors = np.append(0.0, np.cumsum(genuine - impostor))
  between = (edges >= low) & (edges <= high)
  least = errors[between].min()
  best = np.flatnonzero(between & (errors <= least + 1e-9))
  return KernelFit(float(edges[best].mean()), *widths)


def _width(values: np.ndarray, weights: np.ndarray, name: str) -> float:
  """Silverman's width of weighted values, which rise."""
  number = weights.sum()
  mean = weights @ values / number
  sd = float(np.sqrt(weights @ (values - mean) ** 2 / number))
  if not sd > 0:
    raise ValueError(f"{name} scores must differ from each other")
  places = np.searchsorted(np.cumsum(weights), [0.25 * number, 0.75 * number])
  spread = float(np.diff(values[places])[0]) / 1.349
  return 0.9 * (min(sd, spread) or sd) * float(number) ** -0.2


def _shares(
  values: np.ndarray, weights: np.ndarray, width: float, edges: np.ndarray
) -> np.ndarray:
  """Share of the smoothed density between neighbouring edges."""
  step = edges[1] - edges[0]
  # Values beyond the edges reach inside with their tails.
  reach = int(np.ceil(_REACH * width / step))
  place = np.floor((values - edges[0]) / step).astype(np.int64) + reach
  size = edges.size - 1 + 2 * reach
  inside = (place >= 0) & (place < size)
  counts = np.bincount(place[inside], weights[inside], size) / weights.sum()
  kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) * step / width) ** 2)
  return np.convolve(counts, kernel / kernel.sum(), "valid")
