"""Tests of facesiam_jax.ops; wrong/ops*.py has those against references."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial import distance as scipy_distance
from sklearn.metrics import pairwise as sklearn_pairwise
from wrong import ops_pairwise
from wrong.ops import F, G, X, Y

from facesiam_jax import ops
from facesiam_jax.ops import logits, norms, pairwise, rowwise

ROWWISE = (
  "chi_square_distance",
  "chi_square_terms",
  "cosine_similarity",
  "euclidean_distance",
  "l1_distance",
  "squared_distance",
)
PAIRWISE = (
  "pairwise_chi_square_distance",
  "pairwise_cosine_similarity",
  "pairwise_dot",
  "pairwise_euclidean_distance",
  "pairwise_l1_distance",
  "pairwise_squared_distance",
)
BLOCKED = ("pairwise_chi_square_distance", "pairwise_l1_distance")


@functools.cache
def compiled(name):
  return jax.jit(getattr(ops, name))


def _features(seed, shape=(64, 37)):
  rng = np.random.default_rng(seed)
  return rng.random(size=shape, dtype=np.float32)


def test_all_names_are_public():
  assert set(ROWWISE) | set(PAIRWISE) < set(ops.__all__)
  for name in ops.__all__:
    assert callable(getattr(ops, name))


@pytest.mark.parametrize("name", ROWWISE + PAIRWISE)
def test_plain_jit_and_vmap_agree(name):
  function = getattr(ops, name)
  plain = function(F, G)
  np.testing.assert_allclose(compiled(name)(F, G), plain, rtol=1e-6)
  stacked = jax.jit(jax.vmap(function))(np.stack([F, X]), np.stack([G, Y]))
  np.testing.assert_allclose(stacked[0], plain, rtol=1e-6)


@pytest.mark.parametrize("name", ROWWISE + PAIRWISE)
def test_half_precision_is_computed_in_float32(name):
  x, y = jnp.asarray(F, jnp.bfloat16), jnp.asarray(G, jnp.bfloat16)
  value = compiled(name)(x, y)
  assert value.dtype == jnp.float32
  expected = compiled(name)(np.float32(x), np.float32(y))
  np.testing.assert_array_equal(value, expected)


@pytest.mark.parametrize("name", ROWWISE)
def test_rowwise_is_symmetric_to_the_bit_and_knows_no_other_rows(name):
  x, y = _features(1), _features(2)
  value = compiled(name)(x, y)
  np.testing.assert_array_equal(value, compiled(name)(y, x))
  order = np.random.default_rng(3).permutation(len(x))
  np.testing.assert_array_equal(
    value[order], compiled(name)(x[order], y[order])
  )


@pytest.mark.parametrize("name", PAIRWISE)
def test_pairwise_follows_the_order_of_rows(name):
  x, y = _features(1), _features(2)
  value = compiled(name)(x, y)
  np.testing.assert_allclose(
    value[::-1, ::-1], compiled(name)(x[::-1], y[::-1]), rtol=1e-6
  )
  np.testing.assert_allclose(value.T, compiled(name)(y, x), rtol=1e-5)


@pytest.mark.parametrize(
  "name",
  [
    "cosine_similarity",
    "euclidean_distance",
    "pairwise_cosine_similarity",
    "pairwise_dot",
    "pairwise_euclidean_distance",
    "pairwise_squared_distance",
    "squared_distance",
  ],
)
def test_rotating_the_embeddings_changes_nothing(name):
  x, y = _features(1), _features(2)
  rng = np.random.default_rng(3)
  rotation, _ = np.linalg.qr(rng.normal(size=(37, 37)))
  turned = compiled(name)(np.float32(x @ rotation), np.float32(y @ rotation))
  np.testing.assert_allclose(turned, compiled(name)(x, y), rtol=1e-5)


@pytest.mark.parametrize("name", PAIRWISE)
def test_scipy_and_scikit_learn_agree(name):
  x, y = _features(1), _features(2)
  expected = {
    "pairwise_chi_square_distance": lambda: (
      -sklearn_pairwise.additive_chi2_kernel(np.float64(x), np.float64(y))
    ),
    "pairwise_cosine_similarity": lambda: (
      1 - scipy_distance.cdist(x, y, "cosine")
    ),
    "pairwise_dot": lambda: np.float64(x) @ np.float64(y).T,
    "pairwise_euclidean_distance": lambda: scipy_distance.cdist(x, y),
    "pairwise_l1_distance": lambda: scipy_distance.cdist(x, y, "cityblock"),
    "pairwise_squared_distance": lambda: scipy_distance.cdist(
      x, y, "sqeuclidean"
    ),
  }[name]()
  np.testing.assert_allclose(compiled(name)(x, y), expected, rtol=1e-5)


def test_ordinary_lengths_have_the_bits_of_the_plain_formula():
  """The scale is a power of two, so that it costs no accuracy."""
  x, y = _features(1), _features(2)
  plain = jax.jit(lambda x, y: jnp.sqrt(jnp.sum((x - y) ** 2, axis=-1)))
  np.testing.assert_array_equal(
    compiled("euclidean_distance")(x, y), plain(x, y)
  )
  unit = np.asarray(jax.jit(ops.l2_normalize)(x - 0.5), np.float64)
  np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1.0, rtol=2e-7)


def test_scales_are_powers_of_two_and_their_reciprocals_do_not_vanish():
  x = np.float32([0, 1e-45, 1e-38, 1.4, 1.6, 1e30, 3.4e38, np.inf])[:, None]
  scale = np.asarray(jax.jit(norms.scale_of)(x))
  mantissa, _ = np.frexp(scale)
  np.testing.assert_array_equal(mantissa, 0.5)
  assert 2.0**-125 <= scale.min() and scale.max() <= 2.0**125
  normal = x[3:6] / scale[3:6]
  assert normal.min() >= 0.75 and normal.max() <= 1.5


@pytest.mark.parametrize("name", ("cosine_similarity", "euclidean_distance"))
def test_rows_below_the_range_of_float32_stay_finite(name):
  x, y = X * np.float32(1e-40), Y * np.float32(1e-42)
  value, pull = jax.vjp(compiled(name), x, y)
  assert np.all(np.isfinite(value))
  for grad in pull(jnp.ones_like(value)):
    assert np.all(np.isfinite(grad))


def test_an_infinite_entry_is_infinitely_far():
  x = X.copy()
  x[1, 2] = -np.inf
  distance = compiled("euclidean_distance")(x, Y)
  assert distance[1] == np.inf and np.isfinite(distance).sum() == 4


@pytest.mark.parametrize(
  "name",
  [
    "chi_square_distance",
    "cosine_similarity",
    "euclidean_distance",
    "pairwise_euclidean_distance",
  ],
)
def test_second_derivatives(name):
  """Right away from the kinks, finite at them."""
  along = X[:2] / 2
  total = lambda x, y: jnp.sum(jnp.sin(getattr(ops, name)(x, y)))
  slope = jax.jit(jax.grad(total))
  turn = jax.jit(
    jax.grad(lambda x, y: jnp.sum(jax.grad(total)(x, y) * along), (0, 1))
  )
  x, y = F[:2] + np.float32(0.3), G[:2]
  step = np.float32(1e-2)
  expected = (slope(x + step * along, y) - slope(x - step * along, y)) / 0.02
  np.testing.assert_allclose(turn(x, y)[0], expected, rtol=1e-2, atol=1e-3)
  zeros = np.zeros((2, 3), np.float32)
  for other in (zeros, y):
    for second in turn(zeros, other):
      assert np.all(np.isfinite(second))


@pytest.mark.parametrize("name", BLOCKED)
def test_blocks_change_nothing(name):
  whole = getattr(ops, name)(F, G)
  for block_rows in (1, 2, 5, 100):
    blocked = jax.jit(getattr(ops, name), static_argnames="block_rows")(
      F, G, block_rows=block_rows
    )
    np.testing.assert_allclose(blocked, whole, rtol=1e-6)


@pytest.mark.parametrize("name", BLOCKED)
def test_blocks_that_do_not_divide_the_rows_pass_the_same_test(name):
  check = ops_pairwise.VARIANTS[f"ops.{name}"].check
  check(functools.partial(getattr(ops, name), block_rows=2))


@pytest.mark.parametrize("name", BLOCKED)
def test_padding_of_the_last_block_has_no_gradient(name):
  y = G.copy()
  y[1] = np.nan
  total = lambda y: jnp.sum(getattr(ops, name)(F, y, block_rows=2)[:, [0, 2]])
  grad = jax.jit(jax.grad(total))(y)
  assert np.all(np.isfinite(grad[jnp.array([0, 2, 3, 4])]))
  np.testing.assert_array_equal(grad[3:], 0.0)


def test_direct_distances_are_right_for_near_duplicates(monkeypatch):
  x = 100 * _features(1)
  y = x[::-1] * np.float32(1 + 1e-5)
  expected = scipy_distance.cdist(x, y)
  # Blocks of three of the 64 rows.
  monkeypatch.setattr(pairwise, "_BLOCK_ENTRIES", 3 * y.size)
  direct = functools.partial(ops.pairwise_euclidean_distance, direct=True)
  np.testing.assert_allclose(jax.jit(direct)(x, y), expected, rtol=1e-5)
  near = np.asarray(compiled("pairwise_euclidean_distance")(x, y))
  with pytest.raises(AssertionError):
    np.testing.assert_allclose(near, expected, rtol=1e-5)
  np.testing.assert_array_equal(np.diag(direct(x[:5], x[:5])), 0.0)


def test_direct_distances_pass_the_same_test():
  case = ops_pairwise.VARIANTS["ops.pairwise_euclidean_distance"].check
  direct = functools.partial(ops.pairwise_euclidean_distance, direct=True)
  case.check_values(direct)
  gradients = jax.jit(ops_pairwise.with_gradients(direct))
  case.check_gradients(gradients)
  case.check_kinks(gradients)


def test_a_row_against_its_copy_leaves_what_the_docstrings_say():
  x = 10 * _features(1)
  norms_sq = np.sum(x**2, axis=1)
  squared = np.diag(compiled("pairwise_squared_distance")(x, x))
  assert np.all(squared <= 1e-6 * norms_sq)
  plain = np.diag(compiled("pairwise_euclidean_distance")(x, x))
  assert np.all(plain <= 1e-3 * np.sqrt(norms_sq))
  for name in ("pairwise_squared_distance", "pairwise_euclidean_distance"):
    total = lambda x, y, name=name: jnp.trace(getattr(ops, name)(x, y))
    for grad in jax.jit(jax.grad(total, (0, 1)))(x, x):
      assert np.max(np.abs(grad)) <= 1e-3


def test_chi_square_of_signed_features_is_bounded():
  x, y = np.float32([[1.0, -2.0, 3.0]]), np.float32([[-1.0, 2.0, 3.0]])
  terms = ops.chi_square_terms(x, y)
  np.testing.assert_allclose(terms, [[2.0, 4.0, 0.0]], rtol=1e-6)
  grad = jax.grad(lambda x: jnp.sum(ops.chi_square_terms(x, y)))(x)
  np.testing.assert_allclose(grad, [[1.0, -1.0, 0.0]], rtol=1e-6)


FINE = np.ones((3, 2), np.float32)
BAD_PAIRS = {
  "rank": (np.ones(3, np.float32), FINE, r"x and y .*rank 2.*\(3,\).*\(3, 2\)"),
  "width": (FINE, np.ones((3, 4), np.float32), r"x and y .*\(3, 2\).*\(3, 4\)"),
  "integers": (
    FINE,
    np.ones((3, 2), np.int32),
    r"y must be floating.*\(3, 2\)",
  ),
  "no rows": (FINE[:0], FINE, r"x and y .*empty.*\(0, 2\).*\(3, 2\)"),
  "no entries": (FINE[:, :0], FINE[:, :0], r"x and y .*empty.*\(3, 0\)"),
}


@pytest.mark.parametrize("case", list(BAD_PAIRS))
@pytest.mark.parametrize("name", ROWWISE + PAIRWISE)
def test_bad_pairs_are_refused(name, case):
  x, y, message = BAD_PAIRS[case]
  with pytest.raises(ValueError, match=message):
    jax.eval_shape(getattr(ops, name), x, y)


@pytest.mark.parametrize("name", ROWWISE)
def test_unequal_numbers_of_rows_are_refused(name):
  with pytest.raises(ValueError, match=r"same shape.*\(3, 2\).*\(2, 2\)"):
    jax.eval_shape(getattr(ops, name), FINE, FINE[:2])


@pytest.mark.parametrize(
  "call, message",
  [
    (lambda: ops.l2_normalize(np.float32(1)), r"x .*axis.*\(\)"),
    (lambda: ops.l2_normalize(FINE[:0]), r"x is empty.*\(0, 2\)"),
    (lambda: ops.l2_normalize(np.ones((3, 2), int)), r"x .*int.*\(3, 2\)"),
    (lambda: ops.safe_sqrt(np.ones(3, int)), r"x must be floating.*\(3,\)"),
    (lambda: ops.masked_mean(FINE, FINE[:2]), r"values and weights .*\(3, 2\)"),
    (lambda: ops.masked_mean(FINE, FINE[:, :1]), r"\(3, 2\) and \(3, 1\)"),
    (lambda: ops.masked_mean(FINE[:0], FINE[:0]), r"weights .*empty.*\(0, 2\)"),
    (lambda: ops.pairwise_l1_distance(FINE, FINE, block_rows=0), "block_rows"),
    (
      lambda: ops.pairwise_chi_square_distance(FINE, FINE, block_rows=-1),
      "block_rows .*-1",
    ),
  ],
)
def test_other_bad_input_is_refused(call, message):
  with pytest.raises(ValueError, match=message):
    call()


@pytest.mark.parametrize("size", [1.0, 1e-30, 1e30])
def test_constants_of_a_compiled_function_are_scaled_too(size):
  """XLA folds constants by other rules than it computes by."""
  x = np.array([[3.0, 4.0], [0.0, 0.0]], np.float32) * np.float32(size)
  unit = jax.jit(lambda: ops.l2_normalize(x))()
  np.testing.assert_allclose(unit, [[0.6, 0.8], [0.0, 0.0]], rtol=1e-6)
  apart = jax.jit(lambda: ops.pairwise_euclidean_distance(x, x[::-1].copy()))()
  expected = np.array([[5.0, 0.0], [0.0, 5.0]]) * size
  np.testing.assert_allclose(apart, expected, rtol=1e-5, atol=1e-3 * size)


def test_second_derivatives_of_chi_square():
  """Those of (x - y)^2 / (|x| + |y|), and 0 where 0 / 0 counts as 0."""
  slope = jax.grad(lambda v: rowwise.chi_square(v[0], v[1]))
  bend = jax.jit(lambda v, way: jax.jvp(slope, (v,), (way,))[1])
  way = jnp.array([2.0, -5.0])
  expected = np.array([[0.125, -0.375], [-0.375, 1.125]]) @ way
  for sign in (1.0, -1.0):
    found = bend(sign * jnp.array([3.0, 1.0]), way)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
  np.testing.assert_array_equal(bend(jnp.zeros(2), way), np.zeros(2))


def test_one_of_two_wrong_arguments_is_enough():
  one, none = np.ones((1, 1), np.float32), np.ones((0, 1), np.float32)
  assert ops.pairwise_l1_distance(one, one).shape == (1, 1)
  for x, y in ((one, none), (none, one)):
    with pytest.raises(ValueError, match="^x and y must not be empty"):
      ops.pairwise_l1_distance(x, y)
  two = np.ones(2, np.float32)
  for weight, bias in ((two, 1.0), (1.0, two)):
    with pytest.raises(ValueError, match="weight and bias must be scalars"):
      logits.l1_logistic(two, weight, bias)
  for weight, bias in ((two, 1.0), (two[:1], two)):
    with pytest.raises(ValueError, match=r"weight must have shape \(1,\)"):
      logits.abs_difference_logistic(one, one, weight, bias)


@pytest.mark.parametrize("wrong", ["x", "y"])
def test_the_array_that_is_not_floating_is_named(wrong):
  arrays = {"x": np.ones((2, 3), np.float32), "y": np.ones((2, 3), np.float32)}
  arrays[wrong] = arrays[wrong].astype(np.int32)
  for function in (ops.squared_distance, ops.pairwise_squared_distance):
    with pytest.raises(ValueError, match=f"^{wrong} must be floating point"):
      function(**arrays)


def test_distances_lost_to_rounding_have_no_slope():
  x, y = jnp.array([[1.0, 1e-5]]), jnp.array([[1.0, 0.0]])
  total = lambda x: jnp.sum(ops.pairwise_euclidean_distance(x, y))
  value, slope = jax.value_and_grad(total)(x)
  assert value == 0
  np.testing.assert_array_equal(slope, np.zeros((1, 2)))
