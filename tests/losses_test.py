"""Tests of facesiam_jax.losses against float64 loops and wrong variants."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import test_util
from reference import losses as reference

from facesiam_jax import losses, ops

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(0, 3, 11).astype(np.float32)
SAME = np.array([1, 0, 0, 1, 1, 0, 1, 0, 0, 0, 1], np.int32)
DISTANCES = RNG.uniform(0.05, 2.0, 11).astype(np.float32)
FARTHER = RNG.uniform(0.05, 2.0, 11).astype(np.float32)
EMBEDDINGS = RNG.normal(size=(13, 5)).astype(np.float32)
IDS = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2, 3, 4, 4, 0], np.int32)
MARGIN = 0.7


def _supcon(embeddings, ids=IDS, **kwargs):
  kwargs = {"temperature": 0.3, "anchor_rows": jnp.arange(len(ids)), **kwargs}
  return losses.supcon(embeddings, ids, embeddings, ids, **kwargs)


def test_binary_cross_entropy_equals_loop():
  values, weights = losses.binary_cross_entropy(LOGITS, SAME)
  np.testing.assert_allclose(
    values, reference.binary_cross_entropy(LOGITS, SAME), rtol=1e-5
  )
  np.testing.assert_array_equal(weights, np.ones(11))


@pytest.mark.parametrize("logit", [-1e4, -90.0, 20.0, 1e4])
@pytest.mark.parametrize("same", [0, 1])
def test_binary_cross_entropy_cannot_overflow(logit, same):
  mean = lambda z: losses.binary_cross_entropy(z, jnp.array([same]))[0][0]
  value, grad = jax.value_and_grad(mean)(jnp.array([logit]))
  expected = max(logit, 0.0) - logit * same
  np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-5)
  np.testing.assert_allclose(grad[0], (logit > 0) - same, atol=1e-5)


def test_contrastive_equals_loop_and_truth_table():
  values, _ = losses.contrastive(DISTANCES, SAME, margin=MARGIN)
  expected = reference.contrastive(DISTANCES, SAME, MARGIN)
  hinged = (SAME == 0) & (DISTANCES < MARGIN)
  assert hinged.any() and ((SAME == 0) & ~hinged).any()
  np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6)


def test_triplet_equals_loop():
  values, _ = losses.triplet_margin(DISTANCES, FARTHER, margin=MARGIN)
  expected = reference.triplet_margin(DISTANCES, FARTHER, MARGIN)
  assert (expected > 0).any() and (expected == 0).any()
  np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6)


def test_supcon_equals_loop():
  values, weights = _supcon(EMBEDDINGS)
  expected, expected_weights = reference.supcon(EMBEDDINGS, IDS, 0.3)
  assert 0 in expected_weights  # one person has a single image
  np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6)
  np.testing.assert_array_equal(weights, expected_weights)


def _wrong_variants():
  """Plausible mistakes, and what the right function gives."""
  bce = reference.binary_cross_entropy(LOGITS, SAME)
  con = reference.contrastive(DISTANCES, SAME, MARGIN)
  tri = reference.triplet_margin(DISTANCES, FARTHER, MARGIN)
  sup, _ = reference.supcon(EMBEDDINGS, IDS, 0.3)
  unit = np.asarray(ops.l2_normalize(EMBEDDINGS))
  logits = unit @ unit.T / 0.3
  positive = (IDS[:, None] == IDS[None, :]) & ~np.eye(13, dtype=bool)
  with_self = np.log(np.sum(np.exp(logits), axis=1, keepdims=True))
  no_self = np.exp(logits) * ~np.eye(13, dtype=bool)
  negatives = np.where(positive, 0, no_self).sum(1, keepdims=True)
  count = np.maximum(positive.sum(1), 1)
  mean = lambda x: np.where(positive, x, 0).sum(1) / count
  raw = EMBEDDINGS @ EMBEDDINGS.T / 0.3
  raw_total = np.log((np.exp(raw) * ~np.eye(13, dtype=bool)).sum(1))[:, None]
  return {
    "bce flipped label": (
      reference.binary_cross_entropy(LOGITS, 1 - SAME),
      bce,
    ),
    "bce on probabilities": (
      reference.binary_cross_entropy(1 / (1 + np.exp(-LOGITS)), SAME),
      bce,
    ),
    "bce wrong sign": (reference.binary_cross_entropy(-LOGITS, SAME), bce),
    "bce positives only": (bce * SAME, bce),
    "contrastive flipped label": (
      reference.contrastive(DISTANCES, 1 - SAME, MARGIN),
      con,
    ),
    "contrastive plain for squared": (np.sqrt(con), con),
    "contrastive half": (con / 2, con),
    "contrastive no hinge": (
      np.where(SAME == 1, DISTANCES**2, (MARGIN - DISTANCES) ** 2),
      con,
    ),
    "triplet swapped roles": (
      reference.triplet_margin(FARTHER, DISTANCES, MARGIN),
      tri,
    ),
    "triplet squared": (
      reference.triplet_margin(DISTANCES**2, FARTHER**2, MARGIN),
      tri,
    ),
    "triplet margin's sign": (
      reference.triplet_margin(DISTANCES, FARTHER, -MARGIN),
      tri,
    ),
    "triplet no hinge": (DISTANCES - FARTHER + MARGIN, tri),
    "supcon self in the denominator": (mean(with_self - logits), sup),
    "supcon negatives only": (mean(np.log(negatives) - logits), sup),
    "supcon not normalised": (mean(raw_total - raw), sup),
    "supcon sum for mean": (sup * count, sup),
    "supcon temperature": (reference.supcon(EMBEDDINGS, IDS, 0.6)[0], sup),
  }


@pytest.mark.parametrize("name", list(_wrong_variants()))
def test_wrong_variants_are_told_apart(name):
  """The inputs above are able to reject each of these."""
  wrong, right = _wrong_variants()[name]
  assert not np.allclose(wrong, right, rtol=1e-3, atol=1e-4)


def test_gradients_equal_finite_differences():
  z, d, f = (jnp.asarray(x) for x in (LOGITS, DISTANCES, FARTHER))
  for function, args in (
    (lambda z: losses.binary_cross_entropy(z, SAME)[0], (z,)),
    (lambda d: losses.contrastive(d, SAME, margin=MARGIN)[0], (d,)),
    (lambda d, f: losses.triplet_margin(d, f, margin=MARGIN)[0], (d, f)),
    (lambda e: _supcon(e)[0], (jnp.asarray(EMBEDDINGS),)),
  ):
    test_util.check_grads(
      function, args, order=1, modes=["rev"], rtol=2e-2, atol=2e-2
    )


def test_masked_rows_hold_anything():
  mask = np.array([1, 0, 1, 1, 0, 1, 1, 1, 1, 1, 1], np.float32)
  for loss, x in (
    (lambda x: losses.binary_cross_entropy(x, SAME, mask), LOGITS),
    (lambda x: losses.contrastive(x, SAME, mask), DISTANCES),
    (lambda x: losses.triplet_margin(x, FARTHER, mask), DISTANCES),
  ):
    dirty = jnp.where(mask > 0, x, jnp.nan)
    mean = lambda x, loss=loss: ops.masked_mean(*loss(x))
    value, grad = jax.value_and_grad(mean)(dirty)
    clean_value, clean_grad = jax.value_and_grad(mean)(jnp.asarray(x))
    np.testing.assert_array_equal(value, clean_value)
    np.testing.assert_array_equal(grad, clean_grad)
    assert np.all(np.asarray(grad)[mask == 0] == 0)


def test_supcon_padding_changes_nothing():
  padded = np.concatenate([EMBEDDINGS, np.full((3, 5), np.nan, np.float32)])
  ids = np.concatenate([IDS, [0, 1, 7]]).astype(np.int32)
  weights = np.concatenate([np.ones(13), np.zeros(3)])

  def loss(columns):
    values, _ = losses.supcon(
      EMBEDDINGS,
      IDS,
      columns,
      ids,
      anchor_rows=jnp.arange(13),
      temperature=0.3,
      column_weights=weights,
    )
    return jnp.sum(values), values

  (_, values), grad = jax.value_and_grad(loss, has_aux=True)(
    jnp.asarray(padded)
  )
  np.testing.assert_allclose(values, _supcon(EMBEDDINGS)[0], rtol=1e-6)
  assert np.all(np.asarray(grad)[13:] == 0)


@pytest.mark.parametrize(
  "case", ["no positives", "one person", "duplicates", "one row", "zeros"]
)
def test_supcon_degenerate_batches(case):
  x, ids = jnp.asarray(EMBEDDINGS), jnp.asarray(IDS)
  if case == "no positives":
    ids = jnp.arange(13)
  elif case == "one person":
    ids = jnp.zeros(13, jnp.int32)
  elif case == "duplicates":
    x = jnp.tile(x[:1], (13, 1))
  elif case == "one row":
    x, ids = x[:1], ids[:1]
  else:
    x = x * 0
  mean = lambda x: ops.masked_mean(*_supcon(x, ids, temperature=0.01))
  value, grad = jax.value_and_grad(mean)(x)
  chex.assert_tree_all_finite((value, grad))
  if case in ("no positives", "one row"):
    assert float(value) == 0.0 and not np.any(grad)


def test_supcon_invariances():
  rotation, _ = np.linalg.qr(RNG.normal(size=(5, 5)))
  order = RNG.permutation(13)
  base = np.asarray(_supcon(EMBEDDINGS)[0])
  rotated = _supcon((EMBEDDINGS @ rotation).astype(np.float32))[0]
  shuffled = _supcon(EMBEDDINGS[order], IDS[order])[0]
  np.testing.assert_allclose(rotated, base, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(shuffled, base[order], rtol=1e-5, atol=1e-6)


def test_bad_arguments_are_refused():
  for call in (
    lambda: losses.binary_cross_entropy(LOGITS, SAME[:3]),
    lambda: losses.binary_cross_entropy(SAME, SAME),
    lambda: losses.contrastive(DISTANCES, SAME, margin=0.0),
    lambda: losses.triplet_margin(DISTANCES, FARTHER[:3]),
    lambda: losses.triplet_margin(DISTANCES, FARTHER, margin=-1.0),
    lambda: _supcon(EMBEDDINGS, temperature=0.0),
    lambda: _supcon(EMBEDDINGS, IDS[:4]),
  ):
    with pytest.raises(ValueError):
      call()
