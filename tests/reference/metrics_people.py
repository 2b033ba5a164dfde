"""Slow references for what depends on people: intervals, groups, support."""

import math

from scipy import optimize, stats


def wilson(rate, size, quantile):
  """Ends of the set of p with |rate - p| <= quantile sqrt(p (1 - p) / size)."""
  a = 1 + quantile**2 / size
  b = -(2 * rate + quantile**2 / size)
  root = math.sqrt(max(b * b - 4 * a * rate**2, 0.0))
  return (-b - root) / (2 * a), (-b + root) / (2 * a)


def raw_wilson(errors, level=0.95):
  """The interval that takes pairs for independent."""
  quantile = stats.norm.ppf((1 + level) / 2)
  return wilson(sum(errors) / len(errors), len(errors), quantile)


def _by_people(scores, people_a, people_b, threshold, genuine):
  """{pair of people: [errors]}, of one kind of pair."""
  table = {}
  for score, a, b in zip(scores, people_a, people_b, strict=True):
    if (a == b) == genuine:
      wrong = score < threshold if genuine else score >= threshold
      table.setdefault((min(a, b), max(a, b)), []).append(int(wrong))
  return table


def rate_interval(scores, people_a, people_b, threshold, genuine, level=0.95):
  """(rate, low, high, effective pairs), with every covariance written out."""
  table = _by_people(scores, people_a, people_b, threshold, genuine)
  errors = [wrong for cell in table.values() for wrong in cell]
  rate = sum(errors) / len(errors)
  if rate in (0, 1):
    bound = -math.log(1 - level) / len(table)
    bound = min(bound, 1)
    return (rate, 0, bound, None) if rate == 0 else (rate, 1 - bound, 1, None)
  numbers = {pair: len(cell) for pair, cell in table.items()}
  excess = {
    pair: sum(wrong - rate for wrong in cell) for pair, cell in table.items()
  }
  own = own_variance(numbers, excess, rate)
  shared = 0.0 if genuine else shared_variance(numbers, excess)
  people = sorted({person for pair in table for person in pair})
  sums = [
    sum(e / numbers[pair] ** 0.5 for pair, e in excess.items() if one in pair)
    for one in people
  ]
  quantile = stats.t.ppf((1 + level) / 2, _freedom(sums))
  low, high = interval_ends(rate, own, shared, quantile)
  return rate, low, high, rate * (1 - rate) / (own + shared)


def own_variance(numbers, excess, rate):
  """Variance of a mean of clusters, by Fleiss's intraclass correlation."""
  clusters, total = len(numbers), sum(numbers.values())
  alike = 0.0
  if 1 < clusters < total:
    between = sum(excess[pair] ** 2 / numbers[pair] for pair in numbers)
    between *= clusters / (clusters - 1)
    naive = rate * (1 - rate)
    alike = (between - clusters * naive) / ((total - clusters) * naive)
    alike = min(max(alike, 0), 1)
  variance = 0.0
  for number in numbers.values():
    variance += rate * (1 - rate) * number
    variance += alike * rate * (1 - rate) * number * (number - 1)
  return variance / total**2


def shared_variance(numbers, excess):
  """Of pairs of people that share one: their mean product, times how many."""
  product, weight, count = 0.0, 0.0, 0
  for pair, number in numbers.items():
    for other, other_number in numbers.items():
      if pair != other and set(pair) & set(other):
        root = (number * other_number) ** 0.5
        product += excess[pair] * excess[other] / root
        weight += root
        count += number * other_number
  if not weight:
    return 0.0
  people = {person for pair in numbers for person in pair}
  shares = [
    sum(n**0.5 for pair, n in numbers.items() if one in pair) for one in people
  ]
  effective = sum(shares) ** 2 / sum(share**2 for share in shares)
  variance = max(product, 0) / weight * count / sum(numbers.values()) ** 2
  return variance * effective / max(effective - 2, 1)


def interval_ends(rate, own, shared, quantile, power=1.75):
  """Roots of (x - rate)^2 = quantile^2 V(x), one on either side."""

  def gap(x):
    times = x * (1 - x) / (rate * (1 - rate))
    variance = own * times + shared * times**power
    return (x - rate) ** 2 - quantile**2 * variance

  below, above = 1e-15, 1 - 1e-15
  low = optimize.brentq(gap, below, rate) if gap(below) > 0 else 0.0
  high = optimize.brentq(gap, rate, above) if gap(above) > 0 else 1.0
  return low, high


def _freedom(sums):
  n = len(sums)
  second = sum(value**2 for value in sums) / n
  fourth = sum(value**4 for value in sums) / n
  kurtosis = fourth / second**2
  return n - 1 if kurtosis <= 1 else min(2 * n / (kurtosis - 1), n - 1)


def support(scores, people_a, people_b, threshold):
  """(FMR, false matches, their pairs of people, people of impostor pairs)."""
  impostor, wrong, people, pairs = 0, 0, set(), set()
  for score, a, b in zip(scores, people_a, people_b, strict=True):
    if a == b:
      continue
    impostor += 1
    people |= {a, b}
    if score >= threshold:
      wrong += 1
      pairs.add(frozenset((a, b)))
  return wrong / impostor, wrong, len(pairs), len(people)


def group_rates(scores, same, groups_a, groups_b, threshold):
  """(groups, fmr [G][G], fmr across [G], fnmr [G]); NaN without a pair."""
  groups = sorted(set(groups_a) | set(groups_b))

  def rate(chosen, is_wrong):
    return sum(map(is_wrong, chosen)) / len(chosen) if chosen else math.nan

  rows = list(zip(scores, same, groups_a, groups_b, strict=True))
  accepted = lambda row: row[0] >= threshold
  rejected = lambda row: row[0] < threshold
  fmr = [
    [
      rate([r for r in rows if not r[1] and {r[2], r[3]} == {g, h}], accepted)
      for h in groups
    ]
    for g in groups
  ]
  across = [
    rate([r for r in rows if not r[1] and (r[2] == g) != (r[3] == g)], accepted)
    for g in groups
  ]
  fnmr = [
    rate([r for r in rows if r[1] and r[2] == g], rejected) for g in groups
  ]
  return groups, fmr, across, fnmr


def fairness_discrepancy_rate(fmr, fnmr, alpha):
  worst = [
    max(abs(a - b) for a in rates for b in rates) for rates in (fmr, fnmr)
  ]
  return 1 - (alpha * worst[0] + (1 - alpha) * worst[1])


def gini(rates):
  n = len(rates)
  mean = sum(rates) / n
  gaps = sum(abs(a - b) for a in rates for b in rates)
  return n / (n - 1) * gaps / (2 * n**2 * mean)


def geometric_mean_ratio(rates):
  product = 1.0
  for rate in rates:
    product *= rate
  return max(rates) / product ** (1 / len(rates))
