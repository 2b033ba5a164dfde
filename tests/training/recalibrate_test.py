"""Tests of facesiam_jax.training.recalibrate."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from facesiam_jax import errors, heads, metrics
from facesiam_jax.training import calibrate, recalibrate

_RNG = np.random.default_rng(0)
_X, _Y = _RNG.normal(size=(2, 40, 6)).astype(np.float32)
HEADS = (
  "abs_difference_logistic",
  "chi_square_logistic",
  "cosine_logistic",
  "euclidean_logistic",
  "l1_logistic",
)


def _bundle(name, monotone):
  head = heads.create(name, monotone=monotone)
  variables = head.init(jax.random.key(0), _X, _Y)
  return head, types.SimpleNamespace(variables={"head": variables})


def _scores(values, same):
  people = np.arange(len(values))
  other = np.where(same, people, people + len(values))
  return calibrate.Scores(np.asarray(values, np.float32), people, other)


@pytest.mark.parametrize("monotone", [True, False])
@pytest.mark.parametrize("name", HEADS)
def test_the_fitted_head_is_the_old_one_scaled_and_shifted(name, monotone):
  head, bundle = _bundle(name, monotone)
  old = np.asarray(head.apply(bundle.variables["head"], _X, _Y))
  # Genuine pairs are those of higher logits, with some overlap.
  same = old + _RNG.normal(0, np.std(old), len(old)) > np.median(old)
  scores = _scores(old, same)
  variables, logits = recalibrate.fit_head(bundle, scores)
  scale, offset = metrics.fit_platt(old, same)
  np.testing.assert_allclose(logits, scale * old + offset, rtol=1e-5, atol=1e-5)
  assert jax.tree.structure(variables) == (
    jax.tree.structure(bundle.variables["head"])
  )
  found = head.apply(variables, jnp.asarray(_X), jnp.asarray(_Y))
  np.testing.assert_allclose(found, logits, rtol=2e-4, atol=2e-4)


def test_a_bundle_that_has_it_the_wrong_way_round_is_refused():
  _, bundle = _bundle("cosine_logistic", True)
  values = np.linspace(-1, 1, 40)
  with pytest.raises(errors.UserError, match="less alike than photos of two"):
    recalibrate.fit_head(bundle, _scores(values, values < 0.2))


@pytest.mark.parametrize(
  "people, match",
  [
    ([], "0 people with at most 0 photos"),
    ([3, 3, 3], "1 people with at most 3"),
    ([0, 1, 2], "3 people with at most 1"),
    (np.arange(3001) // 2, "3001 photos are more than"),
  ],
)
def test_people_who_cannot_be_compared_are_refused(people, match):
  with pytest.raises(errors.UserError, match=match):
    recalibrate.check_people(np.asarray(people))


def test_some_photos_are_of_as_many_people_as_possible():
  people = np.repeat(np.arange(10), [1, 1, 2, 3, 4, 5, 6, 7, 8, 30])
  np.testing.assert_array_equal(
    recalibrate.some_photos(people, 67), np.arange(67)
  )
  for most, each in ((60, 23), (40, 6), (18, 2)):
    rows = recalibrate.some_photos(people, most)
    np.testing.assert_array_equal(rows, np.unique(rows))
    assert len(rows) <= most
    expected = np.minimum(np.bincount(people), each)
    np.testing.assert_array_equal(np.bincount(people[rows]), expected)
  # Two photos of each are too many: two of some.
  rows = recalibrate.some_photos(people, 6)
  counts = np.bincount(people[rows])
  assert counts[counts > 0].tolist() == [2, 2, 2]


def test_likelihood_thresholds_where_densities_do_not_cross():
  rng = np.random.default_rng(0)
  i, j = np.triu_indices(80, 1)
  people = np.repeat(np.arange(40), 2)
  a, b = people[i], people[j]
  values = rng.normal(size=i.size)
  values[a == b] = 0.1 + 9 * rng.normal(size=40)
  scores = calibrate.Scores(values, a, b)
  found = calibrate.thresholds(values, scores, [0.2])
  assert "ml_gaussian" not in found and "fmr_0.2" in found
