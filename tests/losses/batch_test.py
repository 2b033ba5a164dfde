"""What holds for every loss over a batch: devices, padding, degenerate ones."""

import functools

import chex
import jax
import jax.numpy as jnp
import numeric
import numpy as np
import pytest
from reference.loss_batches import COLUMNS, IDS, ROWS, WEIGHTS
from wrong import losses_batchwise, losses_pair_weighting

from facesiam_jax import losses
from facesiam_jax.losses import _batch

LOSSES = {
  "supcon": functools.partial(losses.supcon, temperature=0.3),
  "nt_xent": functools.partial(
    losses.nt_xent, temperature=0.3, other_positives="drop"
  ),
  "n_pair": functools.partial(losses.n_pair, norm_penalty=0.05),
  "multi_similarity": functools.partial(losses.multi_similarity, beta=9.0),
  "circle": functools.partial(losses.circle, scale=8.0),
}
each_loss = pytest.mark.parametrize("name", list(LOSSES))
DIRTY = np.where(WEIGHTS[:, None] > 0, COLUMNS, np.float32(np.nan))
ONE_HOT = np.eye(len(LOSSES), dtype=np.float32)
HONEST = losses_batchwise.HONEST | losses_pair_weighting.HONEST
VARIANTS = losses_batchwise.VARIANTS | losses_pair_weighting.VARIANTS


def _terms(name, columns, ids=IDS, weights=WEIGHTS, rows=ROWS):
  """Values and weights of the anchors `rows`; traceable."""
  return LOSSES[name](
    columns[rows],
    ids[rows],
    columns,
    ids,
    anchor_rows=rows,
    column_weights=weights,
  )


@functools.cache
def _jitted(name):
  """(values, weights) and the gradient of their mean, compiled once."""

  def run(columns, ids, weights, rows):
    def mean(columns):
      terms = _terms(name, columns, ids, weights, rows)
      return numeric.mean(terms), terms

    gradient, terms = jax.grad(mean, has_aux=True)(columns)
    return *terms, gradient

  return jax.jit(run)


def _run(name, columns=COLUMNS, ids=IDS, weights=WEIGHTS, rows=ROWS):
  return [np.asarray(x) for x in _jitted(name)(columns, ids, weights, rows)]


@pytest.mark.parametrize("name", list(HONEST))
def test_mistakes_are_refused_for_what_they_are(name):
  """The right formula passes where the wrong ones are built and refused."""
  honest = jax.jit(HONEST[name], static_argnames="other_positives")
  VARIANTS[f"losses.{name}"].check(honest)


def _one_of_all(chosen, own, rows, gathered, ids, weights):
  """The loss marked by a 1 in `chosen`: one compilation for all of them."""
  values, counted = [], []
  for loss in LOSSES.values():
    terms = loss(
      own,
      ids[rows],
      gathered,
      ids,
      anchor_rows=rows,
      column_weights=weights,
    )
    values.append(terms[0])
    counted.append(terms[1])
  pick = lambda x: jnp.tensordot(chosen, jnp.stack(x), axes=1)
  return pick(values), pick(counted)


@functools.cache
def _on_one_device():
  """Global loss and gradient of each, without any mapping."""
  rows = np.arange(16)

  def mean(columns, chosen):
    terms = _one_of_all(chosen, columns, rows, columns, IDS, WEIGHTS)
    return numeric.mean(terms)

  run = jax.jit(jax.value_and_grad(mean))
  return [run(DIRTY, chosen) for chosen in ONE_HOT]


@pytest.mark.parametrize("number", [1, 2, 4, 8])
def test_loss_and_gradient_do_not_depend_on_the_devices(number, devices):
  def loss(own, rows, gathered, ids, weights, chosen):
    return _one_of_all(chosen, own, rows, gathered, ids, weights)

  run = jax.jit(
    lambda chosen: numeric.over_devices(
      loss, DIRTY, IDS, WEIGHTS, chosen, devices=devices[:number]
    )
  )
  for chosen, expected in zip(ONE_HOT, _on_one_device(), strict=True):
    value, gradient = run(chosen)
    assert value > 0.05 and np.linalg.norm(gradient) > 0.05
    np.testing.assert_allclose(value, expected[0], rtol=1e-6)
    numeric.assert_gradients_close(gradient, expected[1], rtol=1e-5)


@each_loss
@pytest.mark.parametrize("filling", [np.nan, np.inf, 1e30, 0.0])
def test_padding_may_hold_anything(name, filling):
  dirty = np.where(WEIGHTS[:, None] > 0, COLUMNS, np.float32(filling))
  for actual, expected in zip(_run(name, dirty), _run(name), strict=True):
    np.testing.assert_array_equal(actual, expected)
  values, weights, gradient = _run(name, dirty)
  own = WEIGHTS[ROWS] == 0
  assert own.any() and not np.any(values[own]) and not np.any(weights[own])
  assert not np.any(gradient[WEIGHTS == 0])


