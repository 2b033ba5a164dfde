"""Every measure of one similarity matrix, for everybody once and for resamples.

People are drawn with replacement, never images, as `metrics.paired_bootstrap`
draws them: one seed draws the same people for every system. A person drawn m
times counts m times: in genuine pairs, as anchor and negative of triplets, as
search and as stranger, and m * n times in impostor pairs with one drawn n
times. The people in a gallery stay as they are.

Everybody once is measured exactly. In resamples the verification scores are in
bins, so that thousands of resamples are one matrix product; `binning_error`
tells what that changes.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from facesiam_jax import metrics
from facesiam_jax.evaluation import triplets
from facesiam_jax.metrics import tally as tally_lib

DRAWS, OPEN_SET_DRAWS = 100, 20
WAYS, FPIR = 10, 0.1
LEVEL = 0.95
_TARGETS = {"tar_at_far_0.01": 0.01}
_BINS = 1024
# Of the impostors, those that decide low false accept rates.
_TAIL = 0.05
Draws = dict[str, np.ndarray]


class _Hits(NamedTuple):
  """Searches that found their person first, and all, by person, [K] each."""

  hits: np.ndarray
  searches: np.ndarray

  def shares(self, copies: np.ndarray) -> np.ndarray:
    return (copies @ self.hits) / (copies @ self.searches)


class _OpenSet(NamedTuple):
  """One draw of a gallery: the searches, by whom.

  Attributes:
    mated: people searched for, int [M].
    hits: their score where they come first, else -inf, [M].
    strangers: people not enrolled, of each search, highest score first.
    highest: their highest score, falling.
  """

  mated: np.ndarray
  hits: np.ndarray
  strangers: np.ndarray
  highest: np.ndarray

  def fnirs(self, copies: np.ndarray) -> np.ndarray:
    """FNIR at the lowest threshold whose FPIR is at most the target, [R].

    Accepted are searches above the first stranger who is one too many. NaN
    where nobody enrolled, or no stranger, was drawn.
    """
    weights, times = copies[:, self.mated], copies[:, self.strangers]
    over = np.cumsum(times, axis=1) > FPIR * times.sum(axis=1, keepdims=True)
    limit = self.highest[np.argmax(over, axis=1)]
    missed = weights * (self.hits <= limit[:, None])
    known = weights.any(axis=1) & times.any(axis=1)
    with np.errstate(invalid="ignore"):
      return np.where(known, missed.sum(axis=1) / weights.sum(axis=1), np.nan)


def rank_one(
  similarity: np.ndarray, people: np.ndarray, ways: int, draws: int, seed: int
) -> _Hits:
  """Closed-set searches among `ways` people with one photo each, by person.

  Args:
    similarity: float [N, N], bigger is closer.
    people: person of each image, 0..K-1, int [N].
    ways: people in a draw.
    draws: of people and of their photos.
    seed: of the draws.

  Returns:
    Hits and searches of each person; ties are errors.
  """
  num = int(people.max()) + 1
  members = [np.flatnonzero(people == person) for person in range(num)]
  rng = np.random.default_rng(seed)
  hits, searches = np.zeros(num), np.zeros(num)
  for _ in range(draws):
    chosen = np.sort(rng.permutation(num)[:ways])
    references = np.array([rng.choice(members[person]) for person in chosen])
    is_probe = np.isin(people, chosen)
    is_probe[references] = False
    probes = np.flatnonzero(is_probe)
    scores = similarity[np.ix_(probes, references)]
    place = np.searchsorted(chosen, people[probes])
    own = np.take_along_axis(scores, place[:, None], axis=1)
    first = (scores >= own).sum(axis=1) == 1
    hits += np.bincount(people[probes], first, num)
    searches += np.bincount(people[probes], minlength=num)
  return _Hits(hits, searches)


def _open_sets(
  similarity: np.ndarray, people: np.ndarray, draws: int, seed: int
) -> list[_OpenSet]:
  """Half of the people enrolled by one photo each, drawn anew each time."""
  num = int(people.max()) + 1
  members = [np.flatnonzero(people == person) for person in range(num)]
  rng = np.random.default_rng(seed)
  found = []
  for _ in range(draws):
    chosen = np.sort(rng.permutation(num)[: num // 2])
    references = np.array([rng.choice(members[person]) for person in chosen])
    enrolled = np.isin(people, chosen)
    mated = np.setdiff1d(np.flatnonzero(enrolled), references)
    scores = similarity[np.ix_(mated, references)]
    place = np.searchsorted(chosen, people[mated])
    own = np.take_along_axis(scores, place[:, None], axis=1)
    first = (scores >= own).sum(axis=1) == 1
    hits = np.where(first, own[:, 0], -np.inf)
    strangers = np.flatnonzero(~enrolled)
    highest = similarity[np.ix_(strangers, references)].max(axis=1)
    order = np.argsort(-highest, kind="stable")
    found.append(
      _OpenSet(people[mated], hits, people[strangers[order]], highest[order])
    )
  return found


class _Pairs(NamedTuple):
  """All pairs of images.

  Attributes:
    scores: float64 [P].
    same: whether of one person, bool [P].
    ends: the two people, 0..K-1, int [2, P].
    num: K.
  """

  scores: np.ndarray
  same: np.ndarray
  ends: np.ndarray
  num: int


def _sums(pairs: _Pairs, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Sums of genuine pairs by person, [K], and of impostors by both, [K, K]."""
  own = pairs.ends[0, pairs.same]
  both = pairs.ends[0, ~pairs.same] * pairs.num + pairs.ends[1, ~pairs.same]
  table = np.bincount(both, weights[~pairs.same], pairs.num**2)
  return (
    np.bincount(own, weights[pairs.same], pairs.num),
    table.reshape(pairs.num, pairs.num),
  )


