"""Slow references for the gallery search, float64 loops."""

import numpy as np


def score(query, template, metric):
  """Returns q.g or -|q - g|^2."""
  total = 0.0
  for a, b in zip(query, template, strict=True):
    a, b = float(a), float(b)
    total += a * b if metric == "cosine" else -((a - b) ** 2)
  return total


def top_k(gallery, valid, template_ids, queries, *, k, metric):
  """Returns (scores [Q, k], ids [Q, k]): score descending, id ascending."""
  all_scores = np.full((len(queries), k), -np.inf)
  all_ids = np.full((len(queries), k), -1, np.int64)
  for i, query in enumerate(queries):
    found = []
    for template, is_valid, template_id in zip(
      gallery, valid, template_ids, strict=True
    ):
      value = score(query, template, metric)
      if is_valid and np.isfinite(value):
        found.append((-value, int(template_id)))
    for place, (negated, template_id) in enumerate(sorted(found)[:k]):
      all_scores[i, place] = -negated
      all_ids[i, place] = template_id
  return all_scores, all_ids


def best_per_person(scores, ids, people, k):
  """Returns rows of (score, id, person): the first column of each person."""
  result = []
  for row in range(len(scores)):
    seen, found = set(), []
    for column in range(len(scores[row])):
      person = int(people[row][column])
      if ids[row][column] == -1 or person in seen:
        continue
      seen.add(person)
      found.append((scores[row][column], ids[row][column], person))
    found += [(-np.inf, -1, -1)] * k
    result.append(found[:k])
  return result
