"""Partial FC over 1, 2, 4 and 8 devices against the dense loss."""

import functools
import math
import sys

import jax
import jax.numpy as jnp
import numeric
import numpy as np
import pytest
from jax import lax
from reference import margin_batch as batch
from reference import margin_softmax as reference
from wrong import partial_fc as wrong

from facesiam_jax import losses, ops, parallel
from facesiam_jax.losses import margins, softmax
from facesiam_jax.losses.partial_fc import shard_columns

AXIS = parallel.AXIS
KEY = jax.random.key(12)
COUNTS = [1, 2, 4, 8]
NUM_CLASSES, WIDTH, ROWS = 1000, 16, 32
RNG = np.random.default_rng(17)
CENTERS = RNG.normal(size=(NUM_CLASSES, WIDTH)).astype(np.float32)
LABELS = RNG.integers(0, NUM_CLASSES, ROWS).astype(np.int32)
LABELS[:8] = [0, 124, 125, 499, 500, 999, 999, 7]
# As in training: each row near its own centre, some very near, some not.
_NOISE = np.geomspace(0.05, 4.0, ROWS)[:, None]
EMBEDDINGS = CENTERS[LABELS] + _NOISE * RNG.normal(size=(ROWS, WIDTH))
EMBEDDINGS = EMBEDDINGS.astype(np.float32)
WEIGHTS = np.ones(ROWS, np.float32)
WEIGHTS[[3, 20]] = 0.0
WEIGHTS[11] = 2.0
DIRTY = np.where(WEIGHTS[:, None] > 0, EMBEDDINGS, np.nan).astype(np.float32)
SAMPLE = reference.sample(
  wrong.priorities(KEY, NUM_CLASSES), LABELS, WEIGHTS, 100
)
CASES = {
  "all classes": {},
  "a sample": {"sample_fraction": 0.1, "key": KEY},
}


@functools.cache
def dense(name):
  """The one-device loss on all classes, or on those of the sample."""
  kept = np.array(SAMPLE) if name == "a sample" else np.arange(NUM_CLASSES)
  labels = np.where(WEIGHTS > 0, np.searchsorted(kept, LABELS), 0)

  def total(embeddings, centers):
    return numeric.mean(
      losses.arcface(embeddings, centers[kept], labels, WEIGHTS)
    )

  return jax.jit(jax.value_and_grad(total, argnums=(0, 1)))(DIRTY, CENTERS)


def over_shards(devices, centers=CENTERS, labels=LABELS, **settings):
  settings = {"target": wrong.arc, "num_classes": NUM_CLASSES, **settings}
  return wrong.over_shards(
    losses.partial_fc, DIRTY, centers, labels, WEIGHTS, devices, **settings
  )


def assert_same(found, expected):
  """The issue's bounds: loss 1e-6 relative, gradients 1e-5 of their norm."""
  np.testing.assert_allclose(found[0], expected[0], rtol=1e-6)
  for gradient, wanted in zip(found[1], expected[1], strict=True):
    numeric.assert_gradients_close(gradient, wanted, rtol=1e-5)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("count", COUNTS)
def test_equals_the_dense_loss(name, count, devices):
  """Gradients as they come off the devices: complete, none to be summed."""
  found = over_shards(devices[:count], **CASES[name])
  assert_same(found, dense(name))
  by_rows, by_centers = (np.asarray(part) for part in found[1])
  assert not by_rows[WEIGHTS == 0].any()
  left_out = np.setdiff1d(np.arange(NUM_CLASSES), SAMPLE)
  assert name == "all classes" or not by_centers[left_out].any()


def test_dense_loss_is_the_loop():
  values = reference.losses(
    EMBEDDINGS,
    CENTERS,
    LABELS,
    WEIGHTS,
    lambda c, length, row: reference.arcface(c),
    classes=SAMPLE,
  )
  expected = reference.mean(values, WEIGHTS)
  np.testing.assert_allclose(dense("a sample")[0], expected, rtol=1e-5)
  assert 1.0 < expected < 20.0, "neither trivial nor hopeless"


