"""All losses over class centres: what holds for every one of them."""

import functools
import math

import jax
import jax.numpy as jnp
import numeric
import numpy as np
import pytest
from reference import margin_batch as batch
from reference import margin_softmax as reference
from wrong import adaptive_margin as adaptive
from wrong import margin_softmax as wrong

from facesiam_jax import losses
from facesiam_jax.losses import softmax

KEY = jax.random.key(2)
ROWS = np.arange(8, dtype=np.int32)
STATISTICS = losses.NormStatistics(20.0, 15.0)


def _without_rows(loss, **settings):
  return lambda x, w, y, weights, rows: loss(x, w, y, weights, **settings)


def _elastic(x, w, y, weights, rows):
  return losses.elasticface(
    x, w, y, weights, key=KEY, rows=rows, scale=8.0, plus=True
  )


def _sub_center(x, w, y, weights, rows):
  parts = jnp.stack([jnp.asarray(w), -jnp.asarray(w)[:, ::-1]], axis=1)
  return losses.sub_center(x, parts, y, weights, scale=8.0)


# Each takes (embeddings, centres, labels, weights, rows in the batch).
LOSSES = {
  "cosface": _without_rows(losses.cosface, scale=8.0),
  "arcface": _without_rows(losses.arcface, scale=8.0),
  "combined": _without_rows(losses.combined_margin, scale=8.0, m1=1.35),
  "sphereface": _without_rows(losses.sphereface),
  "sub_center": _sub_center,
  "adaface": _without_rows(losses.adaface, scale=8.0, statistics=STATISTICS),
  "magface": _without_rows(losses.magface, scale=8.0),
  "elasticface": _elastic,
}
USE_THE_NORM = ("sphereface", "adaface", "magface")
BATCH = (
  np.asarray(batch.dirty()),
  batch.CENTERS,
  batch.LABELS,
  batch.WEIGHTS,
  ROWS,
)


# 1e-20 to 1e15.
LENGTHS = 10.0 ** np.arange(-20, 20, 5, np.float32)[:, None]


@functools.cache
def jitted(name):
  """values, gradient by embeddings and by centres, compiled once."""

  def mean(x, w, y, weights, rows):
    values, weights = LOSSES[name](x, w, y, weights, rows)
    return numeric.mean((values, weights)), values

  return jax.jit(jax.value_and_grad(mean, argnums=(0, 1), has_aux=True))


def run(name, **changes):
  """(values, gradient by embeddings, by centres) of BATCH with changes."""
  names = ("embeddings", "centers", "labels", "weights", "rows")
  arguments = {**dict(zip(names, BATCH, strict=True)), **changes}
  (_, values), gradients = jitted(name)(*arguments.values())
  return tuple(np.asarray(part) for part in (values, *gradients))


def assert_close(found, expected, atol=2e-6):
  for part, wanted in zip(found, expected, strict=True):
    np.testing.assert_allclose(part, wanted, rtol=2e-5, atol=atol)


def test_the_batch_takes_every_branch():
  assert np.isnan(BATCH[0][5]).all() and batch.LABELS[5] == -1
  angles = np.arccos(np.delete(batch.own_cosines(), 5))
  assert min(angles) < 0.05 and max(angles) > math.pi - 0.5
  pieces = np.floor(4 * angles / math.pi).astype(int)
  assert set(pieces) == {0, 1, 2, 3}, "SphereFace's k"
  norms = np.delete(batch.LENGTHS, 5)
  assert min(norms) < 10 and max(norms) > 110 and any(abs(norms - 60) < 40)


