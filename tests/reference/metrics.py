"""Slow references for the metrics: plain float64 loops over the definitions."""

import math


def fmr_fnmr(scores, same, threshold):
  """Counts errors pair by pair; a score at the threshold is accepted."""
  false_match = false_non_match = genuine = impostor = 0
  for score, label in zip(scores, same, strict=True):
    if label:
      genuine += 1
      if score < threshold:
        false_non_match += 1
    else:
      impostor += 1
      if score >= threshold:
        false_match += 1
  return false_match / impostor, false_non_match / genuine


def auc(scores, same):
  """Compares every genuine with every impostor pair."""
  won = compared = 0.0
  for a, label_a in zip(scores, same, strict=True):
    for b, label_b in zip(scores, same, strict=True):
      if label_a and not label_b:
        compared += 1
        if a > b:
          won += 1
        elif a == b:
          won += 0.5
  return won / compared


def points(scores, same):
  """(FMR, FNMR) at a threshold above all scores, then at each score."""
  thresholds = [math.inf]
  for score in sorted(scores, reverse=True):
    if score != thresholds[-1]:
      thresholds.append(score)
  return [fmr_fnmr(scores, same, t) for t in thresholds]


def _crossing(a, b):
  """Where the segment between points a and b meets FMR = FNMR, or None."""
  gap_a, gap_b = a[0] - a[1], b[0] - b[1]
  if gap_a > 0 or gap_b < 0 or gap_a == gap_b:
    return None
  share = -gap_a / (gap_b - gap_a)
  return a[0] + share * (b[0] - a[0])


def eer_raw(scores, same):
  """First crossing of the curve itself."""
  curve = points(scores, same)
  for a, b in zip(curve, curve[1:], strict=False):
    crossing = _crossing(a, b)
    if crossing is not None:
      return crossing
  raise AssertionError("the curve always crosses")


def eer_rocch(scores, same):
  """Lowest crossing of any chord between two points of the curve."""
  curve = points(scores, same)
  best = 1.0
  for n, a in enumerate(curve):
    for b in curve[n + 1 :]:
      crossing = _crossing(a, b)
      if crossing is not None:
        best = min(best, crossing)
  return best


def tar_at_far(scores, same, target):
  """Highest TAR, and its threshold, over observed scores within the target."""
  best_tar, best_threshold = 0.0, None
  for threshold in sorted(scores, reverse=True):
    fmr, fnmr = fmr_fnmr(scores, same, threshold)
    if fmr <= target:
      best_tar, best_threshold = 1 - fnmr, threshold
  return best_tar, best_threshold


def resampled_pairs(scores, people_a, people_b, drawn):
  """(score, same) of each pair of a bootstrap, copy by copy.

  `drawn` lists the people of the resample, with repetitions; a pair between two
  copies of one person is dropped.
  """
  pairs = []
  for score, a, b in zip(scores, people_a, people_b, strict=True):
    for copy_a, person_a in enumerate(drawn):
      for copy_b, person_b in enumerate(drawn):
        if person_a != a or person_b != b:
          continue
        if a == b and copy_a != copy_b:
          continue
        pairs.append((score, int(a == b)))
  return pairs


def best_threshold(scores, same):
  """Highest of the thresholds, between scores, with the most right decisions.

  The next number above the highest score, midpoints, and the lowest score.
  """
  values = sorted(set(scores), reverse=True)
  above = math.nextafter(values[0], math.inf)
  middles = [(a + b) / 2 for a, b in zip(values, values[1:], strict=False)]
  best, right = None, -1
  for threshold in [above, *middles, values[-1]]:
    decisions = [
      (score >= threshold) == bool(label)
      for score, label in zip(scores, same, strict=True)
    ]
    if sum(decisions) > right:
      best, right = threshold, sum(decisions)
  return best


def k_fold(scores, same, folds):
  """(mean, standard error, accuracies, thresholds), fold by fold."""
  accuracies, thresholds = [], []
  rows = list(zip(scores, same, folds, strict=True))
  for fold in sorted(set(folds)):
    rest = [row for row in rows if row[2] != fold]
    threshold = best_threshold([r[0] for r in rest], [r[1] for r in rest])
    own = [row for row in rows if row[2] == fold]
    right = [(score >= threshold) == bool(label) for score, label, _ in own]
    accuracies.append(sum(right) / len(right))
    thresholds.append(threshold)
  num = len(accuracies)
  mean = sum(accuracies) / num
  variance = sum((a - mean) ** 2 for a in accuracies) / (num - 1)
  return mean, math.sqrt(variance / num), accuracies, thresholds


def distances(values, limits):
  """(mean, sd, shares below the limits, count) of one kind of pair."""
  num = len(values)
  mean = sum(values) / num
  sd = math.sqrt(sum((value - mean) ** 2 for value in values) / num)
  shares = [sum(1 for v in values if v < limit) / num for limit in limits]
  return mean, sd, shares, num


def log_density(x, mean, sd):
  """Logarithm of the normal density, less a constant."""
  return -0.5 * ((x - mean) / sd) ** 2 - math.log(sd)


def gaussian_crossing(mean_a, sd_a, mean_b, sd_b):
  """Bisection between the means for equal density."""
  gap = lambda x: log_density(x, mean_a, sd_a) - log_density(x, mean_b, sd_b)
  low, high = mean_a, mean_b
  for _ in range(200):
    middle = (low + high) / 2
    low, high = (middle, high) if gap(middle) > 0 else (low, middle)
  return (low + high) / 2


def expected_one_shot(similarity, identity_ids):
  """Mean one-shot accuracy over every possible choice of references.

  For a probe and a reference of the same person, the chance that nobody else's
  random reference scores as high is a product over the other people.
  """
  members = {}
  for row, person in enumerate(identity_ids):
    members.setdefault(person, []).append(row)
  right = probes = 0.0
  for person, rows in members.items():
    total = 0.0
    for probe in rows:
      for own in rows:
        if own == probe:
          continue
        chance = 1.0
        for other, other_rows in members.items():
          if other == person:
            continue
          below = 0
          for row in other_rows:
            if similarity[probe][row] < similarity[probe][own]:
              below += 1
          chance *= below / len(other_rows)
        total += chance
    # Each draw takes one of the n images as reference, all equally likely.
    right += total / len(rows)
    probes += len(rows) - 1
  return right / probes
