"""Plausible mistakes in accuracies, distance statistics and thresholds."""

import functools

import numpy as np
from reference import metric_cases, metrics_people
from reference import metrics as reference
from variants import Variants

from facesiam_jax import metrics

_CLOSE = {"rtol": 1e-12, "atol": 1e-12}
# (genuine mean, sd, impostor mean, sd): document 3's, similarity, steep, flat.
_NORMALS = [
  (2.592, 0.979, 4.779, 1.726),
  (0.6, 0.15, 0.1, 0.08),
  (0.0, 1.0, 1.0, 1.0),
  (3.0, 0.5, -2.0, 2.5),
  (1.0, 2.0, 9.0, 0.3),
]


def _folds(size):
  return np.arange(size) * 7 % 4


def check_k_fold_accuracy(function):
  for scores, same in metric_cases.PAIRS[:8]:
    folds = _folds(scores.size)
    found = function(scores, same, folds)
    mean, error, accuracies, thresholds = reference.k_fold(scores, same, folds)
    np.testing.assert_allclose(found[2], accuracies, **_CLOSE)
    np.testing.assert_allclose(found[3], thresholds, **_CLOSE)
    np.testing.assert_allclose(found[:2], [mean, error], **_CLOSE)


def _k_fold(
  scores, same, folds, ddof=1, root=True, swap=False, chosen="rest", tie=0
):
  accuracies, thresholds = [], []
  for fold in np.unique(folds):
    own = folds == fold
    fit = {"rest": ~own, "own": own, "all": own | True}[chosen]
    test = ~own if swap else own
    values = np.unique(scores[fit])[::-1]
    middles = np.append((values[1:] + values[:-1]) / 2, values[-1])
    candidates = np.append(np.nextafter(values[0], np.inf), middles)
    right = (scores[fit] >= candidates[:, None]) == same[fit].astype(bool)
    best = np.flatnonzero(right.sum(1) == right.sum(1).max())[tie]
    thresholds.append(candidates[best])
    decided = scores[test] >= thresholds[-1]
    accuracies.append(np.mean(decided == same[test].astype(bool)))
  sd = np.std(accuracies, ddof=ddof)
  error = sd / len(accuracies) ** 0.5 if root else sd
  return np.mean(accuracies), error, accuracies, thresholds


def check_triplet_accuracy(function):
  rng = np.random.default_rng(0)
  positive, negative = rng.integers(0, 6, size=(2, 37)) / 4
  right = [p < n for p, n in zip(positive, negative, strict=True)]
  np.testing.assert_allclose(
    function(positive, negative), sum(right) / 37, **_CLOSE
  )


def _flat(statistics):
  return [
    np.append([kind[0], kind[1], kind[3]], kind[2]) for kind in statistics
  ]


def check_distance_statistics(function):
  scores, same = metric_cases.PAIRS[0]
  limits = [0.5, 2.0, -0.5]
  expected = [
    reference.distances(
      [s for s, y in zip(scores, same, strict=True) if y == k], limits
    )
    for k in (1, 0)
  ]
  found = function(scores, same, below=limits)
  np.testing.assert_allclose(_flat(found), _flat(expected), **_CLOSE)


def _statistics(scores, same, below, ddof=0, compare=np.less, kinds=(1, 0)):
  result = []
  for kind in kinds:
    own = scores[same == kind]
    shares = [np.mean(compare(own, limit)) for limit in below]
    result.append((own.mean(), own.std(ddof=ddof), shares, own.size))
  return result


def check_gaussian_threshold(function):
  for genuine_mean, genuine_sd, impostor_mean, impostor_sd in _NORMALS:
    found = function(
      genuine_mean=genuine_mean,
      genuine_sd=genuine_sd,
      impostor_mean=impostor_mean,
      impostor_sd=impostor_sd,
    )
    expected = reference.gaussian_crossing(
      genuine_mean, genuine_sd, impostor_mean, impostor_sd
    )
    np.testing.assert_allclose(found, expected, **_CLOSE)


def _root(genuine_mean, genuine_sd, impostor_mean, impostor_sd, which=1, log=2):
  """A root of the quadratic, both sides written out; 1 takes the right one."""
  a = 1 / genuine_sd**2 - 1 / impostor_sd**2
  b = -2 * (genuine_mean / genuine_sd**2 - impostor_mean / impostor_sd**2)
  c = (genuine_mean / genuine_sd) ** 2 - (impostor_mean / impostor_sd) ** 2
  c += log * np.log(genuine_sd / impostor_sd)
  if a == 0:
    return -c / b
  which *= np.sign(impostor_mean - genuine_mean)
  # Python's power: a missing root is complex, not an error.
  root = (-b + which * complex(b * b - 4 * a * c) ** 0.5) / (2 * a)
  return float(np.real(root))


def _first_root(genuine_mean, genuine_sd, impostor_mean, impostor_sd):
  which = np.sign(impostor_mean - genuine_mean)
  return _root(
    genuine_mean, genuine_sd, impostor_mean, impostor_sd, which=which
  )


def check_fit_gaussian_threshold(function):
  for scores, same in metric_cases.PAIRS[:8]:
    genuine, impostor = (
      reference.distances(list(scores[same == kind]), [])[:2] for kind in (1, 0)
    )
    crossing = reference.gaussian_crossing(*genuine, *impostor)
    expected = [crossing, *genuine, *impostor]
    np.testing.assert_allclose(function(scores, same), expected, **_CLOSE)


def _fit(scores, same, ddof=0, middle=np.mean, one_sd=False):
  genuine, impostor = scores[same == 1], scores[same == 0]
  sds = [genuine.std(ddof=ddof), impostor.std(ddof=ddof)]
  if one_sd:
    sds = [np.std(scores)] * 2
  moments = [middle(genuine), sds[0], middle(impostor), sds[1]]
  return [_root(*moments), *moments]


