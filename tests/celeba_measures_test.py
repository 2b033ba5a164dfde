"""What the CelebA benchmark measures, against plain loops."""

import numpy as np
import pytest

from benchmarks import celeba_measures
from facesiam_jax import metrics

_PEOPLE = np.array([7, 7, 7, 2, 2, 5, 5, 5, 5, 9, 9])


def _similarity(seed, num=_PEOPLE.size):
  """Whole numbers, some of them equal."""
  rng = np.random.default_rng(seed)
  return rng.integers(0, 9, (_PEOPLE.size, num)).astype(np.float64)


def _triplets(similarity, people):
  """Mean over anchors of the share of their triplets, one by one."""
  shares = []
  for a in range(len(people)):
    right = [
      similarity[a, p] > similarity[a, n]
      for p in range(len(people))
      for n in range(len(people))
      if p != a and people[p] == people[a] != people[n]
    ]
    shares += [np.mean(right)] if right else []
  return np.mean(shares)


@pytest.mark.parametrize("seed", range(4))
def test_all_triplets_are_counted(seed):
  similarity = _similarity(seed)
  found = celeba_measures.triplet_accuracy(similarity, _PEOPLE)
  assert found.value == pytest.approx(_triplets(similarity, _PEOPLE), abs=1e-12)
  assert found.low <= found.value <= found.high
  # Of one person's images all are as often anchors; equal ones are errors.
  zeros = np.zeros_like(similarity)
  assert celeba_measures.triplet_accuracy(zeros, _PEOPLE).value == 0
  same = (_PEOPLE[:, None] == _PEOPLE).astype(float)
  assert celeba_measures.triplet_accuracy(same, _PEOPLE) == (1, 1, 1)


def test_triplets_of_a_resample_are_those_of_copies(monkeypatch):
  """A person drawn twice is an anchor twice and a negative twice."""
  similarity = _similarity(1)
  monkeypatch.setattr(
    celeba_measures,
    "_estimate",
    lambda share, num: share(np.array([2, 1, 0, 3])),
  )
  found = celeba_measures.triplet_accuracy(similarity, _PEOPLE)
  # Persons 2, 5, 7, 9 in that order; copies of a person are no negatives.
  shares, copies = [], {2: 2, 5: 1, 7: 0, 9: 3}
  for a, person in enumerate(_PEOPLE):
    right, total = 0, 0
    for p in np.flatnonzero(_PEOPLE == person):
      for n in np.flatnonzero(_PEOPLE != person):
        if p != a:
          right += copies[_PEOPLE[n]] * (similarity[a, p] > similarity[a, n])
          total += copies[_PEOPLE[n]]
    shares += [right / total] * copies[person] if total else []
  assert found == pytest.approx(np.mean(shares), abs=1e-12)


def _ranked_first(similarity, people, distractors, num_distractors, draws):
  """Share of probes of random galleries that find their person first."""
  rng = np.random.default_rng(3)
  hits = total = 0
  for _ in range(draws):
    chosen = {p: rng.choice(np.flatnonzero(people == p)) for p in set(people)}
    for i, person in enumerate(people):
      if i in chosen.values():
        continue
      rest = [similarity[i, row] for p, row in chosen.items() if p != person]
      rest += list(distractors[i, :num_distractors])
      total += 1
      hits += similarity[i, chosen[person]] > max(rest)
  return hits / total


def test_rank_one_is_that_of_plain_galleries():
  similarity = _similarity(5) + 3 * (_PEOPLE[:, None] == _PEOPLE)
  distractors = _similarity(6, 30)
  found = celeba_measures.rank_one(
    similarity, _PEOPLE, distractors, (4, 5, 9, 34)
  )
  for size, estimate in found.items():
    want = _ranked_first(similarity, _PEOPLE, distractors, size - 4, 2000)
    assert estimate.value == pytest.approx(want, abs=0.06)
    assert estimate.low <= estimate.value <= estimate.high
  values = [found[size].value for size in (4, 5, 9, 34)]
  assert values == sorted(values, reverse=True) and values[0] > values[-1]


def test_rank_one_without_distractors_is_the_package_s():
  rng = np.random.default_rng(0)
  people = np.repeat(np.arange(12), 6)
  centres = rng.normal(size=(12, 4))
  rows = centres[people] + rng.normal(size=(72, 4))
  similarity = -np.linalg.norm(rows[:, None] - rows, axis=-1)
  empty = np.zeros((72, 0))
  found = celeba_measures.rank_one(similarity, people, empty, (12,))[12]
  want = metrics.one_shot_accuracy(similarity, people, draws=2000)
  assert found.value == pytest.approx(want, abs=0.01)
  # A tie with anybody is an error, also with a distractor.
  found = celeba_measures.rank_one(
    (people[:, None] == people) * 1.0, people, np.ones((72, 3)), (12, 13)
  )
  assert found[12] == (1, 1, 1) and found[13] == (0, 0, 0)
  people[0] = 99
  with pytest.raises(ValueError, match="two images or more"):
    celeba_measures.rank_one(similarity, people, empty, (13,))
  people[0] = 0
  for sizes in ((11,), (16,)):
    with pytest.raises(ValueError, match="12..15"):
      celeba_measures.rank_one(similarity, people, np.ones((72, 3)), sizes)


def test_intervals_are_over_people():
  """All images of a person fail together: as if there were one of each."""
  people = np.repeat(np.arange(40), 20)
  fails = people % 4 == 0
  same = (people[:, None] == people) * 1.0
  similarity = np.where(fails[:, None], 1 - same, same)
  found = celeba_measures.rank_one(
    similarity, people, np.zeros((800, 0)), (40,)
  )[40]
  assert found.value == 0.75
  # Binomial of 40, not of 800: a standard deviation of 0.068.
  assert 0.22 < found.high - found.low < 0.32
  found = celeba_measures.triplet_accuracy(similarity, people)
  assert 0.22 < found.high - found.low < 0.32


def test_told_apart_is_the_area_under_the_curve():
  a, b = np.array([1.0, 2, 2, 5]), np.array([0.0, 2, 3])
  want = np.mean((a[:, None] > b) + 0.5 * (a[:, None] == b))
  assert celeba_measures.told_apart(a, b) == pytest.approx(want)
