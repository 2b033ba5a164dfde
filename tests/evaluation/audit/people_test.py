"""Who is in two data sets, against loops over all pairs of people."""

import math

import numpy as np
import pytest

from facesiam_jax.data import names
from facesiam_jax.evaluation.audit import people


def _embeddings(seed=0, num=60, images=6, dim=24, noise=0.3):
  rng = np.random.default_rng(seed)
  centres = rng.normal(size=(num, dim)) + 2
  e = centres.repeat(images, axis=0)
  e += noise * rng.normal(size=e.shape)
  return e.astype(np.float32), np.arange(num).repeat(images)


def _directions(e, who, num):
  """What a person is compared by, in float64 loops."""
  e = e.astype(np.float64)
  means = np.array([e[who == p].mean(axis=0) for p in range(num)])
  means -= means.mean(axis=0)
  return np.array([m / math.sqrt((m * m).sum()) for m in means])


def _value(x, y, a, b, inside):
  """The excess of a pair (a, b), in loops."""
  cosine = lambda p, q: float((x[p] * y[q]).sum())
  row = [cosine(a, q) for q in range(len(y)) if not (inside and q == a)]
  column = [cosine(p, b) for p in range(len(x)) if not (inside and p == b)]
  cohorts = [np.mean(sorted(v)[::-1][1:11]) for v in (row, column)]
  return cosine(a, b) - sum(cohorts) / 2


def _split(who, person, new):
  """Puts every other image of a person under a new name."""
  return np.where((who == person) & (np.arange(len(who)) % 2 == 0), new, who)


def test_one_person_under_two_names_is_found_and_nobody_else():
  e, who = _embeddings()
  who = _split(who, 3, 60)
  found, chance = people.alike(people.summarise(e, who, 61))
  (pair,) = [pair for pair in found if pair.expected <= people.SURE]
  assert (pair.i, pair.j) == (3, 60)
  assert chance.pairs == 61 * 60 // 2
  reference = _directions(e, who, 61)
  wanted = _value(reference, reference, 3, 60, inside=True)
  assert pair.value == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("block", [7, 1024])
def test_two_sets_are_compared_and_known_pairs_are_passed_over(block):
  e, who = _embeddings()
  shift = np.linspace(0, 3, e.shape[1], dtype=np.float32)
  odd = np.arange(len(who)) % 2 == 1
  a, b = who[odd & (who < 40)], who[~odd & (who >= 30)] - 30
  first = people.summarise(e[odd & (who < 40)], a, 40)
  # Another camera: all faces of the second set are moved by the same.
  second = people.summarise(e[~odd & (who >= 30)] + shift, b, 30)
  found, chance = people.alike(first, second, known=[(30, 0)], block=block)
  assert {(p.i, p.j) for p in found} == {(30 + n, n) for n in range(1, 10)}
  assert chance.pairs == 40 * 30 - 1
  x = _directions(e[odd & (who < 40)], a, 40)
  y = _directions(e[~odd & (who >= 30)] + shift, b, 30)
  for pair in found:
    wanted = _value(x, y, pair.i, pair.j, inside=False)
    assert pair.value == pytest.approx(wanted, abs=1e-5)


def test_a_kind_that_the_network_finds_alike_is_not_told_of():
  rng = np.random.default_rng(3)
  centres = rng.normal(size=(80, 24))
  centres[:20] = 0.25 * centres[:20] + 2 * centres[0]
  e, who = centres.repeat(4, axis=0), np.arange(80).repeat(4)
  who = _split(who, 50, 80)
  e = e + 0.25 * rng.normal(size=e.shape)
  sums = people.summarise(e, who, 81)
  cosine = sums.directions @ sums.directions.T
  # By cosine alone dozens of that kind come before the person with two names.
  assert (np.triu(cosine, 1)[:20, :20] > cosine[50, 80]).sum() > 50
  found, _ = people.alike(sums)
  assert (found[0].i, found[0].j) == (50, 80)
  assert all(p.expected > people.SURE for p in found[1:])


def test_as_many_are_told_of_by_chance_as_is_said():
  told = [
    people.alike(people.summarise(*_people(seed)))[0] for seed in range(40)
  ]
  sure = [p for found in told for p in found if p.expected <= people.SURE]
  # LOOK and SURE are what is expected in each of the 40; five sd of Poisson.
  look = sum(map(len, told))
  assert 40 * people.LOOK / 3 < look < 40 * people.LOOK * 1.5
  assert len(sure) <= 8


def _people(seed):
  e, who = _embeddings(seed, num=150, images=2, dim=64, noise=0.8)
  return e, who, 150