@functools.cache
def _many_people():
  """Scores of 36 people, some with two images, and what is expected there."""
  rng = np.random.default_rng(0)
  ids = np.append(np.arange(36), np.arange(9))
  i, j = np.triu_indices(ids.size, 1)
  a, b = ids[i], ids[j]
  scores = np.round(rng.normal(size=i.size) + 2 * (a == b), 2)
  expected = {}
  for target in (0.06, 0.3):
    _, threshold = reference.tar_at_far(scores, a == b, target)
    evidence = metrics_people.support(scores, a, b, threshold)
    expected[target] = (threshold, *evidence)
  return scores, a, b, expected


def check_supported_threshold_at_fmr(function):
  scores, a, b, expected = _many_people()
  for target, values in expected.items():
    found = function(scores, a, b, target)
    np.testing.assert_allclose(found, values, **_CLOSE)


def _supported(scores, a, b, target, strict=False, swap=False, count="pairs"):
  found = metrics.supported_threshold_at_fmr(scores, a, b, target)
  threshold = found.threshold
  if strict:
    threshold = np.nextafter(threshold, np.inf)
  wrong = (a != b) & (scores >= threshold)
  impostor = a != b
  ends = np.sort([a[wrong], b[wrong]], axis=0) if not swap else [a[wrong]] * 2
  pairs = len(set(zip(*ends, strict=True)))
  people = len({*a[wrong], *b[wrong]})
  return (
    threshold,
    wrong.sum() / (impostor.sum() if count != "all" else a.size),
    wrong.sum(),
    wrong.sum() if count == "images" else pairs,
    people if count == "people" else found.people,
  )


VARIANTS = {
  "metrics.k_fold_accuracy": Variants(
    metrics.k_fold_accuracy,
    check_k_fold_accuracy,
    {
      "population standard deviation": functools.partial(_k_fold, ddof=0),
      "not divided by the root": functools.partial(_k_fold, root=False),
      "threshold of the fold itself": functools.partial(_k_fold, chosen="own"),
      "threshold of all folds": functools.partial(_k_fold, chosen="all"),
      "tested on the other folds": functools.partial(_k_fold, swap=True),
      "lowest of equal thresholds": functools.partial(_k_fold, tie=-1),
      "labels flipped": lambda s, y, f: metrics.k_fold_accuracy(s, 1 - y, f),
    },
  ),
  "metrics.triplet_accuracy": Variants(
    metrics.triplet_accuracy,
    check_triplet_accuracy,
    {
      "ties are right": lambda p, n: np.mean(p <= n),
      "roles swapped": lambda p, n: np.mean(n < p),
      "a margin": lambda p, n: np.mean(p + 0.3 < n),
      "every positive against every negative": lambda p, n: np.mean(
        p[:, None] < n
      ),
      "a number, not a share": lambda p, n: np.sum(p < n),
    },
  ),
  "metrics.distance_statistics": Variants(
    metrics.distance_statistics,
    check_distance_statistics,
    {
      "sample standard deviation": functools.partial(_statistics, ddof=1),
      "kinds swapped": functools.partial(_statistics, kinds=(0, 1)),
      "above for below": functools.partial(_statistics, compare=np.greater),
      "limits sorted": lambda *a, below: _statistics(*a, sorted(below)),
      "variance": lambda *a, below: [
        (m, sd**2, shares, n) for m, sd, shares, n in _statistics(*a, below)
      ],
    },
  ),
  "metrics.gaussian_threshold": Variants(
    metrics.gaussian_threshold,
    check_gaussian_threshold,
    {
      "midpoint": lambda **m: (m["genuine_mean"] + m["impostor_mean"]) / 2,
      "other root": lambda **m: _root(**m, which=-1),
      "first root, whichever": lambda **m: _first_root(**m),
      "equal error rate": lambda **m: (
        (
          m["genuine_mean"] * m["impostor_sd"]
          + m["impostor_mean"] * m["genuine_sd"]
        )
        / (m["impostor_sd"] + m["genuine_sd"])
      ),
      "without the logarithms": lambda **m: _root(**m, log=0),
      "half the logarithms": lambda **m: _root(**m, log=1),
      "variance for sd": lambda **m: metrics.gaussian_threshold(
        **{k: v**2 if k.endswith("sd") else v for k, v in m.items()}
      ),
    },
  ),
  "metrics.fit_gaussian_threshold": Variants(
    metrics.fit_gaussian_threshold,
    check_fit_gaussian_threshold,
    {
      "sample standard deviation": functools.partial(_fit, ddof=1),
      "median for mean": functools.partial(_fit, middle=np.median),
      "one spread for both": functools.partial(_fit, one_sd=True),
      "kinds swapped": lambda s, y: metrics.fit_gaussian_threshold(s, 1 - y),
      "negated": lambda s, y: metrics.fit_gaussian_threshold(-s, y),
    },
  ),
  "metrics.supported_threshold_at_fmr": Variants(
    metrics.supported_threshold_at_fmr,
    check_supported_threshold_at_fmr,
    {
      "above the threshold only": functools.partial(_supported, strict=True),
      "one end counted": functools.partial(_supported, swap=True),
      "share of all pairs": functools.partial(_supported, count="all"),
      "images for people": functools.partial(_supported, count="images"),
      "people of errors": functools.partial(_supported, count="people"),
      "genuine scores": lambda s, a, b, t: metrics.supported_threshold_at_fmr(
        -s, a, b, t
      ),
    },
  ),
}
