"""Slow references for calibration, proper scores and score normalisation."""

import math

import numpy as np
from scipy import optimize, stats


def platt_gradient(w, b, scores, same):
  """Gradient of the balanced Platt loss, by the textbook formula."""
  num_genuine = sum(1 for label in same if label)
  num_impostor = len(same) - num_genuine
  in_w = in_b = 0.0
  for score, label in zip(scores, same, strict=True):
    p = 1 / (1 + math.exp(-(w * score + b)))
    if label:
      target, weight = (num_genuine + 1) / (num_genuine + 2), num_genuine
    else:
      target, weight = 1 / (num_impostor + 2), num_impostor
    in_w += (p - target) * score / (2 * weight)
    in_b += (p - target) / (2 * weight)
  return in_w, in_b


def cllr(logits, same):
  """Cost of the log likelihood ratio in bits (Bruemmer and du Preez 2006)."""
  costs = {True: [], False: []}
  for logit, label in zip(logits, same, strict=True):
    sign = -1 if label else 1
    costs[bool(label)].append(math.log2(1 + math.exp(sign * logit)))
  genuine, impostor = costs[True], costs[False]
  return (sum(genuine) / len(genuine) + sum(impostor) / len(impostor)) / 2


def pooled(scores, same):
  """Blocks [lowest, highest, genuine, impostor] by the textbook PAV."""
  blocks = []
  for score, label in sorted(zip(scores, same, strict=True)):
    if blocks and blocks[-1][1] == score:
      blocks[-1][2] += bool(label)
      blocks[-1][3] += not label
    else:
      blocks.append([score, score, int(bool(label)), int(not label)])
  place = 0
  while place + 1 < len(blocks):
    (low, _, g, i), (_, high, g2, i2) = blocks[place], blocks[place + 1]
    # A share that does not rise is pooled, and may then violate what is below.
    if g * (g2 + i2) >= g2 * (g + i):
      blocks[place : place + 2] = [[low, high, g + g2, i + i2]]
      place = max(place - 1, 0)
    else:
      place += 1
  return blocks


def min_cllr(scores, same):
  """C_llr of the pooled blocks' own likelihood ratios, pair by pair."""
  blocks = pooled(scores, same)
  num_g = sum(block[2] for block in blocks)
  num_i = sum(block[3] for block in blocks)
  cost = 0.0
  for _, _, g, i in blocks:
    if g and i:
      ratio = (g / num_g) / (i / num_i)
      cost += g * math.log2(1 + 1 / ratio) / num_g / 2
      cost += i * math.log2(1 + ratio) / num_i / 2
  return cost


def isotonic_llr(scores, same, at):
  """Log likelihood ratio at each score of `at`, with Laplace's four pairs."""
  below, above = min(scores) - 1, max(scores) + 1
  padded = [*scores, below, below, above, above]
  labels = [*same, 1, 0, 1, 0]
  prior = math.log((sum(map(bool, same)) + 2) / (len(same) - sum(same) + 2))
  knots = []
  for low, high, g, i in pooled(padded, labels):
    low, high = max(low, min(scores)), min(high, max(scores))
    if low <= high:
      knots.append((low, high, math.log(g / i) - prior))
  return [_between(knots, score) for score in at]


def _between(knots, score):
  if score <= knots[0][0]:
    return knots[0][2]
  previous = knots[0]
  for knot in knots:
    if knot[0] <= score <= knot[1]:
      return knot[2]
    if score < knot[0]:
      share = (score - previous[1]) / (knot[0] - previous[1])
      return previous[2] + share * (knot[2] - previous[2])
    previous = knot
  return knots[-1][2]


def temperature_slope(temperature, logits, same):
  """Derivative of the balanced cross-entropy of sigma(z / T) in 1 / T."""
  num_g = sum(map(bool, same))
  total = 0.0
  for logit, label in zip(logits, same, strict=True):
    p = 1 / (1 + math.exp(-logit / temperature))
    weight = 0.5 / num_g if label else 0.5 / (len(same) - num_g)
    total += weight * (p - bool(label)) * logit
  return total


def probability(llr, prior):
  odds = math.exp(llr) * prior / (1 - prior)
  return odds / (1 + odds)


def ece(probabilities, same, bins):
  """Bin by bin; a probability on an edge belongs to the bin below it."""
  total = 0.0
  for b in range(bins):
    inside = [
      (p, bool(label))
      for p, label in zip(probabilities, same, strict=True)
      if b / bins < p <= (b + 1) / bins or (b == 0 and p == 0)
    ]
    if inside:
      confidence = sum(p for p, _ in inside) / len(inside)
      share = sum(label for _, label in inside) / len(inside)
      total += len(inside) / len(same) * abs(share - confidence)
  return total


