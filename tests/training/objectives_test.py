"""Tests of the objectives that have a class for each training person."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from facesiam_jax import bundle as bundle_lib
from facesiam_jax import sampling
from facesiam_jax.data import resident
from facesiam_jax.training import objectives, run

_RNG = np.random.default_rng(0)
_EMBEDDINGS = _RNG.normal(size=(6, 5)).astype(np.float32)
_IDS = np.array([0, 2, 1, 2, 0, 3])


def _batch(params):
  rows = jnp.arange(6)
  own = jnp.asarray(_EMBEDDINGS)
  ids = jnp.asarray(_IDS)
  return objectives.Embedded(own, ids, rows, own, ids, params)


def _reference(logits, labels):
  values = []
  for row, label in zip(logits, labels, strict=True):
    values.append(np.log(np.sum(np.exp(row - row[label]))))
  return np.array(values)


def _init(name, **args):
  objective = objectives.create(name, num_images=6, **args)
  return objective, objective.init(jax.random.key(1), 4, 5)


def test_softmax_is_cross_entropy_of_a_dense_layer():
  objective, params = _init("softmax")
  params["bias"] = jnp.array([0.3, -0.2, 0.0, 1.0])
  terms = objective.terms(None, _batch(params))
  logits = _EMBEDDINGS.astype(np.float64) @ np.asarray(params["centers"]).T
  logits += np.asarray(params["bias"])
  np.testing.assert_allclose(
    terms.values, _reference(logits, _IDS), rtol=1e-5, atol=1e-6
  )
  np.testing.assert_array_equal(terms.weights, np.ones(6))
  np.testing.assert_array_equal(terms.correct, logits.argmax(axis=1) == _IDS)


def test_semi_hard_triplets_of_every_positive():
  own = jnp.asarray(_EMBEDDINGS)
  ids = np.array([0, 0, 1, 1, 0, 2])
  batch = objectives.Embedded(own, ids, jnp.arange(6), own, ids, {})
  objective = objectives.create(
    "semi_hard_triplet", num_people=2, images_per_person=3, margin=0.4
  )
  terms = objective.terms(None, batch)
  unit = _EMBEDDINGS.astype(np.float64)
  unit /= np.linalg.norm(unit, axis=1, keepdims=True)
  far = np.square(unit[:, None] - unit[None]).sum(axis=2)
  want = []
  for a in range(6):
    others = [n for n in range(6) if ids[n] != ids[a]]
    for p in (x for x in range(6) if x != a and ids[x] == ids[a]):
      beyond = [n for n in others if far[a, n] > far[a, p]]
      n = min(beyond, key=lambda n: far[a, n]) if beyond else max(
        others, key=lambda n: far[a, n])  # fmt: skip
      want.append(max(0.0, far[a, p] - far[a, n] + 0.4))
  own_values = np.asarray(terms.values)[np.asarray(terms.weights) > 0]
  np.testing.assert_allclose(own_values, want, rtol=1e-5, atol=1e-6)
  assert 0 < np.count_nonzero(want) < len(want)
  assert terms.correct.shape == terms.values.shape


@pytest.mark.parametrize("loss, moved", [("arcface", True), ("cosface", False)])
def test_margin_softmax_lowers_the_own_cosine(loss, moved):
  objective, params = _init("margin_softmax", loss=loss, scale=8.0, margin=0.2)
  assert set(params) == {"centers"}
  terms = objective.terms(None, _batch(params))
  unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)
  cosines = unit(_EMBEDDINGS.astype(np.float64)) @ (
    unit(np.asarray(params["centers"], np.float64)).T
  )
  logits = cosines.copy()
  for row, label in enumerate(_IDS):
    own = cosines[row, label]
    logits[row, label] = np.cos(np.arccos(own) + 0.2) if moved else own - 0.2
  np.testing.assert_allclose(
    terms.values, _reference(8.0 * logits, _IDS), rtol=2e-5, atol=1e-5
  )
  np.testing.assert_array_equal(terms.correct, cosines.argmax(axis=1) == _IDS)


def _adaface_reference(rows, norms, centers):
  """Eq. 13-17 of the paper by loops, the norms' statistics from `norms`."""
  unit = lambda x: x / np.linalg.norm(x)
  mean, std = np.mean(norms), np.std(norms, ddof=1)
  values = []
  for row, label in rows:
    cosines = np.array([unit(row) @ unit(center) for center in centers])
    z = np.clip(0.333 * (np.linalg.norm(row) - mean) / (std + 1e-3), -1, 1)
    angle = np.clip(np.arccos(cosines[label]) - 0.4 * z, 1e-3, np.pi - 1e-3)
    logits = 8.0 * cosines
    logits[label] = 8.0 * (np.cos(angle) - 0.4 - 0.4 * z)
    values.append(np.log(np.sum(np.exp(logits - logits[label]))))
  return np.array(values)


