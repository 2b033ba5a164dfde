"""Tests of facesiam_jax.heads; wrong/heads.py has those against references."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from reference import heads as reference

from facesiam_jax import heads, ops

NAMES = (
  "abs_difference_logistic",
  "chi_square_logistic",
  "cosine_logistic",
  "euclidean_logistic",
  "l1_logistic",
)
KINDS = (
  *((name, {}) for name in NAMES),
  *((name, {"monotone": False}) for name in NAMES[2:]),
  *((name, {"monotone": True}) for name in NAMES[:2]),
  ("euclidean_logistic", {"squared": True}),
  ("chi_square_logistic", {"features": "abs"}),
  ("chi_square_logistic", {"features": "relu"}),
)


class OwnHead(nn.Module):
  """A user's own head, made by its import path."""

  sizes: tuple[int, ...] = ()
  metric = "head"

  def __call__(self, x, y):
    return -ops.squared_distance(x, y)

  def from_scores(self, scores):
    raise ValueError("no single score")


class NoMetric(nn.Module):
  """Lacks what the bundle asks a head for."""

  def from_scores(self, scores):
    return scores


def _embeddings(shape=(9, 37)):
  rng = np.random.default_rng(0)
  return rng.normal(size=(2, *shape)).astype(np.float32)


def _made(name, args, x, y):
  head = heads.create(name, **args)
  return head, head.init(jax.random.key(0), x, y)


def _varied(variables):
  """The variables, away from their equal initial values."""
  rng = np.random.default_rng(1)
  moved = lambda v: v + rng.normal(size=v.shape).astype(np.float32) / 4
  return jax.tree.map(moved, variables)