def _twice(copies: np.ndarray, table: np.ndarray) -> np.ndarray:
  """c' T c of each resample, [R]."""
  return np.sum((copies @ table) * copies, axis=1)


def _cllr(
  pairs: _Pairs, platt: metrics.Platt, copies: np.ndarray
) -> np.ndarray:
  logits = platt.w * pairs.scores + platt.b
  cost = np.logaddexp(0, np.where(pairs.same, -logits, logits)) / np.log(2)
  genuine, impostor = _sums(pairs, cost)
  genuine_of, impostor_of = _sums(pairs, np.ones_like(cost))
  of_genuine = (copies @ genuine) / (copies @ genuine_of)
  return (
    of_genuine + _twice(copies, impostor) / _twice(copies, impostor_of)
  ) / 2


def _edges(pairs: _Pairs) -> np.ndarray:
  """Scores between bins: quantiles of each kind, the impostors' tail finer."""
  shares = np.linspace(0, 1, _BINS + 1)[1:-1]
  impostor = pairs.scores[~pairs.same]
  return np.unique(
    np.concatenate(
      [
        np.quantile(pairs.scores[pairs.same], shares),
        np.quantile(impostor, shares),
        np.quantile(impostor, 1 - _TAIL + _TAIL * shares),
      ]
    )
  )


def _tallies(pairs: _Pairs, copies: np.ndarray) -> list[tally_lib.Tally]:
  """The tally of each resample, in bins."""
  edges = _edges(pairs)
  bins = np.searchsorted(edges, pairs.scores, side="right")
  size = len(edges) + 1
  count = lambda kind, who, most: np.bincount(
    bins[kind] * most + who[kind], minlength=size * most
  ).reshape(size, most)
  first, second = np.triu_indices(pairs.num, 1)
  number = np.zeros((pairs.num, pairs.num), np.int64)
  number[first, second] = number[second, first] = np.arange(len(first))
  who = number[pairs.ends[0], pairs.ends[1]]
  genuine = count(pairs.same, pairs.ends[0], pairs.num).astype(float)
  impostor = count(~pairs.same, who, len(first)).astype(float)
  weights = (copies[:, first] * copies[:, second]).astype(float)
  tables = [
    np.rint(one).astype(np.int64)[::-1]
    for one in (genuine @ copies.T, impostor @ weights.T)
  ]
  # Bins from high to low; what stands for their scores does not matter.
  values = np.arange(size, 0.0, -1.0)
  return [
    tally_lib.Tally(values[seen], g[seen], i[seen])
    for g, i in zip(tables[0].T, tables[1].T, strict=True)
    for seen in [(g + i) > 0]
  ]


def _verification(pairs: _Pairs, copies: np.ndarray) -> Draws:
  """Verification measures: exact for the first row, in bins for the others."""
  exact = tally_lib.tally(pairs.scores, pairs.same)
  binned = _tallies(pairs, copies)
  found = [
    tally_lib.summary_of(one, None, _TARGETS) for one in (exact, *binned)
  ]
  draws = {name: np.array([one[name] for one in found]) for name in found[0]}
  error = max(abs(draws[name][0] - draws[name][1]) for name in draws)
  draws = {name: np.delete(values, 1) for name, values in draws.items()}
  return draws | {"binning_error": np.full(len(copies), error)}