@each_loss
def test_nan_in_a_valid_row_is_not_hidden(name):
  dirty = COLUMNS.copy()
  dirty[7, 2] = np.nan  # no anchor, but everybody's column
  values, weights, gradient = _run(name, dirty)
  assert np.all(np.isnan(values[weights > 0])) and np.any(weights > 0)
  assert np.any(np.isnan(gradient))


_DEGENERATE = {
  "no positives": (COLUMNS, np.arange(16), np.ones(16)),
  "no negatives": (COLUMNS, np.zeros(16), np.ones(16)),
  "all masked": (COLUMNS * np.nan, IDS, np.zeros(16)),
  "one row left": (COLUMNS, IDS, np.arange(16) == 3),
  "duplicates": (np.tile(COLUMNS[:1], (16, 1)), IDS, WEIGHTS),
  "opposites": (COLUMNS[:1] * (-1.0) ** np.arange(16)[:, None], IDS, WEIGHTS),
  "zeros": (np.zeros((16, 5)), IDS, WEIGHTS),
  "tiny": (COLUMNS * 1e-25, IDS, WEIGHTS),
  "huge": (COLUMNS * 1e17, IDS, WEIGHTS),
}
# What is 0 by the docstrings: values, and in them also the weights.
_NO_VALUE = {
  "no positives": ("supcon", "nt_xent", "n_pair", "circle"),
  "no negatives": ("nt_xent", "circle"),
  "all masked": tuple(LOSSES),
  "one row left": tuple(LOSSES),
}
_NO_WEIGHT = {**_NO_VALUE, "no negatives": ("circle",)}


@each_loss
@pytest.mark.parametrize("case", list(_DEGENERATE))
def test_degenerate_batches_are_finite_and_zero_as_documented(name, case):
  columns, ids, weights = _DEGENERATE[case]
  values, counted, gradient = _run(
    name,
    columns.astype(np.float32),
    ids.astype(np.int32),
    weights.astype(np.float32),
  )
  chex.assert_tree_all_finite((values, counted, gradient))
  assert np.all(values >= 0) and set(counted) <= {0.0, 1.0}
  assert np.any(counted) == (name not in _NO_WEIGHT.get(case, ()))
  if name in _NO_VALUE.get(case, ()):
    assert not np.any(values) and not np.any(gradient)
  elif case not in ("no positives", "opposites"):
    assert np.all(values[counted > 0] > 0)


def test_a_row_without_marked_entries_has_mean_zero():
  marked = np.array([[1, 1, 0], [0, 0, 0], [0, 0, 1]], bool)
  x = np.array([[1, 3, np.nan], [np.nan, 5, 5], [7, 7, -2]], np.float32)
  np.testing.assert_array_equal(_batch.row_means(x, marked), [2, 0, -2])


def test_padding_is_zero_in_the_pairs():
  columns = np.where(WEIGHTS[:, None] > 0, COLUMNS, np.float32(np.nan))
  pairs = _batch.make_pairs(
    columns[ROWS], IDS[ROWS], columns, IDS, ROWS, WEIGHTS
  )
  expected = np.where(WEIGHTS[:, None] > 0, COLUMNS, 0)
  np.testing.assert_array_equal(pairs.columns, expected)
  np.testing.assert_array_equal(pairs.anchors, expected[ROWS])


def test_a_single_row_costs_nothing():
  row = np.zeros(1, np.int32)

  def mean(columns, chosen):
    terms = _one_of_all(chosen, columns, row, columns, IDS[:1], WEIGHTS[1:2])
    return numeric.mean(terms), terms

  run = jax.jit(jax.grad(mean, has_aux=True))
  for chosen in ONE_HOT:
    gradient, (values, weights) = run(COLUMNS[:1], chosen)
    assert not np.any(values) and not np.any(weights) and not np.any(gradient)


@each_loss
def test_order_and_rotation_change_nothing(name):
  values, weights, gradient = _run(name)
  order = np.random.default_rng(5).permutation(16)
  places = np.argsort(order).astype(np.int32)
  shuffled = _run(
    name, COLUMNS[order], IDS[order], WEIGHTS[order], places[ROWS]
  )
  np.testing.assert_allclose(shuffled[0], values, rtol=1e-5, atol=1e-6)
  np.testing.assert_array_equal(shuffled[1], weights)
  numeric.assert_gradients_close(shuffled[2], gradient[order], rtol=1e-5)
  rotation, _ = np.linalg.qr(np.random.default_rng(6).normal(size=(5, 5)))
  rotated = _run(name, (COLUMNS @ rotation).astype(np.float32))
  np.testing.assert_allclose(rotated[0], values, rtol=1e-4, atol=1e-5)
  renamed = _run(name, ids=(1000 - 7 * IDS).astype(np.int32))
  np.testing.assert_array_equal(renamed[0], values)


