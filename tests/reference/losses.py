"""Slow float64 loops for losses, distances and mining."""

import math

import numpy as np


def distance(x, y):
  total = 0.0
  for a, b in zip(x, y, strict=True):
    total += (float(a) - float(b)) ** 2
  return math.sqrt(total)


def cosine(x, y):
  dot = norm_x = norm_y = 0.0
  for a, b in zip(x, y, strict=True):
    dot += float(a) * float(b)
    norm_x += float(a) ** 2
    norm_y += float(b) ** 2
  if norm_x == 0 or norm_y == 0:
    return 0.0
  return dot / math.sqrt(norm_x) / math.sqrt(norm_y)


def binary_cross_entropy(logits, same):
  losses = []
  for z, y in zip(logits, same, strict=True):
    p = 1.0 / (1.0 + math.exp(-float(z)))
    losses.append(-math.log(p) if y == 1 else -math.log(1.0 - p))
  return np.array(losses)


def contrastive(distances, same, margin):
  losses = []
  for d, y in zip(distances, same, strict=True):
    d = float(d)
    losses.append(d * d if y == 1 else max(margin - d, 0.0) ** 2)
  return np.array(losses)


def triplet_margin(positive, negative, margin):
  pairs = zip(positive, negative, strict=True)
  return np.array([max(float(p) - float(n) + margin, 0.0) for p, n in pairs])


def supcon(embeddings, ids, temperature):
  """Values and weights of every row as anchor against all rows."""
  values, weights = [], []
  for a in range(len(ids)):
    total, positives = 0.0, []
    for k in range(len(ids)):
      if k == a:
        continue
      s = cosine(embeddings[a], embeddings[k]) / temperature
      total += math.exp(s)
      if ids[k] == ids[a]:
        positives.append(s)
    if not positives:
      values.append(0.0)
      weights.append(0.0)
      continue
    loss = 0.0
    for s in positives:
      loss -= math.log(math.exp(s) / total)
    values.append(loss / len(positives))
    weights.append(1.0)
  return np.array(values), np.array(weights)


def batch_hard(distances, ids):
  """Index of the farthest positive and nearest negative; -1 where none."""
  positives, negatives = [], []
  for a in range(len(ids)):
    best_p, best_n = -1, -1
    for k in range(len(ids)):
      if ids[k] == ids[a]:
        if k != a and (best_p < 0 or distances[a][k] > distances[a][best_p]):
          best_p = k
      elif best_n < 0 or distances[a][k] < distances[a][best_n]:
        best_n = k
    positives.append(best_p)
    negatives.append(best_n)
  return np.array(positives), np.array(negatives)