def test_adaface_takes_the_norms_of_the_global_batch():
  objective, params = _init("adaface", scale=8.0)
  assert set(params) == {"centers"}
  # This device has the first two rows of six, of very different lengths.
  lengths = np.array([1, 1.2, 5, 7, 9, 20], np.float32)[:, None]
  columns = _EMBEDDINGS * lengths
  batch = objectives.Embedded(
    jnp.asarray(columns[:2]),
    jnp.asarray(_IDS[:2]),
    jnp.arange(2),
    jnp.asarray(columns),
    jnp.asarray(_IDS),
    params,
  )
  terms = objective.terms(None, batch)
  rows = list(zip(columns[:2].astype(np.float64), _IDS[:2], strict=True))
  centers = np.asarray(params["centers"], np.float64)
  norms = np.linalg.norm(columns.astype(np.float64), axis=1)
  expected = _adaface_reference(rows, norms, centers)
  np.testing.assert_allclose(terms.values, expected, rtol=2e-5)
  of_own_rows = _adaface_reference(rows, norms[:2], centers)
  assert np.min(np.abs(of_own_rows - expected)) > 0.01


@pytest.mark.parametrize("name", ["softmax", "margin_softmax", "adaface"])
def test_people_not_trained_on_need_no_class(name):
  objective, _ = _init(name)
  terms = objective.eval_terms(None, _batch({}))
  expected = objectives.SupCon().terms(None, _batch({}))
  np.testing.assert_array_equal(terms.values, expected.values)
  assert np.all(np.isfinite(terms.values))


def test_people_are_numbered_from_zero_and_drawn_evenly():
  ids = np.repeat([30, 7, 12], [1, 2, 40])
  data = resident.make_resident(np.zeros((43, 2, 2, 1), np.uint8), ids)
  np.testing.assert_array_equal(
    data.identity_ids, np.repeat([2, 0, 1], [1, 2, 40])
  )
  objective = objectives.create("softmax", num_images=3000)
  index = sampling.index_identities(ids)
  rows = objective.draw(index, jax.random.key(0), jnp.int32(3))
  counts = np.bincount(data.identity_ids[np.asarray(rows)], minlength=3)
  # Five standard deviations of a binomial of 3000 draws.
  assert np.all(np.abs(counts - 1000) < 5 * np.sqrt(3000 * 2 / 9))


def test_unknown_margin_loss_names_the_choices():
  with pytest.raises(ValueError, match="arcface.*cosface.*'tripletface'"):
    objectives.create("margin_softmax", loss="tripletface")


@pytest.mark.slow
@pytest.mark.parametrize(
  "name", [pytest.param("softmax", marks=pytest.mark.soak), "margin_softmax"]
)
def test_centers_are_trained_and_not_shipped(tmp_path, name):
  config = tiny.config(name, num_steps=4)
  bundle = run.train(config, tmp_path)
  assert set(bundle.variables) == {"encoder", "head"}
  loaded = bundle_lib.load(tmp_path / "bundle")
  assert "centers" not in str(jax.tree.map(np.shape, loaded.variables))
