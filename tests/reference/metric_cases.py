"""Inputs on which metrics are compared with their references."""

import numpy as np


def pairs(seed=0, ties=False, num_genuine=13, num_impostor=29):
  """Scores and labels of overlapping kinds, in mixed order."""
  rng = np.random.default_rng(seed)
  same = np.repeat([1, 0], [num_genuine, num_impostor]).astype(np.int32)
  scores = rng.normal(size=same.size) + 1.3 * same
  if ties:
    scores = np.round(scores * 2) / 2
  order = rng.permutation(same.size)
  return scores[order], same[order]


PAIRS = [pairs(seed, seed % 2 == 0) for seed in range(8)]
# Wrong sign, perfect separation, all equal, two pairs, one genuine pair.
PAIRS += [
  (-PAIRS[0][0], PAIRS[0][1]),
  (np.array([3.0, 2.5, 1.0, 0.5, 0.0]), np.array([1, 1, 0, 0, 0])),
  (np.array([0.5, 0.5, 0.5]), np.array([1, 0, 0])),
  (np.array([1.0, 0.0]), np.array([1, 0])),
  (np.array([0.0, 1.0]), np.array([1, 0])),
  (np.array([0.3, 0.9, 0.1, 0.3]), np.array([1, 0, 0, 0])),
]


def people(num_people=7, images=3, seed=0, effect=0.5, drop=0.2):
  """Scores of most pairs of images of few people, and who is in them.

  A person's scores go up or down together, and pairs are dropped at random so
  that people have different numbers of them.
  """
  rng = np.random.default_rng(seed)
  ids = np.repeat(rng.permutation(50)[:num_people], images)
  i, j = np.triu_indices(ids.size, 1)
  kept = rng.random(i.size) >= drop
  swap = rng.random(i.size) < 0.5
  i, j = np.where(swap, j, i)[kept], np.where(swap, i, j)[kept]
  own = dict(
    zip(np.unique(ids), effect * rng.normal(size=num_people), strict=True)
  )
  shift = np.array(
    [own[a] + own[b] for a, b in zip(ids[i], ids[j], strict=True)]
  )
  scores = rng.normal(size=i.size) + 1.5 * (ids[i] == ids[j]) + shift
  return scores, ids[i], ids[j]


def search(seed=0, ties=False, num_probes=23, strangers=True):
  """A similarity of probes against a gallery, not square, several templates."""
  rng = np.random.default_rng(seed)
  gallery = rng.permutation(np.repeat([4, 9, 2, 7, 5], [3, 1, 2, 4, 1]))
  known = [2, 4, 5, 7, 9] + ([1, 3, 11] if strangers else [])
  probes = rng.choice(known, num_probes)
  probes[: len(known)] = known
  similarity = rng.normal(size=(num_probes, gallery.size))
  similarity += 1.2 * (probes[:, None] == gallery[None])
  if ties:
    similarity = np.round(similarity * 1.5) / 1.5
  return similarity, probes, gallery


def square(seed=0, ties=False, sizes=(5, 3, 4, 1, 2)):
  """A similarity, not symmetric, of images of a few people with themselves."""
  rng = np.random.default_rng(seed)
  ids = rng.permutation(np.repeat(np.arange(len(sizes)) * 7 + 3, sizes))
  similarity = rng.normal(size=(ids.size, ids.size))
  similarity += 1.5 * (ids[:, None] == ids[None])
  # Some images score high against every probe.
  similarity += 0.7 * rng.normal(size=ids.size)[None]
  if ties:
    similarity = np.round(similarity * 1.5) / 1.5
  return similarity, ids
