"""What a bundle records of strangers, for galleries of any size.

The false match rate over a range of thresholds, from pairs, and as far as the
people suffice the false positive identification rate in galleries drawn of
them.
"""

from typing import Any

import numpy as np

from facesiam_jax import metrics
from facesiam_jax.metrics import tally
from facesiam_jax.metrics import thresholds as thresholds_lib
from facesiam_jax.training import calibrate

_STEPS = (5, 2, 1)
# Images that search each other's galleries, and galleries a size: what time
# and memory allow.
_MOST_IMAGES = 2000
_DRAWS = 10


def _series(least: float) -> list[float]:
  """Returns 0.5, 0.2, 0.1, 0.05, ... down to `least`, that included."""
  steps = [n * 10.0**-p for p in range(1, 10) for n in _STEPS]
  return [step for step in steps if step > least] + [least]


def _sizes(num_people: int) -> list[int]:
  """Returns 1, 2, 5, 10, ... up to all people but one, that included."""
  most = num_people - 1
  steps = [n * 10**p for p in range(6) for n in (1, 2, 5)]
  return [step for step in steps if step < most] + [most] * (most > 0)


def largest_square(
  values: np.ndarray, people_a: np.ndarray, people_b: np.ndarray
) -> tuple[np.ndarray, np.ndarray] | None:
  """Returns the largest group of images of which every pair was scored.

  Args:
    values: of the pairs (0, 1), (0, 2), ..., (1, 2), ... of the images of one
      group after another, float [P]; no person is in two groups.
    people_a: person of the first image, int [P].
    people_b: person of the second image, int [P].

  Returns:
    (similarity float64 [N, N], people [N]); None for pairs in another order.
  """
  best, start = None, 0
  while start < len(values):
    own = people_a == people_a[start]
    members = np.append(people_b[own], people_a[start])
    inside = np.flatnonzero(np.isin(people_a, members))
    count = round((1 + (1 + 8 * len(inside)) ** 0.5) / 2)
    stop = start + len(inside)
    if count * (count - 1) // 2 != len(inside) or inside[-1] != stop - 1:
      return None
    i, j = np.triu_indices(count, 1)
    people = np.append(people_a[start], people_b[start : start + count - 1])
    if (people[i] != people_a[start:stop]).any() or (
      people[j] != people_b[start:stop]
    ).any():
      return None
    if best is None or count > len(best[1]):
      similarity = np.zeros((count, count))
      similarity[i, j] = similarity[j, i] = values[start:stop]
      best = similarity, people
    start = stop
  return best


def _some_of(
  square: tuple[np.ndarray, np.ndarray] | None,
) -> tuple[np.ndarray, np.ndarray] | None:
  if square is None or len(square[1]) <= _MOST_IMAGES:
    return square
  rng = np.random.default_rng(0)
  kept = rng.choice(len(square[1]), _MOST_IMAGES, replace=False)
  return square[0][np.ix_(kept, kept)], square[1][kept]


def record(
  logits: np.ndarray,
  scores: calibrate.Scores,
  found: dict[str, dict[str, Any]],
) -> dict[str, Any]:
  """Measures false positives for `bundle.json`.

  Args:
    logits: of the pairs of `scores`, float32 [P].
    scores: of people that the network had not seen.
    found: the thresholds that were chosen, from `calibrate.thresholds`.

  Returns:
    "logits", rising, and "fmr" there; "smallest_fmr", the least that the people
    can carry, None where they carry none; "sizes" of the galleries tested, up
    to all people but one, with "fpir", "low" and "high" [size][logit] (the
    latter two None, and a "reason", where there are too few people); and the
    number of "people".
  """
  ends = scores.people_a, scores.people_b
  smallest = thresholds_lib.smallest_supported_fmr(logits, *ends)
  counts = tally.tally(logits, scores.same)
  least = smallest or 1 / max(1, counts.num_impostor)
  points = {threshold["logit"] for threshold in found.values()}
  points |= {
    float(tally.tar_at_far_of(counts, target).threshold)
    for target in _series(least)
  }
  at = sorted(point for point in points if np.isfinite(point))
  rates = [float(tally.error_rates_of(counts, point).fmr) for point in at]
  square = _some_of(largest_square(logits, *ends))
  sizes = _sizes(0 if square is None else len(np.unique(square[1])))
  result = {"logits": at, "fmr": rates, "smallest_fmr": smallest}
  if not sizes or square is None:
    return {**result, "sizes": [], "people": 0}
  measured = metrics.fpir_by_size(*square, at, sizes, draws=_DRAWS)
  rounded = lambda x: None if x is None else np.round(x, 6).tolist()
  return {
    **result,
    "sizes": sizes,
    "fpir": rounded(measured.fpir),
    "low": rounded(measured.low),
    "high": rounded(measured.high),
    "reason": measured.reason,
    "people": measured.people,
  }