def test_chance_goes_on_beyond_what_was_counted():
  normal = lambda v: 0.5 * math.erfc(v / math.sqrt(2))
  edges = people._EDGES
  share = [
    normal(lo * 4) - normal(hi * 4)
    for lo, hi in zip(edges[:-1], edges[1:], strict=True)
  ]
  counts = np.rint(np.array(share) * 1e6).astype(np.int64)
  chance = people.fit(counts, 100)
  for value in (1.0, 1.2, 1.3):
    wanted = 1e6 * normal(4 * value)
    assert wanted / 2 < chance.expected(value) < wanted * 2
  # A line through the same counts says ten times as many: no such variant.
  assert chance.a < 0
  assert chance.expected(-2.5) >= chance.expected(0) > chance.expected(0.5)


def test_a_tail_that_bends_upwards_becomes_a_line():
  v = people._EDGES[1:]
  density = 1e6 * np.exp(-8 * (v + 3)) + 200 * np.exp(-(v + 3))
  counts = np.rint(density).astype(np.int64)
  chance = people.fit(counts, 30)
  assert chance.a == 0 and chance.b < 0


def test_too_few_people_say_nothing():
  e, who = _embeddings(num=12)
  assert people.alike(people.summarise(e, who, 12)) == ([], None)
  one = people.summarise(e[:3], np.zeros(3, int), 1)
  assert people.alike(one) == ([], None)
  assert people.alike(one, one) == ([], None)
  assert people.suspects(e[:3], np.zeros(3, int), 1) == ([], None)
  nobody = people.summarise(e, who, 13)
  assert not nobody.directions[12].any() and nobody.num_images[12] == 0
  assert people.fit(np.zeros(6000, int), 0) is None


@pytest.mark.parametrize("block", [7, 1024])
def test_images_under_a_wrong_name_are_found(block):
  e, who = _embeddings(num=60)
  truth = who.copy()
  who = who.copy()
  who[[4, 50]] = [9, 2]
  found, chance = people.suspects(e, who, 60, block=block)
  assert {(s.row, s.other) for s in found} == {(4, truth[4]), (50, truth[50])}
  assert all(s.expected <= people.SURE and s.own < 0 < s.nearest for s in found)
  assert chance.pairs == 360 * 59
  x = e.astype(np.float64)
  means = np.array([x[who == p].mean(axis=0) for p in range(60)])
  unit = lambda v: v / np.linalg.norm(v)
  for s in found:
    face = unit(x[s.row] - means.mean(axis=0))
    mates = (who == who[s.row]) & (np.arange(len(who)) != s.row)
    # Its own image must not count: with it every image is like its person.
    own = face @ unit(x[mates].mean(axis=0) - means.mean(axis=0))
    near = [face @ unit(m - means.mean(axis=0)) for m in means]
    del near[who[s.row]]
    cohort = np.mean(sorted(near)[::-1][1:11])
    assert s.own == pytest.approx(own - cohort, abs=1e-5)
    assert s.nearest == pytest.approx(max(near) - cohort, abs=1e-5)


def test_an_image_of_nobody_is_suspected_but_not_sure():
  e, who = _embeddings(num=60)
  e[7] = np.random.default_rng(9).normal(size=24) + 2
  (found,), _ = people.suspects(e, who, 60)
  assert found.row == 7 and found.expected > people.SURE


def test_people_with_two_images_are_neither_suspected_nor_named():
  e, who = _embeddings(num=60)
  few = np.isin(who, (4, 5)) & (np.arange(len(who)) % 6 > 5 - who)
  assert np.bincount(who[~few])[[4, 5]].tolist() == [2, 1]
  e, who = e[~few], who[~few]
  wrong = np.flatnonzero(who == 4)[0]
  who = np.where(np.arange(len(who)) == wrong, 5, who)
  wrong = np.flatnonzero(who == 10)[0]
  e[wrong] = e[np.flatnonzero(who == 4)[0]]
  found, _ = people.suspects(e, who, 60)
  assert all(len(np.flatnonzero(who == who[s.row])) > 2 for s in found)
  assert [s.row for s in found] == [wrong]
  assert found[0].other != 4


def test_names_are_compared_without_case_accents_and_zeros():
  same = names.same_names(
    ["Beyonce_Knowles", "007", "Ada  Lovelace", "__"],
    ["beyonc\u00e9 knowles", "7", "ADA-LOVELACE", "70", "  "],
  )
  assert same == [(0, 0), (1, 1), (2, 2)]


def test_marks_of_other_scripts_are_letters():
  # Rama and Rima, ka and ga: accents to Unicode, other people to readers.
  rama, rima = "\u0930\u093e\u092e\u093e", "\u0930\u0940\u092e\u093e"
  ka, ga = "\u304b", "\u304c"
  assert names.same_names([rama, ka], [rima, ga]) == []
  assert names.same_names([rama, ga], [rama, "\u304b\u3099"]) == [
    (0, 0),
    (1, 1),
  ]