def people_drawn(num: int, resamples: int, seed: int) -> np.ndarray:
  """Returns copies of each person: first everybody once, int64 [1 + R, num]."""
  rng = np.random.default_rng(seed)
  drawn = [rng.integers(num, size=num) for _ in range(resamples)]
  copies = [np.bincount(one, minlength=num) for one in drawn]
  return np.stack([np.ones(num, np.int64), *copies])


def measure(
  similarity: np.ndarray,
  people: np.ndarray,
  platt: metrics.Platt,
  *,
  resamples: int,
  seed: int,
  open_set: bool,
) -> Draws:
  """Measures a similarity matrix on everybody and on resamples of people.

  Args:
    similarity: float [N, N], bigger is closer; the diagonal is not used.
    people: person of each image, int [N], each with two images or more.
    platt: fitted on other people: score -> log likelihood ratio, for C_llr.
    resamples: R.
    seed: of the draws of people.
    open_set: whether there are people enough for an open set.

  Returns:
    Measure -> float64 [1 + R]; first that of everybody once.
  """
  _, people = np.unique(people, return_inverse=True)
  num = int(people.max()) + 1
  copies = people_drawn(num, resamples, seed)
  i, j = np.triu_indices(len(people), 1)
  pairs = _Pairs(
    similarity[i, j].astype(np.float64),
    people[i] == people[j],
    np.stack([people[i], people[j]]),
    num,
  )
  draws = _verification(pairs, copies)
  right, of = (
    _twice(copies, table)
    for table in triplets.count_triplets(similarity, people)
  )
  draws["triplet_accuracy"] = right / of
  for name, ways in (("one_shot", min(WAYS, num)), ("rank_1", num)):
    hits = rank_one(similarity, people, ways, DRAWS, 0)
    draws[name] = hits.shares(copies)
  draws["cllr"] = _cllr(pairs, platt, copies)
  if open_set:
    opened = _open_sets(similarity, people, OPEN_SET_DRAWS, 0)
    rates = np.stack([one.fnirs(copies) for one in opened])
    draws["fnir_at_fpir_0.1"] = np.nanmean(rates, axis=0)
  return draws


def over_seeds(parts: Sequence[Sequence[Draws]], name: str) -> np.ndarray:
  """Draws of a measure that vary people and seeds together.

  Args:
    parts: [seeds][folds] of `measure`, of equal length; the folds have people
      of their own.
    name: of the measure.

  Returns:
    Mean over folds and seeds, float64 [1 + R]: first of everybody and all
    seeds; then each resample of people with seeds drawn with replacement, the
    same seeds for every system.
  """
  by_seed = np.array(
    [np.mean([fold[name] for fold in folds], axis=0) for folds in parts]
  )
  num_seeds, size = by_seed.shape
  rng = np.random.default_rng(0)
  drawn = rng.integers(num_seeds, size=(num_seeds, size))
  drawn[:, 0] = np.arange(num_seeds)
  return by_seed[drawn, np.arange(size)].mean(axis=0)


def estimate(draws: np.ndarray) -> dict[str, float]:
  """Returns the value and the ends of its interval, from [1 + R] draws."""
  tail = (1 - LEVEL) / 2
  low, high = np.quantile(draws[1:], [tail, 1 - tail])
  return {"value": float(draws[0]), "low": float(low), "high": float(high)}


def difference(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
  """Returns a - b as `estimate` does, with a p-value.

  As in `metrics.paired_bootstrap`: twice the share of draws on the far side of
  0, those at 0 counted, with one added to both numbers.
  """
  apart = a - b
  drawn = apart[1:]
  least = min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
  p_value = min(1.0, 2 * (least + 1) / (drawn.size + 1))
  return {**estimate(apart), "p_value": p_value}


def differences(
  draws: dict[str, np.ndarray],
) -> dict[str, dict[str, float]]:
  """Returns all differences of two systems, with Holm's adjusted p-values.

  Args:
    draws: system -> draws of one measure, of the same people and seeds.

  Returns:
    "a - b" -> its `difference`, and p_holm of this family of tests.
  """
  names = list(draws)
  found = {
    f"{a} - {b}": difference(draws[a], draws[b])
    for n, a in enumerate(names)
    for b in names[n + 1 :]
  }
  adjusted = metrics.holm([one["p_value"] for one in found.values()])
  for one, p_value in zip(found.values(), adjusted, strict=True):
    one["p_holm"] = float(p_value)
  return found