def test_sample_holds_the_batch_and_chance():
  assert len(SAMPLE) == 100
  positives = set(LABELS[WEIGHTS > 0])
  assert positives <= set(SAMPLE)
  # Rows of weight 0 bring no class.
  assert 499 in LABELS and 499 not in positives | set(SAMPLE)


def _sizes(jaxpr):
  """The sizes of all arrays inside a jaxpr and those it contains."""
  for equation in jaxpr.eqns:
    for variable in equation.outvars:
      yield math.prod(getattr(variable.aval, "shape", ()))
    for value in equation.params.values():
      for part in value if isinstance(value, tuple | list) else [value]:
        inner = getattr(part, "jaxpr", part)
        if hasattr(inner, "eqns"):
          yield from _sizes(inner)


@pytest.mark.parametrize("name", CASES)
def test_no_device_holds_all_centers_or_all_logits(name, devices):
  """The largest array of a step is the shard or its part of the logits."""

  def step(embeddings, centers, labels, weights):
    def total(embeddings, centers):
      values, _ = losses.partial_fc(
        embeddings,
        centers,
        labels,
        weights,
        target=wrong.arc,
        num_classes=NUM_CLASSES,
        axis_name=AXIS,
        **CASES[name],
      )
      return jnp.sum(values)

    return jax.grad(total, (0, 1))(embeddings, centers)

  rows = jax.sharding.PartitionSpec(AXIS)
  mapped = parallel.pmap(
    step, parallel.make_mesh(devices), in_specs=(rows,) * 4
  )
  closed = jax.make_jaxpr(mapped)(DIRTY, CENTERS, LABELS, WEIGHTS)
  (inside,) = _mapped_bodies(closed.jaxpr)
  largest = max(_sizes(inside))
  assert largest <= ROWS * NUM_CLASSES // 8
  if name == "a sample":
    shard = NUM_CLASSES // 8
    columns = shard_columns(100, NUM_CLASSES, shard, ROWS)
    assert columns < shard
    assert largest <= max(ROWS * columns, shard * WIDTH)


def _mapped_bodies(jaxpr):
  for equation in jaxpr.eqns:
    if equation.primitive.name == "shard_map":
      yield getattr(equation.params["jaxpr"], "jaxpr", equation.params["jaxpr"])
      continue
    for value in equation.params.values():
      inner = getattr(value, "jaxpr", value)
      if hasattr(inner, "eqns"):
        yield from _mapped_bodies(inner)


def test_gradient_of_a_replicated_encoder_is_summed(devices):
  """psum of the devices' parts is the gradient of the global mean."""
  layer = np.eye(WIDTH, dtype=np.float32) + 0.1
  spec, rows = jax.sharding.PartitionSpec(), jax.sharding.PartitionSpec(AXIS)
  inputs = np.nan_to_num(DIRTY)

  def step(layer, inputs, centers, labels, weights):
    def total(layer):
      values, used = losses.partial_fc(
        inputs @ layer,
        centers,
        labels,
        weights,
        target=wrong.arc,
        num_classes=NUM_CLASSES,
        axis_name=AXIS,
      )
      weight = lax.psum(lax.stop_gradient(jnp.sum(used)), AXIS)
      return jnp.sum(values * used) / weight

    return lax.psum(jax.grad(total)(layer), AXIS)

  mapped = parallel.pmap(
    step,
    parallel.make_mesh(devices),
    in_specs=(spec, rows, rows, rows, rows),
    out_specs=spec,
  )
  found = mapped(layer, inputs, CENTERS, LABELS, WEIGHTS)
  total = lambda layer: numeric.mean(
    losses.arcface(inputs @ layer, CENTERS, LABELS, WEIGHTS)
  )
  numeric.assert_gradients_close(found, jax.jit(jax.grad(total))(layer), 1e-5)


def _own(values):
  """This device's rows of an array of the global batch."""
  return jnp.asarray(values)[parallel.own_rows(ROWS)]


def _elastic(cosines, norms):
  return margins.elasticface(
    cosines,
    parallel.own_rows(ROWS),
    _own(WEIGHTS),
    key=KEY,
    plus=True,
    axis_name=AXIS,
  )


MAG = {"norm_range": (2.0, 8.0)}


