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


def binary_cross_entropy(logits, same, pos_weight=1.0):
  losses = []
  for z, y in zip(logits, same, strict=True):
    p = 1.0 / (1.0 + math.exp(-float(z)))
    loss = -float(y) * pos_weight * math.log(p) if y else 0.0
    losses.append(loss - (1.0 - float(y)) * math.log(1.0 - p))
  return np.array(losses)


def contrastive(distances, same, margin):
  losses = []
  for d, y in zip(distances, same, strict=True):
    d = float(d)
    losses.append(d * d if y == 1 else max(margin - d, 0.0) ** 2)
  return np.array(losses)


def margin_loss(distances, same, beta, margin):
  losses = []
  for d, y, b in zip(distances, same, beta, strict=True):
    beyond = float(d) - float(b)
    losses.append(max(margin + (beyond if y == 1 else -beyond), 0.0))
  return np.array(losses)


def triplet_margin(positive, negative, margin):
  pairs = zip(positive, negative, strict=True)
  return np.array([max(float(p) - float(n) + margin, 0.0) for p, n in pairs])


def soft_margin_triplet(positive, negative):
  pairs = zip(positive, negative, strict=True)
  return np.array(
    [math.log(1.0 + math.exp(float(p) - float(n))) for p, n in pairs]
  )


def csc413_as_written(anchors, positives, negatives, margin):
  losses = []
  for a, p, n in zip(anchors, positives, negatives, strict=True):
    # |x - y|^2 = 2 - 2 cos of unit vectors.
    near, far = 2.0 - 2.0 * cosine(a, p), 2.0 - 2.0 * cosine(a, n)
    losses.append(near - far + margin)
  return np.array(losses)


def csc413_as_run(anchors, positives, negatives, margin):
  losses = []
  for a, p, n in zip(anchors, positives, negatives, strict=True):
    losses.append(max(distance(a, p) - distance(a, n) + margin, 0.0))
  return np.array(losses)


def center(embeddings, ids, centers):
  return np.array(
    [
      0.5 * distance(x, centers[i]) ** 2
      for x, i in zip(embeddings, ids, strict=True)
    ]
  )


def update_centers(centers, embeddings, ids, weights, rate):
  centers = np.array(centers, np.float64)
  moved = centers.copy()
  for j in range(len(centers)):
    step, count = np.zeros(centers.shape[1]), 0
    for x, i, w in zip(embeddings, ids, weights, strict=True):
      if w > 0 and i == j:
        step += centers[j] - np.asarray(x, np.float64)
        count += 1
    moved[j] = centers[j] - rate * step / (1 + count)
  return moved


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
