"""Slow float64 loops for the losses that look across the batch.

Each takes (anchors, anchor_ids, columns, column_ids, anchor_rows,
column_weights, settings) and returns (values, weights) of the anchors.
"""

import math

import numpy as np

from reference.losses import cosine


def _partners(a, anchor_ids, column_ids, anchor_rows, column_weights):
  """Columns of the anchor's person, and of other people."""
  positives, negatives = [], []
  own = int(anchor_rows[a])
  if own >= 0 and column_weights[own] <= 0:
    return positives, negatives
  for k in range(len(column_ids)):
    if k == own or column_weights[k] <= 0:
      continue
    same = int(column_ids[k]) == int(anchor_ids[a])
    (positives if same else negatives).append(k)
  return positives, negatives


def _over_anchors(loss, anchors, anchor_ids, columns, column_ids, rows, used):
  """Values and weights of loss(a, positives, negatives) -> value or None."""
  if used is None:
    used = [1.0] * len(column_ids)
  values, weights = [], []
  for a in range(len(anchor_ids)):
    positives, negatives = _partners(a, anchor_ids, column_ids, rows, used)
    value = loss(a, positives, negatives)
    values.append(0.0 if value is None else value)
    weights.append(0.0 if value is None else 1.0)
  return np.array(values), np.array(weights)


def _dot(x, y):
  total = 0.0
  for a, b in zip(x, y, strict=True):
    total += float(a) * float(b)
  return total


def supcon(anchors, anchor_ids, columns, *rest, temperature):
  def loss(a, positives, negatives):
    if not positives:
      return None
    total = 0.0
    for k in positives + negatives:
      total += math.exp(cosine(anchors[a], columns[k]) / temperature)
    result = 0.0
    for p in positives:
      share = math.exp(cosine(anchors[a], columns[p]) / temperature) / total
      result -= math.log(share) / len(positives)
    return result

  return _over_anchors(loss, anchors, anchor_ids, columns, *rest)


def nt_xent(anchors, anchor_ids, columns, *rest, temperature, other_positives):
  def loss(a, positives, negatives):
    if not positives:
      return None
    result = 0.0
    for p in positives:
      against = list(negatives)
      against += positives if other_positives == "keep" else [p]
      total = 0.0
      for k in against:
        total += math.exp(cosine(anchors[a], columns[k]) / temperature)
      s = cosine(anchors[a], columns[p]) / temperature
      result += math.log(total) - s
    return result / len(positives)

  return _over_anchors(loss, anchors, anchor_ids, columns, *rest)


def n_pair(anchors, anchor_ids, columns, *rest, norm_penalty):
  def loss(a, positives, negatives):
    if not positives:
      return None
    result = 0.0
    for p in positives:
      total = 1.0
      for n in negatives:
        gap = _dot(anchors[a], columns[n]) - _dot(anchors[a], columns[p])
        total += math.exp(gap)
      norms = _dot(anchors[a], anchors[a]) + _dot(columns[p], columns[p])
      result += math.log(total) + norm_penalty / 4 * norms
    return result / len(positives)

  return _over_anchors(loss, anchors, anchor_ids, columns, *rest)


def multi_similarity(
  anchors, anchor_ids, columns, *rest, alpha, beta, base, pair_mask=None
):
  def loss(a, positives, negatives):
    if not positives + negatives:
      return None
    pull = push = 1.0
    for k in positives:
      if pair_mask is None or pair_mask[a][k]:
        pull += math.exp(-alpha * (cosine(anchors[a], columns[k]) - base))
    for k in negatives:
      if pair_mask is None or pair_mask[a][k]:
        push += math.exp(beta * (cosine(anchors[a], columns[k]) - base))
    return math.log(pull) / alpha + math.log(push) / beta

  return _over_anchors(loss, anchors, anchor_ids, columns, *rest)


def circle(
  anchors,
  anchor_ids,
  columns,
  *rest,
  margin,
  scale,
  pair_mask=None,
  held=None,
):
  """The weights come from `held` = (anchors, columns), where it is given.

  Central differences with `held` fixed are the gradient with the weights
  taken as constants.
  """
  fixed_anchors, fixed_columns = (anchors, columns) if held is None else held

  def loss(a, positives, negatives):
    if not positives or not negatives:
      return None
    pull = push = 0.0
    for k in positives:
      if pair_mask is None or pair_mask[a][k]:
        w = max(1 + margin - cosine(fixed_anchors[a], fixed_columns[k]), 0.0)
        s = cosine(anchors[a], columns[k])
        pull += math.exp(-scale * w * (s - (1 - margin)))
    for k in negatives:
      if pair_mask is None or pair_mask[a][k]:
        w = max(cosine(fixed_anchors[a], fixed_columns[k]) + margin, 0.0)
        s = cosine(anchors[a], columns[k])
        push += math.exp(scale * w * (s - margin))
    return math.log(1.0 + pull * push)

  return _over_anchors(loss, anchors, anchor_ids, columns, *rest)


def proxy_anchor(
  proxies, proxy_ids, columns, column_ids, column_weights, scale, margin
):
  """The paper's loss, and its summand of each proxy times their number."""
  pulls, pushes = [], []
  present = 0
  for proxy, person in zip(proxies, proxy_ids, strict=True):
    positive = negative = 1.0
    seen = False
    for x, i, w in zip(columns, column_ids, column_weights, strict=True):
      if w <= 0:
        continue
      if int(i) == int(person):
        seen = True
        positive += math.exp(-scale * (cosine(x, proxy) - margin))
      else:
        negative += math.exp(scale * (cosine(x, proxy) + margin))
    present += seen
    pulls.append(math.log(positive))
    pushes.append(math.log(negative))
  loss = sum(pulls) / max(present, 1) + sum(pushes) / len(proxies)
  share = len(proxies) / max(present, 1)
  return loss, share * np.array(pulls) + np.array(pushes)