def test_naive_forms_are_right_without_a_flaw():
  """So the wrong variants fail for their flaw and not for their form."""
  wrong.check_arcface(wrong.naive(wrong.arc))
  cases = {
    "cosface": (wrong.plain, wrong.answers()),
    "combined": (wrong.mixed, wrong.answers()),
    "sphereface": (wrong.sphere, wrong.answers()),
    "adaface": (lambda c, n: adaptive.ada(c, n), adaptive.answers()),
  }
  for name, (psi, answers) in cases.items():
    scale = None if name == "sphereface" else batch.SCALE
    values, _ = wrong.naive(psi)(*BATCH[:4], scale=scale)
    np.testing.assert_allclose(values, answers[name][0], rtol=2e-5, atol=1e-6)
  answer = wrong.answers()["sub"][0]
  values, _ = wrong.naive(wrong.arc)(BATCH[0], batch.SUB_CENTERS, *BATCH[2:4])
  np.testing.assert_allclose(values, answer, rtol=2e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_plain_jit_and_vmap_agree(name):
  plain = LOSSES[name](*BATCH)
  values, _, _ = run(name)
  np.testing.assert_allclose(plain[0], values, rtol=1e-5, atol=1e-6)
  np.testing.assert_array_equal(plain[1], batch.WEIGHTS)
  twice = [np.stack([part, part[::-1]]) for part in BATCH]
  twice[1] = np.stack([batch.CENTERS] * 2)
  both, weights = jax.jit(jax.vmap(LOSSES[name]))(*twice)
  np.testing.assert_allclose(both[0], values, rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(both[1], values[::-1], rtol=1e-5, atol=1e-6)
  np.testing.assert_array_equal(weights, twice[3])


@pytest.mark.parametrize("name", LOSSES)
def test_invariances(name):
  """Order of rows and classes, rotation, length, content of padding."""
  values, by_rows, by_centers = run(name)
  order = np.array([6, 2, 5, 0, 7, 1, 4, 3])
  found = run(
    name,
    embeddings=BATCH[0][order],
    labels=batch.LABELS[order],
    weights=batch.WEIGHTS[order],
    rows=ROWS[order],
  )
  assert_close(found, (values[order], by_rows[order], by_centers))
  classes = np.array([3, 0, 6, 2, 5, 1, 4])
  moved = np.where(batch.LABELS < 0, -1, np.argsort(classes)[batch.LABELS])
  found = run(
    name, centers=batch.CENTERS[classes], labels=moved.astype(np.int32)
  )
  assert_close(found, (values, by_rows, by_centers[classes]))
  other = np.array(batch.EMBEDDINGS)
  other[5] = [1e30, np.inf, 0.0, -1.0, np.nan]
  labels = np.where(batch.WEIGHTS > 0, batch.LABELS, 4).astype(np.int32)
  for part, wanted in zip(
    run(name, embeddings=other, labels=labels),
    (values, by_rows, by_centers),
    strict=True,
  ):
    np.testing.assert_array_equal(part, wanted)
  assert values[5] == 0 and not by_rows[5].any()
  if name != "sub_center":
    turn = np.linalg.qr(np.random.default_rng(8).normal(size=(5, 5)))[0]
    turn = turn.astype(np.float32)
    found = run(name, embeddings=BATCH[0] @ turn, centers=BATCH[1] @ turn)
    wanted = (values, np.nan_to_num(by_rows) @ turn, by_centers @ turn)
    assert_close(found, wanted, atol=2e-5)
  if name not in USE_THE_NORM:
    found = run(name, embeddings=BATCH[0] * 4, centers=BATCH[1] / 4)
    assert_close(found, (values, by_rows / 4, by_centers * 4), atol=2e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_degenerate_batches_are_finite(name):
  everything = {"weights": np.ones(8, np.float32), "labels": ROWS % 7}
  centers = batch.CENTERS[ROWS % 7]
  cases = {
    "zero embeddings": {"embeddings": np.zeros((8, 5), np.float32)},
    "zero centres": {
      "embeddings": batch.EMBEDDINGS,
      "centers": np.zeros((7, 5), np.float32),
    },
    "at the centres": {"embeddings": centers},
    "away from them": {"embeddings": -3 * centers},
    "all alike": {"embeddings": np.ones((8, 5), np.float32)},
    "one class": {"embeddings": batch.EMBEDDINGS, "labels": ROWS * 0},
    "centres alike": {
      "embeddings": batch.EMBEDDINGS,
      "centers": np.ones((7, 5), np.float32),
    },
    "tiny and huge": {
      "embeddings": centers
      * 10.0 ** np.arange(-20, 20, 5)[:, None].astype(np.float32)
    },
  }
  for case, changes in cases.items():
    found = run(name, **{**everything, **changes})
    for part in found:
      assert np.all(np.isfinite(part)), case
    assert np.all(found[0] >= 0), case
    if case == "zero embeddings":
      assert not found[1].any() and not found[2].any()
  masked = run(
    name,
    embeddings=np.full((8, 5), np.nan, np.float32),
    weights=np.zeros(8, np.float32),
  )
  for part in masked:
    np.testing.assert_array_equal(part, np.zeros_like(part))


@pytest.mark.parametrize("name", LOSSES)
def test_one_row_and_one_class(name):
  found = run(
    name,
    embeddings=batch.EMBEDDINGS[2:3],
    centers=batch.CENTERS[:1],
    labels=np.zeros(1, np.int32),
    weights=np.ones(1, np.float32),
    rows=ROWS[:1],
  )
  penalty = reference.magface_penalty(batch.LENGTHS[2])
  expected = penalty if name == "magface" else 0.0
  np.testing.assert_allclose(found[0], [expected], rtol=1e-5)
  assert all(np.isfinite(part).all() for part in found)


@pytest.mark.parametrize("name", LOSSES)
def test_low_precision_inputs_are_cast_up_first(name):
  low = [jnp.asarray(part, jnp.bfloat16) for part in BATCH[:2]]
  found = LOSSES[name](*low, *BATCH[2:])
  high = [part.astype(jnp.float32) for part in low]
  expected = LOSSES[name](*high, *BATCH[2:])
  assert found[0].dtype == jnp.float32
  np.testing.assert_array_equal(found[0], expected[0])


@pytest.mark.parametrize("name", LOSSES)
def test_nan_and_wrong_labels_show(name):
  """NaN in a valid row, in a centre, and a label that only the device sees."""
  values, _, _ = run(name)
  spoilt = np.array(BATCH[0])
  spoilt[3, 2] = np.nan
  found, _, _ = run(name, embeddings=spoilt)
  assert np.isnan(found[3]) and found[5] == 0
  if name != "elasticface":
    # There a NaN moves the ranks of others.
    np.testing.assert_array_equal(np.delete(found, 3), np.delete(values, 3))
  labels = np.array(batch.LABELS)
  labels[[0, 2]] = [7, -1]
  found, _, _ = run(name, labels=labels)
  np.testing.assert_array_equal(np.flatnonzero(np.isnan(found)), [0, 2])
  centers = np.array(batch.CENTERS)
  centers[5, 1] = np.nan
  found, _, _ = run(name, centers=centers)
  assert np.isnan(np.delete(found, 5)).all() and found[5] == 0


PLAIN = BATCH[:4]


@pytest.mark.parametrize(
  ("loss", "twin"),
  [
    (
      lambda *b: losses.combined_margin(*b, m1=1.0, m2=0.5, m3=0.0),
      losses.arcface,
    ),
    (
      lambda *b: losses.combined_margin(*b, m1=1.0, m2=0.0, m3=0.35),
      losses.cosface,
    ),
    (
      lambda *b: losses.arcface(*b, margin=0.0),
      lambda *b: losses.cosface(*b, margin=0.0),
    ),
    (
      lambda *b: losses.sphereface(*b, scale=64.0, margin=1),
      lambda *b: losses.cosface(*b, margin=0.0),
    ),
    (
      lambda x, w, *b: losses.sub_center(x, w[:, None], *b),
      losses.arcface,
    ),
    (
      lambda *b: losses.elasticface(*b, key=KEY, std=0.0),
      losses.arcface,
    ),
    (
      lambda *b: losses.elasticface(*b, key=KEY, std=0.0, kind="cos"),
      losses.cosface,
    ),
    (
      lambda *b: losses.magface(*b, margin_range=(0.5, 0.5), regularizer=0.0),
      losses.arcface,
    ),
    (
      lambda *b: losses.adaface(
        *b, statistics=STATISTICS, margin=0.35, concentration=0.0
      ),
      losses.cosface,
    ),
  ],
)
def test_one_loss_is_a_case_of_another(loss, twin):
  np.testing.assert_allclose(
    loss(*PLAIN)[0], twin(*PLAIN)[0], rtol=2e-5, atol=2e-5
  )


def test_an_easy_example_keeps_its_digits():
  """At 64 (1 - m) above the others, where 1 - softmax is below float32."""
  centers = np.eye(5, dtype=np.float32)
  loss = jax.jit(lambda x, w: losses.cosface(x, w, np.zeros(1, np.int32))[0])
  values = loss(centers[:1], centers)
  expected = math.log1p(4 * math.exp(-64 * 0.65))
  assert expected < 1e-17
  np.testing.assert_allclose(values, [expected], rtol=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_products_are_full_precision(name):
  jaxpr = str(jax.make_jaxpr(jitted(name))(*BATCH))
  highest = "precision=(Precision.HIGHEST, Precision.HIGHEST)"
  assert jaxpr.count("dot_general") == jaxpr.count(highest) == 3


X, W, Y, M = batch.EMBEDDINGS, batch.CENTERS, ROWS % 7, batch.WEIGHTS


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ((X[0], W, Y, M), r"embeddings .*\(5,\)"),
    ((X, W[:, :4], Y, M), r"\(7, .*4\).*\(8, 5\)"),
    ((X, W, Y[:7], M), r"labels .*\(7,\).*\(8, 5\)"),
    ((X, W, Y, M[:7]), r"weights .*\(7,\).*\(8, 5\)"),
    ((X.astype(np.int32), W, Y, M), "embeddings .*int32"),
    ((X, W.astype(np.int32), Y, M), "class_weights .*int32"),
    ((X, W, Y.astype(np.float32), M), "labels .*float32"),
    ((X, W, Y + 1, M), "labels .* 0 to 6, got 7"),
    ((X, W, Y - 1, None), "labels .* 0 to 6, got -1"),
    ((X[:0], W, Y[:0], None), r"embeddings .*\(0, 5\)"),
    ((X, W[:0], Y, M), r"class_weights .*\(0, .*5\)"),
  ],
)
def test_bad_input_is_named(name, arguments, message):
  with pytest.raises(ValueError, match=message):
    LOSSES[name](*arguments, ROWS[: len(arguments[0])])


@pytest.mark.parametrize("scale", [0.0, -64.0, math.nan])
def test_scale_must_be_positive(scale):
  with pytest.raises(ValueError, match=f"scale .*{scale}"):
    losses.cosface(*PLAIN, scale=scale)


def test_sub_center_wants_several_centers():
  with pytest.raises(ValueError, match=r"class_weights .*\(7, 5\)"):
    losses.sub_center(*PLAIN)


def test_equal_sub_centers_share_the_gradient():
  parts = np.repeat(batch.CENTERS[:, None], 3, axis=1)
  mean = lambda w, x: numeric.mean(losses.sub_center(x, w, Y, M, scale=8.0))
  found = jax.jit(jax.grad(mean))(parts, X)
  np.testing.assert_array_equal(found[:, 0], found[:, 1])
  whole = run("arcface", embeddings=X, labels=Y)[2]
  np.testing.assert_allclose(np.sum(found, axis=1), whole, atol=1e-5)


def test_own_scale_of_a_zero_embedding_is_an_even_guess():
  values, _ = losses.sphereface(X * 0, W, Y)
  np.testing.assert_allclose(values, np.full(8, math.log(7)), rtol=1e-6)


def test_the_core_hands_the_margin_cosines_and_norms():
  seen = {}

  def target(cosines, norms):
    seen.update(cosines=cosines, norms=norms)
    return cosines

  softmax.margin_cross_entropy(*PLAIN, target=target)
  valid = batch.WEIGHTS > 0
  np.testing.assert_allclose(
    seen["cosines"], np.where(valid, batch.own_cosines(), 0.0), atol=1e-6
  )
  np.testing.assert_allclose(
    seen["norms"], np.where(valid, batch.LENGTHS, 0.0), rtol=1e-6
  )
