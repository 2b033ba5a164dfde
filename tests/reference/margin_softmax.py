"""Margin softmax by loops over rows and classes, in float64."""

import math

import numpy as np


def norm(row):
  return math.sqrt(sum(float(a) ** 2 for a in row))


def cosine(row, center):
  lengths = norm(row) * norm(center)
  if lengths == 0:
    return 0.0
  dot = sum(float(a) * float(b) for a, b in zip(row, center, strict=True))
  return max(-1.0, min(1.0, dot / lengths))


def nearest(row, center):
  """The cosine to a centre, or to the nearest of several."""
  if np.ndim(center) == 1:
    return cosine(row, center)
  return max(cosine(row, part) for part in center)


def cosface(c, margin=0.35):
  return c - margin


def arcface(c, margin=0.5):
  angle = math.acos(c)
  if angle <= math.pi - margin:
    return math.cos(angle + margin)
  return c - margin * math.sin(margin)


def combined(c, m1=1.0, m2=0.3, m3=0.2):
  angle = math.acos(c)
  if m1 * angle + m2 <= math.pi:
    return math.cos(m1 * angle + m2) - m3
  jump = 1.0 + math.cos((math.pi - m2) / m1)
  return c - max(m2 * math.sin(m2), jump) - m3


def sphereface(c, margin=4, annealing=5.0):
  angle = math.acos(c)
  k = 0
  while angle > (k + 1) * math.pi / margin and k < margin - 1:
    k += 1
  psi = (-1) ** k * math.cos(margin * angle) - 2 * k
  return (annealing * c + psi) / (1 + annealing)


def annealing(step, start=1000.0, rate=0.12, power=1.0, least=5.0):
  return max(least, start / (1 + rate * step) ** power)


def adaface(c, length, mean, std, margin=0.4, concentration=0.333):
  length = min(max(length, 0.001), 100.0)
  z = max(-1.0, min(1.0, concentration * (length - mean) / (std + 1e-3)))
  angle = math.acos(c) - margin * z
  angle = max(1e-3, min(math.pi - 1e-3, angle))
  return math.cos(angle) - (margin + margin * z)


def clipped_norm(length, norm_range):
  return max(norm_range[0], min(norm_range[1], length))


def magface(c, length, norm_range=(10.0, 110.0), margin_range=(0.45, 0.8)):
  share = (clipped_norm(length, norm_range) - norm_range[0]) / (
    norm_range[1] - norm_range[0]
  )
  margin = margin_range[0] + share * (margin_range[1] - margin_range[0])
  return arcface(c, margin)


def magface_penalty(length, norm_range=(10.0, 110.0), regularizer=35.0):
  a = clipped_norm(length, norm_range)
  return regularizer * (1 / a + a / norm_range[1] ** 2)


def cross_entropy(logits, label):
  """-log softmax, by the difference to each other class, so that 1e-20 is."""
  others = [
    math.exp(min(float(logits[j]) - float(logits[label]), 700.0))
    for j in range(len(logits))
    if j != label
  ]
  return math.log1p(math.fsum(others))


def softmax_cross_entropy(logits, labels, weights):
  return np.array(
    [
      cross_entropy(row, label) if weight > 0 else 0.0
      for row, label, weight in zip(logits, labels, weights, strict=True)
    ]
  )


def losses(
  embeddings,
  centers,
  labels,
  weights,
  psi,
  scale=64.0,
  classes=None,
  largest_negative=None,
):
  """Each row's loss; psi takes (own cosine, norm, row number).

  Args:
    embeddings: [B, D].
    centers: [C, D] or [C, K, D].
    labels: [B].
    weights: [B]; rows of weight 0 get 0.
    psi: the margin.
    scale: s, or None for the norm of each embedding.
    classes: numbers of the classes that take part; None means all.
    largest_negative: cosines of other classes above it count as 0.
  """
  values = np.zeros(len(embeddings))
  for i, row in enumerate(embeddings):
    if not weights[i] > 0:
      continue
    length = norm(row)
    factor = length if scale is None else scale
    logits, own = [], None
    for j in range(len(centers)) if classes is None else classes:
      c = nearest(row, centers[j])
      if j == labels[i]:
        own = len(logits)
        c = psi(c, length, i)
      elif largest_negative is not None and c > largest_negative:
        c = 0.0
      logits.append(factor * c)
    values[i] = cross_entropy(logits, own)
  return values


def mean(values, weights):
  total = sum(float(v) * float(w) for v, w in zip(values, weights, strict=True))
  return total / max(float(np.sum(weights)), 1.0)


def norm_statistics(mean, std, embeddings, weights, rate):
  """The next (mean, standard deviation) of the norms."""
  lengths = [
    min(max(norm(row), 0.001), 100.0)
    for row, weight in zip(embeddings, weights, strict=True)
    if weight > 0
  ]
  if not lengths:
    return mean, std
  average = sum(lengths) / len(lengths)
  new_mean = (1 - rate) * mean + rate * average
  if len(lengths) == 1:
    return new_mean, std
  spread = sum((a - average) ** 2 for a in lengths) / (len(lengths) - 1)
  return new_mean, (1 - rate) * std + rate * math.sqrt(spread)


def deal_by_difficulty(drawn, cosines, weights):
  """The largest drawn margin to the least cosine, among the valid rows."""
  valid = [i for i in range(len(drawn)) if weights[i] > 0]
  hardest_first = sorted(valid, key=lambda i: (cosines[i], -i))
  largest_first = sorted((drawn[i] for i in valid), reverse=True)
  dealt = np.array(drawn, np.float64)
  for i, margin in zip(hardest_first, largest_first, strict=True):
    dealt[i] = margin
  return dealt


def sample(priorities, labels, weights, num_sampled):
  """The classes of a step: those of the batch, then the smallest priorities."""
  chosen = {
    int(label) for label, w in zip(labels, weights, strict=True) if w > 0
  }
  order = sorted(range(len(priorities)), key=lambda c: (int(priorities[c]), c))
  for number in order:
    if len(chosen) < num_sampled:
      chosen.add(number)
  return sorted(chosen)
