"""The triplet protocol: order of distances, their moments, a threshold.

Pure functions of distances and of who is who.

References: Schroff et al. 2015, FaceNet; Duda, Hart and Stork 2001, Pattern
classification, section 2.6.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from facesiam_jax.evaluation import protocols
from facesiam_jax.evaluation import triplets as triplets_lib
from facesiam_jax.metrics import accuracy, thresholds
from facesiam_jax.metrics.calibration import MIN_PEOPLE


def triplet_report(
  distances: ArrayLike,
  identity_ids: ArrayLike,
  *,
  near: float = 1.0,
  level: float = 0.95,
  seed: int = 0,
) -> dict[str, Any]:
  """Measures all triplets and all pairs by their distances.

  Batch meaning: all images together make one result.

  Args:
    distances: image against image, float [N, N], symmetric; smaller is closer.
    identity_ids: person of each image, int [N].
    near: distance below which a positive counts as near.
    level: of the interval, inside 0..1.
    seed: of the interval's bootstrap.

  Returns:
    A dict that JSON can hold: triplet_accuracy (positive < negative, over all
    triplets), genuine_below and impostor_below (shares of pairs nearer than
    `near`), genuine_mean, genuine_sd, impostor_mean, impostor_sd (over all
    pairs, ddof 0), `maximum_likelihood`: threshold, fmr, fnmr and accuracy of
    normal densities, or null with a reason; `interval` of triplet_accuracy or
    null below 30 people; `counts`.

  Raises:
    ValueError: for a wrong shape, NaN, or without a triplet.

  Degenerate input: equal distances count as wrong.
  Example:
    >>> places = np.array([0.0, 0.5, 3.0, 3.25])
    >>> found = triplet_report(abs(places[:, None] - places), [5, 5, 7, 7])
    >>> found["triplet_accuracy"], found["genuine_below"], found["genuine_mean"]
    (1.0, 1.0, 0.375)

  References: Schroff et al. 2015, FaceNet; Duda, Hart and Stork 2001.
  """
  matrix, ids = np.asarray(distances), np.asarray(identity_ids)
  found = triplets_lib.count_triplets(-matrix, ids)
  pairs = protocols.all_pairs(ids)
  values = matrix[pairs.i, pairs.j]
  of = accuracy.distance_statistics(values, pairs.same, below=[near])
  people = int(np.unique(ids).size)
  result: dict[str, Any] = {
    "triplet_accuracy": found.accuracy,
    "near": near,
    "interval": None,
    "interval_reason": f"fewer than {MIN_PEOPLE} people: {people}",
    "counts": {
      "people": people,
      "images": int(ids.size),
      "triplets": int(found.all.sum()),
      "genuine": of.genuine.num_pairs,
      "impostor": of.impostor.num_pairs,
    },
  }
  for kind, one in of._asdict().items():
    result |= {f"{kind}_mean": one.mean, f"{kind}_sd": one.sd}
    result[f"{kind}_below"] = one.below[0]
  if people >= MIN_PEOPLE:
    ends = triplets_lib.triplet_interval(found, level=level, seed=seed)
    result["interval"] = {"level": level, "triplet_accuracy": ends}
    result["interval_reason"] = None
  result["maximum_likelihood"] = _likeliest(of, values, pairs.same == 1)
  return result


def _likeliest(
  of: accuracy.DistanceStatistics, values: np.ndarray, same: np.ndarray
) -> dict[str, Any]:
  try:
    threshold = thresholds.gaussian_threshold(
      genuine_mean=of.genuine.mean,
      genuine_sd=of.genuine.sd,
      impostor_mean=of.impostor.mean,
      impostor_sd=of.impostor.sd,
    )
  except ValueError as error:
    return {"threshold": None, "reason": str(error)}
  near = values <= threshold
  return {
    "threshold": threshold,
    "fmr": float(near[~same].mean()),
    "fnmr": float((~near[same]).mean()),
    "accuracy": float((near == same).mean()),
    "reason": None,
  }
