"""Properties of distances, similarities, lengths and means, of any size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facesiam_jax import ops
from properties import strategies

_FEATURES = ("chi_square",)
_ROWWISE = {
  "euclidean": ops.euclidean_distance,
  "cosine": ops.cosine_similarity,
  "l1": ops.l1_distance,
  "chi_square": ops.chi_square_distance,
  "squared": ops.squared_distance,
}
_ALL_PAIRS = {
  "euclidean": ops.pairwise_euclidean_distance,
  "direct": lambda x, y: ops.pairwise_euclidean_distance(x, y, direct=True),
  "cosine": ops.pairwise_cosine_similarity,
  "l1": ops.pairwise_l1_distance,
  "chi_square": ops.pairwise_chi_square_distance,
  "squared": ops.pairwise_squared_distance,
}
# Powers of two, so that scaling is exact.
_FACTORS = st.sampled_from([2.0**-40, 0.25, 1.0, 2.0, 2.0**37])
_NO_SUBNORMAL = tuple(k for k in strategies.KINDS if k != "subnormal")


def _judge(functions):
  """Values and gradients of functions of two matrices, in one program."""

  def values_and_gradients(x, y):
    found = {}
    for name, function in functions.items():
      rows = jnp.abs(x), jnp.abs(y)
      arguments = rows if name in _FEATURES else (x, y)
      values, pull = jax.vjp(function, *arguments)
      found[name] = values, pull(jnp.ones_like(values))
    return found

  return strategies.jit(values_and_gradients)


_rowwise = _judge(_ROWWISE)
_all_pairs = _judge(_ALL_PAIRS)


def _values(judged, x, y):
  found = judged(x, y)
  return {name: np.asarray(value) for name, (value, _) in found.items()}


@st.composite
def _two(draw, low=-30, high=30, kinds=strategies.KINDS):
  """Two matrices of one shape that may have rows in common."""
  rows, width = draw(st.sampled_from(strategies.SHAPES))
  both = draw(strategies.matrices((2 * rows, width), low, high, kinds))
  return both[::2], both[1::2]


def _lengths(x):
  """Lengths in float64, of rows or of features."""
  return np.sqrt(np.square(x.astype(np.float64)).sum(axis=-1))


@given(_two())
def test_values_and_gradients_are_finite_at_any_magnitude(pair):
  for judged in (_rowwise, _all_pairs):
    found = judged(*pair)
    # Squares leave float32 above 1e18: see the next test.
    del found["squared"]
    strategies.assert_finite(found)


@given(_two(-30, 17))
def test_squared_distances_are_finite_as_far_as_squares_are(pair):
  for judged in (_rowwise, _all_pairs):
    strategies.assert_finite(judged(*pair)["squared"])


@given(_two())
def test_values_are_right(pair):
  """Against float64, at any magnitude."""
  found = _values(_rowwise, *pair)
  x, y = (np.where(np.abs(a) < 1e-37, 0, a).astype(np.float64) for a in pair)
  np.testing.assert_allclose(found["euclidean"], _lengths(x - y), 1e-5, 1e-36)
  np.testing.assert_allclose(found["l1"], np.abs(x - y).sum(1), 1e-5, 1e-36)
  size = np.abs(x) + np.abs(y)
  terms = (np.abs(x) - np.abs(y)) ** 2 / np.where(size == 0, 1, size)
  np.testing.assert_allclose(found["chi_square"], terms.sum(1), 1e-5, 1e-36)
  lengths = np.where(_lengths(x) == 0, 1, _lengths(x))
  lengths *= np.where(_lengths(y) == 0, 1, _lengths(y))
  cosines = np.sum(x * y, axis=1) / lengths
  np.testing.assert_allclose(found["cosine"], cosines, atol=1e-5)


@given(_two())
def test_row_by_row_it_is_symmetric_to_the_bit(pair):
  x, y = pair
  forwards, backwards = _rowwise(x, y), _rowwise(y, x)
  for name in _ROWWISE:
    values, (by_x, by_y) = forwards[name]
    other, (by_y_first, by_x_second) = backwards[name]
    strategies.assert_same_bits(values, other, name)
    if name != "squared":
      strategies.assert_same_bits([by_x, by_y], [by_x_second, by_y_first], name)


@given(_two())
def test_all_pairs_transposed_are_those_of_the_exchanged(pair):
  x, y = pair
  forwards, backwards = _values(_all_pairs, x, y), _values(_all_pairs, y, x)
  for name in ("l1", "chi_square", "direct"):
    strategies.assert_same_bits(forwards[name], backwards[name].T, name)
  np.testing.assert_allclose(
    forwards["cosine"], backwards["cosine"].T, atol=1e-6
  )
  scale = _lengths(x)[:, None] + _lengths(y)
  gap = np.abs(forwards["euclidean"] - backwards["euclidean"].T)
  assert (gap <= 2e-3 * scale + 1e-36).all()


@given(_two())
def test_all_pairs_have_the_rows_on_their_diagonal(pair):
  x, y = pair
  rows, pairs = _values(_rowwise, x, y), _values(_all_pairs, x, y)
  diagonal = {name: np.diagonal(values) for name, values in pairs.items()}
  for one, other in (
    ("l1", "l1"), ("chi_square", "chi_square"), ("euclidean", "direct")
  ):  # fmt: skip
    np.testing.assert_allclose(rows[one], diagonal[other], 2e-6, err_msg=one)
  np.testing.assert_allclose(rows["cosine"], diagonal["cosine"], atol=2e-6)
  # By a product, digits are lost beside the rows' own lengths.
  gap = np.abs(rows["euclidean"] - diagonal["euclidean"])
  assert (gap <= 2e-3 * (_lengths(x) + _lengths(y)) + 1e-36).all()


@given(_two(-30, 17))
def test_squared_distances_are_the_squares(pair):
  x, y = pair
  rows, pairs = _values(_rowwise, x, y), _values(_all_pairs, x, y)
  squares = np.square(_lengths(x.astype(np.float64) - y))
  np.testing.assert_allclose(rows["squared"], squares, 1e-5, 1e-36)
  lost = 1e-5 * (np.square(_lengths(x)) + np.square(_lengths(y))) + 1e-36
  gap = np.abs(np.diagonal(pairs["squared"]) - squares)
  assert (gap <= lost).all()


@given(_two(), st.integers(0, 2**16))
def test_the_way_around_is_never_shorter(pair, seed):
  x, y = pair
  order = np.random.default_rng(seed).permutation(len(x))
  z = np.roll(x, 1, axis=1)[order]
  ways = [_values(_rowwise, *ends) for ends in ((x, z), (x, y), (y, z))]
  for name, power in (("euclidean", 1), ("l1", 1), ("chi_square", 0.5)):
    direct, first, second = (way[name].astype(float) ** power for way in ways)
    assert (direct <= (first + second) * (1 + 1e-5) + 1e-36).all(), name


@given(_two(-12, 12, _NO_SUBNORMAL), _FACTORS)
def test_distances_scale_with_the_embeddings(pair, factor):
  x, y = pair
  scaled = _values(_rowwise, factor * x, factor * y)
  opposite = _values(_rowwise, -factor * x, -factor * y)
  plain = _values(_rowwise, x, y)
  for name in ("euclidean", "l1", "chi_square"):
    strategies.assert_same_bits(scaled[name], factor * plain[name], name)
    strategies.assert_same_bits(opposite[name], scaled[name], name)
  strategies.assert_same_bits(scaled["cosine"], plain["cosine"])


@given(_two(-12, 12, _NO_SUBNORMAL), _FACTORS)
def test_a_cosine_knows_the_direction_only(pair, factor):
  x, y = pair
  plain = _values(_rowwise, x, y)["cosine"]
  strategies.assert_same_bits(_values(_rowwise, factor * x, y)["cosine"], plain)
  strategies.assert_same_bits(_values(_rowwise, -x, y)["cosine"], -plain)


@given(_two())
def test_cosines_lie_between_minus_one_and_one(pair):
  x, y = pair
  for judged in (_rowwise, _all_pairs):
    assert (np.abs(_values(judged, x, y)["cosine"]) <= 1 + 1e-6).all()
  own = _values(_rowwise, x, x)["cosine"]
  # Below 1.2e-38 the hardware takes a number for 0.
  exists = np.abs(x).max(axis=1) > 2e-38
  np.testing.assert_allclose(own[exists], 1, atol=1e-6)


@given(_two())
def test_a_row_is_at_distance_zero_from_its_copy(pair):
  x, _ = pair
  rows, pairs = _rowwise(x, x), _all_pairs(x, x)
  for name in ("euclidean", "l1", "chi_square"):
    strategies.assert_same_bits(
      rows[name], jax.tree.map(np.zeros_like, rows[name])
    )
  for name in ("l1", "chi_square", "direct"):
    assert (np.diagonal(pairs[name][0]) == 0).all(), name


_normalize = strategies.jit(
  lambda x: (ops.l2_normalize(x), jax.vjp(ops.l2_normalize, x)[1](x * 0 + 1))
)


@given(_two())
def test_rows_of_unit_length_stay_as_they_are(pair):
  x, _ = pair
  unit, gradient = _normalize(x)
  strategies.assert_finite([unit, gradient])
  lengths = _lengths(np.asarray(unit))
  exists = np.abs(x).max(axis=1) > 2e-38
  np.testing.assert_allclose(lengths[exists], 1, rtol=1e-6)
  assert np.isin(np.round(lengths, 5), (0, 1)).all()
  np.testing.assert_allclose(_normalize(unit)[0], unit, atol=2e-7)


_root = strategies.jit(lambda x: (ops.safe_sqrt(x), jax.grad(_sum_of_roots)(x)))


def _sum_of_roots(x):
  return jnp.sum(ops.safe_sqrt(x))


@given(strategies.numbers(17, -37, 37))
def test_roots_are_finite_and_those_of_numpy(x):
  values, gradient = _root(x)
  strategies.assert_finite([values, gradient])
  expected = np.sqrt(np.where(x < np.finfo(np.float32).tiny, 0, x))
  np.testing.assert_allclose(values, expected, rtol=1e-6)


_mean = strategies.jit(jax.value_and_grad(ops.masked_mean))


@given(strategies.numbers(9, -18, 18), strategies.masks(9))
def test_a_mean_is_of_what_counts_only(values, mask):
  spoilt = np.where(mask > 0, values, np.nan).astype(np.float32)
  mean, gradient = _mean(spoilt, mask)
  strategies.assert_finite([mean, gradient])
  assert (np.asarray(gradient)[mask == 0] == 0).all()
  counted = values[mask > 0].astype(np.float64)
  expected = counted.mean() if counted.size else 0.0
  size = np.abs(counted).sum() if counted.size else 1.0
  np.testing.assert_allclose(mean, expected, atol=1e-6 * size + 1e-37)


@pytest.mark.parametrize("profile", ["fast", "soak"])
def test_both_profiles_are_there(profile):
  from hypothesis import settings

  chosen = settings.get_profile(profile)
  assert chosen.deadline is None and chosen.database is None
  assert chosen.derandomize == (profile == "fast")