def _mag(cosines, norms):
  # The norms' part of MagFace, with limits that fit these embeddings.
  margin = 0.45 + 0.35 * (jnp.clip(norms, 2.0, 8.0) - 2.0) / 6.0
  return margins.arcface(cosines, margin=margin)


# Settings of partial_fc, and the dense loss that they are.
FORMS = {
  "sphereface": (
    {"target": lambda c, n: margins.sphereface(c), "scale": None},
    losses.sphereface,
  ),
  "magface": (
    {"target": _mag},
    functools.partial(losses.magface, regularizer=0.0, **MAG),
  ),
  "elasticface+": (
    {"target": _elastic},
    functools.partial(losses.elasticface, key=KEY, plus=True),
  ),
}


@pytest.mark.parametrize("name", FORMS)
def test_any_margin_may_be_used(name, devices):
  """Eight devices, 997 classes: three rows of the last shard are padding."""
  settings, loss = FORMS[name]
  labels = np.minimum(LABELS, 996)
  found = over_shards(devices, labels=labels, num_classes=997, **settings)
  total = lambda x, w: numeric.mean(loss(x, w[:997], labels, WEIGHTS))
  expected = jax.jit(jax.value_and_grad(total, (0, 1)))(DIRTY, CENTERS)
  assert_same(found, expected)
  assert not np.asarray(found[1][1])[997:].any()


def test_sub_centers_and_sample_together(devices):
  parts = RNG.normal(size=(NUM_CLASSES, 2, WIDTH)).astype(np.float32)
  found = over_shards(devices[:4], centers=parts, **CASES["a sample"])
  kept = np.array(SAMPLE)
  labels = np.where(WEIGHTS > 0, np.searchsorted(kept, LABELS), 0)
  total = lambda x, w: numeric.mean(
    losses.sub_center(x, w[kept], labels, WEIGHTS)
  )
  expected = jax.jit(jax.value_and_grad(total, (0, 1)))(DIRTY, parts)
  assert_same(found, expected)


X, W, Y = batch.EMBEDDINGS, batch.CENTERS, np.arange(8, dtype=np.int32) % 7


def small(x, w, y, weights=None, **settings):
  """partial_fc on one device, under vmap, with seven classes."""
  settings = {
    "target": wrong.arc,
    "num_classes": 7,
    "axis_name": AXIS,
    "scale": 8.0,
    **settings,
  }
  add = lambda part: None if part is None else jnp.asarray(part)[None]
  mapped = jax.vmap(
    lambda *arrays: losses.partial_fc(*arrays, **settings), axis_name=AXIS
  )
  return jax.tree.map(
    lambda part: part[0], mapped(add(x), add(w), add(y), add(weights))
  )


def test_degenerate_batches():
  """All masked; one class; zeros; labels that are none; NaN."""
  run = jax.jit(lambda *arrays: small(*arrays)[0])
  x, w, y, ones = X, W, Y, np.ones(8, np.float32)
  np.testing.assert_array_equal(run(x * np.nan, w, y, 0 * ones), np.zeros(8))
  expected = reference.losses(
    x, w, y, ones, lambda c, length, row: reference.arcface(c), scale=8.0
  )
  np.testing.assert_allclose(run(x, w, y, ones), expected, rtol=2e-5)
  assert np.all(np.isfinite(run(0 * x, w, y, ones)))
  assert np.all(np.isfinite(run(x, 0 * w, 0 * y, ones)))
  wrong_labels = np.array([0, 1, 7, 3, -1, 5, 6, 0], np.int32)
  found = np.isnan(run(x, w, wrong_labels, ones))
  np.testing.assert_array_equal(np.flatnonzero(found), [2, 4])
  alone = jax.jit(lambda *arrays: small(*arrays, num_classes=1)[0])
  np.testing.assert_array_equal(alone(x, w[:1], 0 * y), np.zeros(8))


@pytest.mark.parametrize("columns", [5, 4])
def test_an_overflow_gives_nan_and_no_wrong_number(columns, monkeypatch):
  """Five of seven classes: five columns hold them, four do not."""
  module = sys.modules["facesiam_jax.losses.partial_fc"]
  monkeypatch.setattr(module, "shard_columns", lambda *sizes: columns)
  run = lambda *arrays: small(*arrays, sample_fraction=0.7, key=KEY)[0]
  found = jax.jit(run)(X[:4], W, np.array([0, 5, 6, 6]))
  assert np.isnan(found).all() == (columns < 5)


