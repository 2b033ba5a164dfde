"""Slow references for the gallery search, float64 loops."""

import numpy as np


def score(query, template, metric):
  """Returns q.g or -|q - g|^2."""
  total = 0.0
  for a, b in zip(query, template, strict=True):
    a, b = float(a), float(b)
    total += -((a - b) ** 2) if metric == "euclidean" else a * b
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


def person_score(scores, weights, rule):
  """Returns the score of a person from those of the templates, or None."""
  if not scores:
    return None
  best = sorted(scores, reverse=True)
  if rule == "max":
    return best[0]
  if rule == "top2_mean":
    return sum(best[:2]) / len(best[:2])
  if rule == "mean":
    return sum(scores) / len(scores)
  weight = sum(weights)
  if weight == 0:
    return None
  return sum(s * w for s, w in zip(scores, weights, strict=True)) / weight


def top_k_people(
  gallery, valid, template_ids, people, queries, *, k, metric, rule, quality
):
  """Returns (scores [Q, k], people [Q, k]): score down, then person up."""
  all_scores = np.full((len(queries), k), -np.inf)
  all_people = np.full((len(queries), k), -1, np.int64)
  weights = np.ones(len(gallery)) if quality is None else quality
  for i, query in enumerate(queries):
    found = []
    for person in set(people.tolist()):
      rows = [j for j in range(len(gallery)) if valid[j]]
      rows = [j for j in rows if people[j] == person]
      scores = [score(query, gallery[j], metric) for j in rows]
      value = person_score(scores, [float(weights[j]) for j in rows], rule)
      if value is not None:
        found.append((-value, person))
    for place, (negated, person) in enumerate(sorted(found)[:k]):
      all_scores[i, place] = -negated
      all_people[i, place] = person
  return all_scores, all_people
