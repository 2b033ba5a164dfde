"""Slow float64 loops for mining: one anchor, one column at a time."""

import math

import numpy as np


def distance(x, y):
  """Euclidean distance of two rows."""
  total = 0.0
  for a, b in zip(x, y, strict=True):
    total += (float(a) - float(b)) ** 2
  return math.sqrt(total)


def kinds(batch, a):
  """Columns of anchor a's positives and of its negatives, rising."""
  positives, negatives = [], []
  row = int(batch.anchor_rows[a])
  if row >= 0 and batch.column_weights[row] == 0:
    return positives, negatives
  for k in range(len(batch.column_ids)):
    if batch.column_weights[k] == 0 or k == row:
      continue
    if batch.column_ids[k] == batch.anchor_ids[a]:
      positives.append(k)
    else:
      negatives.append(k)
  return positives, negatives


def all_triplets(batch):
  """Masks of positives and negatives, bool [b, B]."""
  shape = (len(batch.anchor_ids), len(batch.column_ids))
  positive, negative = np.zeros(shape, bool), np.zeros(shape, bool)
  for a in range(shape[0]):
    positives, negatives = kinds(batch, a)
    for p in positives:
      positive[a, p] = True
    for n in negatives:
      negative[a, n] = True
  return positive, negative


def _best(row, columns, better):
  """First column whose value no other column betters; 0 if there is none."""
  best = None
  for k in columns:
    if best is None or better(row[k], row[best]):
      best = k
  return 0 if best is None else best


def farthest(row, columns):
  return _best(row, columns, lambda x, y: x > y)


def nearest(row, columns):
  return _best(row, columns, lambda x, y: x < y)


def batch_hard(batch):
  """(positive, negative, weight) of each anchor."""
  triplets = []
  for a, row in enumerate(batch.distances):
    positives, negatives = kinds(batch, a)
    weight = float(bool(positives) and bool(negatives))
    triplets.append((farthest(row, positives), nearest(row, negatives), weight))
  return np.array(triplets)


def _semi_hard_negative(row, p, negatives, margin, fallback):
  """(negative, weight) for one positive."""
  beyond = [n for n in negatives if row[n] > row[p]]
  within = [n for n in beyond if row[n] < row[p] + margin]
  if within:
    return nearest(row, within), 1.0
  if beyond:
    return nearest(row, beyond), float(fallback == "farthest")
  weight = float(bool(negatives) and fallback == "farthest")
  return farthest(row, negatives), weight


def semi_hard(batch, margin, positive, max_positives, fallback):
  """(positive, negative, weight) of each slot of each anchor, [b, M, 3].

  A slot without a positive is (-1, -1, 0): nothing is said about its indices.
  """
  result = []
  for a, row in enumerate(batch.distances):
    positives, negatives = kinds(batch, a)
    if positive == "hardest" and positives:
      positives = [farthest(row, positives)]
    if positive == "easiest" and positives:
      positives = [nearest(row, positives)]
    slots = []
    for p in positives[:max_positives]:
      n, weight = _semi_hard_negative(row, p, negatives, margin, fallback)
      slots.append((p, n, weight))
    while len(slots) < max_positives:
      slots.append((-1, -1, 0.0))
    result.append(slots)
  return np.array(result)


def batch_easy_positive(batch, negative, margin, fallback):
  """(positive, negative, weight) of each anchor."""
  triplets = []
  for a, row in enumerate(batch.distances):
    positives, negatives = kinds(batch, a)
    p = nearest(row, positives)
    if not positives or not negatives:
      triplets.append((p, nearest(row, negatives), 0.0))
    elif negative == "hard":
      triplets.append((p, nearest(row, negatives), 1.0))
    else:
      found = _semi_hard_negative(row, p, negatives, margin, fallback)
      triplets.append((p, *found))
  return np.array(triplets)


def draw_probabilities(batch, a, dimension, cutoff, max_distance):
  """Probability of each column to be drawn as the negative of anchor a."""
  probabilities = np.zeros(len(batch.column_ids))
  _, negatives = kinds(batch, a)
  for n in negatives:
    d = max(float(batch.distances[a][n]), cutoff)
    if batch.distances[a][n] < max_distance:
      density = d ** (dimension - 2)
      density *= (1.0 - d * d / 4.0) ** ((dimension - 3) / 2.0)
      probabilities[n] = 1.0 / density
  if probabilities.sum() == 0:
    for n in negatives:
      probabilities[n] = 1.0
  return probabilities / max(probabilities.sum(), 1e-300)


def multi_similarity(batch, epsilon):
  """Masks of kept positives and negatives; distances are similarities."""
  shape = (len(batch.anchor_ids), len(batch.column_ids))
  keep_p, keep_n = np.zeros(shape, bool), np.zeros(shape, bool)
  for a, row in enumerate(batch.distances):
    positives, negatives = kinds(batch, a)
    for n in negatives:
      for p in positives:
        if row[n] > row[p] - epsilon:
          keep_n[a, n] = True
        if row[p] < row[n] + epsilon:
          keep_p[a, p] = True
  return keep_p, keep_n


def sum_over_triplets(function, batch, max_positives):
  """Sum of the function over each anchor's triplets, and their number."""
  sums, counts = [], []
  for a, row in enumerate(batch.distances):
    positives, negatives = kinds(batch, a)
    total, count = 0.0, 0
    for p in positives[:max_positives]:
      for n in negatives:
        total += function(float(row[p]), float(row[n]))
        count += 1
    sums.append(total)
    counts.append(count)
  return np.array(sums), np.array(counts)