def brier(probabilities, same):
  pairs = zip(probabilities, same, strict=True)
  return sum((p - bool(label)) ** 2 for p, label in pairs) / len(same)


def nll(logits, same):
  total = 0.0
  for logit, label in zip(logits, same, strict=True):
    p = 1 / (1 + math.exp(-logit))
    total -= math.log(p if label else 1 - p)
  return total / len(same)


def cohort(row, top_k=None, sd_floor=1e-3):
  """(mean, standard deviation) of one image's cohort scores."""
  chosen = sorted(row, reverse=True)[:top_k]
  mean = sum(chosen) / len(chosen)
  variance = sum((score - mean) ** 2 for score in chosen) / len(chosen)
  return mean, max(math.sqrt(variance), sd_floor)


def normalized(scores, enrolled, probes, **options):
  """(Z-norm, T-norm, S-norm) as nested lists."""
  of_rows = [cohort(row, **options) for row in enrolled]
  of_columns = [cohort(row, **options) for row in probes]
  z, t, s = [], [], []
  for row, (mean_e, sd_e) in zip(scores, of_rows, strict=True):
    z.append([(score - mean_e) / sd_e for score in row])
    t.append(
      [
        (score - mean_p) / sd_p
        for score, (mean_p, sd_p) in zip(row, of_columns, strict=True)
      ]
    )
    s.append([(a + b) / 2 for a, b in zip(z[-1], t[-1], strict=True)])
  return z, t, s


def platt(scores, same):
  """The root of the gradient, from the fit of no evidence."""
  found = optimize.root(
    lambda t: platt_gradient(*t, scores, same), (0.0, 0.0), tol=1e-12
  )
  return found.x


def platt_moved(scores, people_a, people_b, fit=platt):
  """(w, b) with each person left out in turn, less their mean."""
  rows = list(zip(scores, people_a, people_b, strict=True))
  people = sorted({*people_a, *people_b})
  fits = []
  for person in people:
    left = [row for row in rows if person not in row[1:]]
    fits.append(fit([r[0] for r in left], [r[1] == r[2] for r in left]))
  mean = np.mean(fits, axis=0)
  return [one - mean for one in fits]


def platt_covariance(scores, people_a, people_b, fit=platt):
  """Of (w, b), by the jackknife."""
  total = np.zeros((2, 2))
  moved = platt_moved(scores, people_a, people_b, fit)
  for one in moved:
    total += np.outer(one, one)
  return total * (len(moved) - 1) / len(moved)


def platt_freedom(scores, people_a, people_b, kinds=(True, False)):
  """The fewer degrees of freedom, at the two kinds' mean scores."""
  moved = platt_moved(scores, people_a, people_b)
  found = []
  for kind in kinds:
    mean = np.mean(scores[(people_a == people_b) == kind])
    values = [w * mean + b for w, b in moved]
    second = np.mean([v**2 for v in values])
    kurtosis = np.mean([v**4 for v in values]) / second**2
    found.append(min(2 * len(moved) / (kurtosis - 1), len(moved) - 1))
  return min(found)


def kernel_width(values):
  """Silverman's rule of thumb, eq. 3.31."""
  low, high = np.quantile(values, [0.25, 0.75], method="inverted_cdf")
  spread = min(np.std(values), (high - low) / 1.349)
  return 0.9 * spread * len(values) ** -0.2


def kernel_threshold(scores, same, genuine_width, impostor_width):
  """The score of least FMR + FNMR, each a mean of normal distributions."""
  genuine = [s for s, label in zip(scores, same, strict=True) if label]
  impostor = [s for s, label in zip(scores, same, strict=True) if not label]

  def errors(t):
    missed = np.mean([stats.norm.cdf((t - s) / genuine_width) for s in genuine])
    taken = [stats.norm.sf((t - s) / impostor_width) for s in impostor]
    return missed + np.mean(taken)

  ends = np.mean(impostor), np.mean(genuine)
  grid = np.linspace(*ends, 200)
  best = int(np.argmin([errors(t) for t in grid]))
  around = grid[max(best - 1, 0)], grid[min(best + 1, 199)]
  found = optimize.minimize_scalar(
    errors, bounds=around, method="bounded", options={"xatol": 1e-9}
  )
  return float(found.x)