def test_padding_forces_no_class_into_the_sample():
  rng = np.random.default_rng(3)
  x, w = (rng.normal(size=(n, 5)).astype(np.float32) for n in (4, 40))
  y, weights = np.array([7, 7, 7, 0], np.int32), np.array([1, 1, 1, 0.0])

  @jax.jit
  def pulls(key):
    total = lambda w: small(
      *(x, w, y, weights), num_classes=40, sample_fraction=0.1, key=key
    )[0].sum()
    return jnp.abs(jax.grad(total)(w)).sum(axis=-1) > 0

  drawn = np.array([pulls(jax.random.key(seed)) for seed in range(4)])
  # Class 7 is always there, class 0 of the padding is as rare as any.
  assert drawn[:, 7].all() and not drawn[:, 0].all()
  np.testing.assert_array_equal(drawn.sum(axis=1), 4)


def test_a_cosine_equal_to_the_largest_negative_is_no_noise():
  axes = np.eye(5, dtype=np.float32)
  # Class 1 lies on the embeddings, which are of class 0: a cosine of just 1.
  x, w, y = axes[[0] * 8], axes[[1, 0, 1, 1, 1, 1, 1]], np.zeros_like(Y)
  run = lambda bound: small(x, w, y, largest_negative=bound)[0]
  np.testing.assert_array_equal(run(1.0), run(None))
  assert (run(0.999) < run(1.0)).all()


def test_noisy_negatives_count_as_zero():
  run = jax.jit(lambda *arrays: small(*arrays, largest_negative=0.3)[0])
  found = run(X, W, Y, np.ones(8, np.float32))
  expected = reference.losses(
    X,
    W,
    Y,
    np.ones(8),
    lambda c, length, row: reference.arcface(c),
    scale=8.0,
    largest_negative=0.3,
  )
  np.testing.assert_allclose(found, expected, rtol=2e-5)


@pytest.mark.parametrize(
  ("arguments", "settings", "message"),
  [
    ((X, W, Y), {"num_classes": 8}, r"num_classes .*7.*\(7, 5\).*got 8"),
    ((X, W, Y), {"num_classes": 0}, "num_classes .*got 0"),
    ((X, W, Y), {"sample_fraction": 0.0}, "sample_fraction .*0.0"),
    ((X, W, Y), {"sample_fraction": 1.5}, "sample_fraction .*1.5"),
    ((X, W, Y), {"sample_fraction": 0.5}, "needs a key"),
    ((X, W, Y), {"scale": -1.0}, "scale .*-1.0"),
    ((X[:, 0], W[:, :1], Y), {}, r"\(7, 1\).*\(8,\)"),
    ((X, W[:, :4], Y), {}, r"centers .*\(7, 4\).*\(8, 5\)"),
    ((X, W[:0], Y), {}, r"centers .*\(0, 5\)"),
    ((X, W, Y[:4]), {}, r"labels .*\(4,\).*\(8, 5\)"),
    ((X, W, Y, np.ones(3)), {}, r"weights .*\(3,\).*\(8, 5\)"),
    ((X.astype(np.int32), W, Y), {}, "embeddings .*int32"),
    ((X, W, Y * 1.0), {}, "labels .*float"),
  ],
)
def test_bad_input_is_named(arguments, settings, message):
  with pytest.raises(ValueError, match=message):
    small(*arguments, **settings)


def test_core_and_shards_share_their_sums():
  """peak_and_total by hand: -inf for a row that counts nothing is 0."""
  logits = jnp.array([[1.0, 3.0], [2.0, 2.0]])
  counted = jnp.array([[True, True], [False, False]])
  peaks, totals = softmax.peak_and_total(logits, counted)
  np.testing.assert_allclose(peaks, [3.0, 0.0])
  np.testing.assert_allclose(totals, [1 + math.exp(-2.0), 0.0], rtol=1e-6)
  assert ops.masked_mean(totals, jnp.array([0.0, 1.0])) == 0