@each_loss
def test_length_counts_for_n_pair_only(name):
  lengths = np.random.default_rng(8).uniform(0.5, 2.0, (16, 1))
  values = _run(name, (COLUMNS * lengths).astype(np.float32))[0]
  same = np.allclose(values, _run(name)[0], rtol=1e-4, atol=1e-5)
  assert same == (name != "n_pair")


@functools.cache
def _mapped():
  """All losses of two batches, the second as it is, by vmap."""
  two = jnp.stack([COLUMNS[::-1], COLUMNS])
  ids = jnp.stack([IDS[::-1], IDS])
  all_terms = lambda x, i: {name: _terms(name, x, i) for name in LOSSES}
  return jax.jit(jax.vmap(all_terms))(two, ids)


@each_loss
def test_jit_vmap_and_plain_agree(name):
  values, weights, _ = _run(name)
  mapped = [x[1] for x in _mapped()[name]]
  for actual in (_terms(name, COLUMNS), mapped):
    np.testing.assert_allclose(actual[0], values, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(actual[1], weights)
    assert actual[0].dtype == actual[1].dtype == jnp.float32


@each_loss
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_short_floats_are_cast_up_first(name, dtype):
  short = jnp.asarray(COLUMNS).astype(dtype)
  values, _ = _terms(name, short)
  assert values.dtype == jnp.float32
  np.testing.assert_array_equal(
    values, _terms(name, short.astype(jnp.float32))[0]
  )


def _equations(jaxpr):
  for equation in jaxpr.eqns:
    yield equation
    for inner in equation.params.values():
      if hasattr(inner, "jaxpr"):  # a called function
        yield from _equations(inner.jaxpr)


@each_loss
def test_products_are_exact_and_nothing_is_cubic(name):
  mean = lambda x: numeric.mean(_terms(name, x))
  jaxpr = jax.make_jaxpr(jax.grad(mean))(COLUMNS).jaxpr
  products = 0
  for equation in _equations(jaxpr):
    if equation.primitive.name == "dot_general":
      products += 1
      highest = jax.lax.Precision.HIGHEST
      assert equation.params["precision"] == (highest, highest)
    for result in equation.outvars:
      assert result.aval.size <= 8 * 16, f"{equation.primitive} {result.aval}"
  assert products >= 2


_GOOD = {
  "anchors": COLUMNS[:4],
  "anchor_ids": IDS[:4],
  "columns": COLUMNS,
  "column_ids": IDS,
  "anchor_rows": np.arange(4),
  "column_weights": WEIGHTS,
}


@each_loss
@pytest.mark.parametrize(
  "changes, match",
  [
    ({"anchors": COLUMNS[0]}, r"anchors must have shape \[B, D\], got \(5,\)"),
    ({"columns": COLUMNS[None]}, r"columns must have .* got \(1, 16, 5\)"),
    ({"anchors": IDS.reshape(4, 4)}, "anchors must be floating .* int32"),
    ({"columns": COLUMNS[:0]}, r"columns must not be empty, got .*\(0, 5\)"),
    ({"anchors": COLUMNS[:4, :3]}, r"same width, got \(4, 3\) and \(16, 5\)"),
    ({"anchor_ids": IDS[:3]}, r"anchor_ids .* got \(3,\) for \(4, 5\)"),
    ({"column_ids": IDS[None]}, r"column_ids .* \(1, 16\) for \(16, 5\)"),
    ({"column_ids": IDS * 1.0}, "column_ids must be integers, got .*float"),
    ({"anchor_ids": np.arange(4) + 2**31}, "anchor_ids must be from .* 2147"),
    ({"anchor_rows": np.arange(16)}, r"anchor_rows .* \(16,\) for \(4, 5\)"),
    ({"anchor_rows": np.arange(13, 17)}, "anchor_rows must be from -1 to 15"),
    ({"anchor_rows": jnp.arange(-2, 2)}, "anchor_rows .* 15, got -2"),
    ({"column_weights": WEIGHTS[:4]}, r"column_weights .*\(4,\) for \(16, 5\)"),
  ],
)
def test_bad_arguments_are_refused(name, changes, match):
  arguments = {**_GOOD, **changes}
  with pytest.raises(ValueError, match=match):
    LOSSES[name](**arguments)