@pytest.mark.parametrize("name, args", KINDS)
def test_symmetric_to_the_bit_and_row_by_row(name, args):
  x, y = _embeddings()
  head, variables = _made(name, args, x, y)
  variables = _varied(variables)
  apply = jax.jit(head.apply)
  logits = apply(variables, x, y)
  assert logits.shape == (9,) and logits.dtype == jnp.float32
  np.testing.assert_array_equal(logits, apply(variables, y, x))
  # A row does not know the rows beside it, as the bundle's matrix needs.
  turned = apply(variables, x[::-1], y[::-1])
  np.testing.assert_array_equal(logits[::-1], turned)
  plain = head.apply(variables, x, y)
  np.testing.assert_array_equal(plain, head.apply(variables, y, x))
  np.testing.assert_allclose(plain, logits, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name, args", KINDS)
def test_gradients_are_finite_at_equal_and_zero_rows(name, args):
  x, y = _embeddings()
  x[0] = y[0] = 0.0
  x[1] = y[1]
  x[2] = 0.0
  head, variables = _made(name, args, x, y)
  total = lambda *a: jnp.sum(head.apply(*a))
  grads = jax.jit(jax.grad(total, (0, 1, 2)))(variables, x, y)
  for grad in jax.tree.leaves(grads):
    assert np.all(np.isfinite(grad))
  np.testing.assert_allclose(grads[1][:2], 0.0, atol=1e-5)
  assert np.max(np.abs(grads[1][3:])) > 0


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_logits_and_gradients_at_extreme_scales(name, scale):
  x, y = _embeddings()
  # Softplus of a tiny entry is no longer tiny, so the features are plain.
  args = {"features": "relu"} if name == "chi_square_logistic" else {}
  head, variables = _made(name, args, x, y)
  both = jax.jit(
    jax.value_and_grad(lambda x, y: jnp.sum(head.apply(variables, x, y)))
  )
  _, expected = both(x, y)
  value, grad = both(x * np.float32(scale), y * np.float32(scale))
  assert np.isfinite(value)
  scaled = grad * np.float32(scale) if name == "cosine_logistic" else grad
  np.testing.assert_allclose(scaled, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("raw", [-20.0, 0.0, 20.0])
def test_the_sign_cannot_be_learned_away(name, raw):
  """Whatever the parameter becomes, a nearer pair has the higher logit."""
  x = jnp.array([[1.0, 0.5]])
  head, variables = _made(name, {"monotone": True}, x, x)
  for parameter, value in variables["params"].items():
    if parameter.startswith("raw_"):
      variables["params"][parameter] = jnp.full_like(value, raw)
    else:
      variables["params"][parameter] = jnp.zeros_like(value)
  same = head.apply(variables, x, x + 0.01)
  other = head.apply(variables, x, jnp.array([[0.0, 2.0]]))
  assert float(same[0]) > float(other[0])


@pytest.mark.parametrize("name", NAMES)
def test_a_free_sign_can_be_learned(name):
  weight = "scale" if name == "cosine_logistic" else "weight"
  x, y = _embeddings()
  args = {"monotone": False, "init_bias": 0.0}
  _, up = _made(name, {**args, f"init_{weight}": 0.5}, x, y)
  head, down = _made(name, {**args, f"init_{weight}": -0.5}, x, y)
  assert set(up["params"]) == {weight, "bias"}
  np.testing.assert_array_equal(head.apply(up, x, y), -head.apply(down, x, y))


@pytest.mark.parametrize("name", ("cosine_logistic", "euclidean_logistic"))
def test_bundles_of_before_still_load(name):
  x, y = _embeddings()
  _, variables = _made(name, {}, x, y)
  weight = {"cosine_logistic": "raw_scale"}.get(name, "raw_weight")
  size = {"cosine_logistic": 10.0}.get(name, 1.0)
  assert set(variables["params"]) == {weight, "bias"}
  raw = np.float32(np.log(np.expm1(size)))
  np.testing.assert_array_equal(variables["params"][weight], raw)


@pytest.mark.parametrize("size", [1e-6, 100.0, 1e4])
def test_initial_weights_of_any_size(size):
  x, y = _embeddings()
  head, variables = _made(
    "l1_logistic", {"init_weight": -size, "init_bias": 0.0}, x, y
  )
  expected = -size * np.float64(ops.l1_distance(x, y))
  np.testing.assert_allclose(head.apply(variables, x, y), expected, rtol=1e-5)


@pytest.mark.parametrize("name, args", KINDS)
def test_parameters_are_strongly_typed(name, args):
  """A weak type would become strong on restoring and compile anew."""
  for leaf in jax.tree.leaves(_made(name, args, *_embeddings())[1]):
    assert not leaf.weak_type and leaf.dtype == jnp.float32


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_is_computed_in_float32(name):
  x, y = jnp.asarray(_embeddings(), jnp.bfloat16)
  head, variables = _made(name, {}, x, y)
  logits = head.apply(variables, x, y)
  assert logits.dtype == jnp.float32
  expected = head.apply(variables, np.float32(x), np.float32(y))
  np.testing.assert_array_equal(logits, expected)


@pytest.mark.parametrize("name", NAMES)
def test_vmap_agrees(name):
  x, y = _embeddings()
  head, variables = _made(name, {}, x, y)
  apply = jax.jit(jax.vmap(lambda x, y: head.apply(variables, x, y)))
  stacked = apply(np.stack([x, y]), np.stack([y, y]))
  np.testing.assert_allclose(stacked[0], head.apply(variables, x, y), rtol=1e-6)


@pytest.mark.parametrize("features", ["abs", "relu", "softplus"])
def test_chi_square_features(features):
  x, y = _embeddings()
  head, variables = _made("chi_square_logistic", {"features": features}, x, y)
  variables = _varied(variables)
  expected = reference.chi_square(
    reference.features(features, x),
    reference.features(features, y),
    variables["params"]["weight"],
    float(variables["params"]["bias"]),
  )
  np.testing.assert_allclose(head.apply(variables, x, y), expected, rtol=1e-5)


def test_squared_euclidean_from_scores_takes_plain_distances():
  logits = heads.euclidean_logistic(np.float32([3.0]), -2.0, 1.0, squared=True)
  assert float(logits[0]) == -17.0
  x, y = _embeddings()
  head, variables = _made("euclidean_logistic", {"squared": True}, x, y)
  assert head.metric == "euclidean"
  logits = head.apply(
    variables, ops.euclidean_distance(x, y), method="from_scores"
  )
  np.testing.assert_allclose(logits, head.apply(variables, x, y), rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_head_learns_which_pairs_are_alike(name):
  """Gradient descent on cross-entropy separates near pairs from far ones."""
  x, y = _embeddings((32, 4))
  same = np.arange(32) % 2
  y = np.where(same[:, None] == 1, x + y / 8, y)
  head, variables = _made(name, {}, x, y)

  def loss(variables):
    logits = head.apply(variables, x, y)
    return jnp.mean(jnp.logaddexp(0.0, logits) - same * logits)

  def step(variables, _):
    grads = jax.grad(loss)(variables)
    return jax.tree.map(lambda v, g: v - 0.5 * g, variables, grads), None

  learned, _ = jax.jit(lambda v: jax.lax.scan(step, v, length=300))(variables)
  right = (head.apply(learned, x, y) > 0) == (same == 1)
  assert np.mean(right) >= 0.9
  assert float(loss(learned)) < 0.5


@pytest.mark.parametrize("name", NAMES[:2])
def test_heads_of_no_single_score_say_so(name):
  x, y = _embeddings()
  head, variables = _made(name, {}, x, y)
  assert head.metric == "head"
  assert variables["params"]["weight"].shape == (37,)
  with pytest.raises(ValueError, match="no function of one score"):
    head.apply(variables, x[:, 0], method="from_scores")


@pytest.mark.parametrize("name", NAMES[:2])
@pytest.mark.parametrize("monotone", [False, True])
def test_embeddings_of_another_width_are_refused(name, monotone):
  x, y = _embeddings()
  head, variables = _made(name, {"monotone": monotone}, x, y)
  with pytest.raises(ValueError, match=r"x .*\(9, 36\).*weight \(37,\)"):
    head.apply(variables, x[:, 1:], y[:, 1:])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
  "x, y, message",
  [
    (np.ones((3, 2), np.float32), np.ones((3, 4), np.float32), r"\(3, 4\)"),
    (np.ones(3, np.float32), np.ones(3, np.float32), r"rank 2.*\(3,\)"),
    (np.ones((3, 2), int), np.ones((3, 2), int), r"floating.*\(3, 2\)"),
    (np.ones((0, 2), np.float32), np.ones((0, 2), np.float32), r"\(0, 2\)"),
  ],
)
def test_bad_embeddings_are_refused(name, x, y, message):
  with pytest.raises(ValueError, match=message):
    heads.create(name).init(jax.random.key(0), x, y)


SCORES, WEIGHTS = np.ones(3, np.float32), np.ones(2, np.float32)
ROWS = np.ones((3, 2), np.float32)


@pytest.mark.parametrize(
  "call, message",
  [
    (lambda: heads.euclidean_logistic(SCORES, WEIGHTS, 0.0), r"weight.*\(2,\)"),
    (lambda: heads.l1_logistic(SCORES, 1.0, WEIGHTS), r"bias .*\(2,\)"),
    (lambda: heads.l1_logistic(np.arange(3), 1.0, 0.0), "distances .*int"),
    (lambda: heads.cosine_logistic(np.arange(3), 1.0, 0.0), "similarities"),
    (lambda: heads.cosine_logistic(SCORES[:0], 1.0, 0.0), r"empty.*\(0,\)"),
    (
      lambda: heads.abs_difference_logistic(ROWS, ROWS, SCORES, 0.0),
      r"weight .*\(2,\).*\(3, 2\).*\(3,\)",
    ),
    (
      lambda: heads.chi_square_logistic(ROWS, ROWS, WEIGHTS, WEIGHTS),
      r"bias .*\(2,\)",
    ),
  ],
)
def test_bad_arguments_of_the_functions_are_refused(call, message):
  with pytest.raises(ValueError, match=message):
    call()


@pytest.mark.parametrize(
  "name, args, message",
  [
    ("nope", {}, "unknown head 'nope'.*l1_logistic"),
    ("cosine_logistic", {"wrong": 1}, "cosine_logistic"),
    ("no.such.module:Head", {}, "no.such.module.*cannot be imported"),
    (f"{__name__}:Missing", {}, "Missing.*cannot be imported"),
    (":OwnHead", {}, "cannot be imported"),
    ("math:sqrt", {}, "math:sqrt.*not a flax"),
    (f"{__name__}:NoMetric", {}, "NoMetric.* has no metric"),
    ("flax.linen:Dense", {"features": 3}, "has no metric"),
  ],
)
def test_wrong_names_are_refused(name, args, message):
  with pytest.raises(ValueError, match=message):
    heads.create(name, **args)


def test_ones_own_head_by_its_import_path():
  head = heads.create(f"{__name__}:OwnHead", sizes=[3, 4])
  # Flax attributes must be hashable, and JSON has no tuples.
  assert head.sizes == (3, 4) and hash(head)
  x, y = _embeddings()
  assert head.apply({}, x, y).shape == (9,)


@pytest.mark.parametrize(
  "name, args, message",
  [
    (
      "euclidean_logistic",
      {"init_weight": 1.0},
      "must be negative.*1.0",
    ),
    ("l1_logistic", {"init_weight": 0.0}, "init_weight must be negative"),
    ("cosine_logistic", {"init_scale": 0.0}, "init_scale must be positive"),
    (
      "abs_difference_logistic",
      {"init_weight": 0.1, "monotone": True},
      "init_weight must be negative where monotone",
    ),
    ("chi_square_logistic", {"features": "exp"}, "features .*'exp'"),
  ],
)
def test_wrong_attributes_are_refused(name, args, message):
  x, y = _embeddings()
  with pytest.raises(ValueError, match=message):
    heads.create(name, **args).init(jax.random.key(0), x, y)


@pytest.mark.parametrize(
  "head, attributes",
  [
    (heads.EuclideanLogistic, (-1.0, 1.0, True, False)),
    (heads.L1Logistic, (-0.1, 1.0, True)),
    (heads.CosineLogistic, (10.0, -5.0, True)),
    (heads.AbsDifferenceLogistic, (-0.1, 1.0, False)),
    (heads.ChiSquareLogistic, (-0.1, 1.0, False, "softplus")),
  ],
)
def test_what_a_head_starts_from(head, attributes):
  of_flax = ("parent", "name")
  fields = [f for f in dataclasses.fields(head) if f.name not in of_flax]
  assert tuple(field.default for field in fields) == attributes
