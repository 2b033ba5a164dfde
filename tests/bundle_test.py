"""Tests of facesiam_jax.bundle."""

import functools
import hashlib
import json

import jax
import numpy as np
import pytest
import tiny

import facesiam_jax
from facesiam_jax import bundle as bundle_lib
from facesiam_jax import errors
from facesiam_jax.training import recipe as recipe_lib
from tests import colour_bundle


@functools.cache
def _params(objective, seed):
  """Fresh parameters; cached, since drawing them takes seconds to compile."""
  recipe = recipe_lib.make_recipe(tiny.config(objective, seed=seed))
  state = recipe_lib.init_state(recipe, (16, 16, 1), 8)
  return jax.device_get(state.eval_params)


def _save(folder, objective="pair_bce", **changes):
  config = tiny.config(objective, **changes)
  recipe = recipe_lib.make_recipe(config)
  spec = {
    "encoder": config.encoder.to_dict(),
    "head": config.head.to_dict(),
    "metric": recipe.head.metric,
    "input": {"size": 16, "channels": 1, "framing": "olivetti"},
    "standardize": config.standardize.to_dict(),
    "views": config.views.to_dict(),
    "dim": 10,
    "thresholds": {"eer": {"logit": 0.25}, "fmr_0.01": {"logit": 1.5}},
    "default_threshold": "fmr_0.01",
    "calibration": {},
    "config": config.to_dict(),
  }
  params = _params(objective, config.seed)
  variables = {
    "encoder": {"params": params["encoder"]},
    "head": {"params": params["head"]},
  }
  return bundle_lib.save(folder, spec, variables)


@pytest.fixture(params=["pair_bce", "supcon"])
def bundle(request, tmp_path):
  return _save(tmp_path / "bundle", request.param)


def test_loaded_is_what_was_saved(bundle, tmp_path):
  loaded = facesiam_jax.load(tmp_path / "bundle")
  assert loaded.fingerprint == bundle.fingerprint
  assert loaded.threshold == 1.5 and loaded.input_size == (16, 16)
  images = tiny.Faces().images
  np.testing.assert_array_equal(loaded.embed(images), bundle.embed(images))


def test_an_embedding_does_not_depend_on_its_company(bundle):
  images = tiny.Faces().images
  together = bundle.embed(images)
  assert together.shape == (48, 10) and together.dtype == np.float32
  alone = np.concatenate([bundle.embed(images[i : i + 1]) for i in range(48)])
  np.testing.assert_array_equal(together, alone)
  np.testing.assert_array_equal(bundle.embed(images[..., 0]), together)
  assert bundle.embed(images[:0]).shape == (0, 10)
  norms = np.linalg.norm(together, axis=1)
  assert np.allclose(norms, 1, atol=1e-5) == (bundle.metric == "cosine")


def test_logits_agree_however_they_are_asked_for(bundle):
  e = bundle.embed(tiny.Faces().images[:9])
  matrix = bundle.logits_matrix(e, e[:4])
  rows = np.stack([bundle.logits(e, np.tile(e[j], (9, 1))) for j in range(4)])
  np.testing.assert_allclose(matrix, rows.T, rtol=1e-5, atol=1e-5)
  products = e.astype(np.float64) @ e[:4].T.astype(np.float64)
  scores = products
  if bundle.metric == "euclidean":
    scores = -np.sum((e[:, None] - e[None, :4]).astype(np.float64) ** 2, -1)
  np.testing.assert_allclose(
    bundle.logits_from_scores(scores), matrix, rtol=1e-4, atol=1e-4
  )
  np.testing.assert_array_equal(
    bundle.logits_matrix(e[2:3], e[:4])[0], matrix[2]
  )
  assert bundle.logits_matrix(e[:0], e).shape == (0, 9)


def test_views_are_averaged(tmp_path):
  plain = _save(tmp_path / "a", "supcon")
  mirrored = _save(tmp_path / "b", "supcon", views__mirror=True)
  images = tiny.Faces().images[:5]
  mean = plain.embed(images) + plain.embed(images[:, :, ::-1])
  mean /= np.linalg.norm(mean, axis=1, keepdims=True)
  np.testing.assert_allclose(mirrored.embed(images), mean, atol=1e-5)
  np.testing.assert_allclose(
    mirrored.embed(images), mirrored.embed(images[:, :, ::-1]), atol=1e-6
  )
  shifted = _save(tmp_path / "c", "supcon", views__shift=0.1, views__scale=0.1)
  assert not np.allclose(shifted.embed(images), plain.embed(images))
  flat = np.full((1, 16, 16, 1), 90, np.uint8)
  np.testing.assert_allclose(shifted.embed(flat), plain.embed(flat), atol=1e-5)


def test_fingerprint_covers_what_decides_an_embedding(tmp_path):
  first = _save(tmp_path / "a")
  assert _save(tmp_path / "b").fingerprint == first.fingerprint
  for change in (
    {"seed": 1},
    {"standardize__mean": 0.4},
    {"views__mirror": True},
    {"encoder__args": {"widths": (4, 6, 8), "dim": 10, "dropout": 0.1}},
  ):
    assert _save(tmp_path / "c", **change).fingerprint != first.fingerprint
  other = first.spec | {"default_threshold": "eer"}
  assert bundle_lib.Bundle(other, {}).fingerprint == first.fingerprint


def test_saving_anew_replaces_the_old_weights(tmp_path):
  _save(tmp_path / "a")
  second = _save(tmp_path / "a", seed=1)
  assert len(list((tmp_path / "a").iterdir())) == 2
  assert bundle_lib.load(tmp_path / "a").fingerprint == second.fingerprint


def test_a_failed_save_leaves_the_old_bundle(tmp_path, monkeypatch):
  first = _save(tmp_path / "a")

  def full(*args, **kwargs):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(np, "savez", full)
  with pytest.raises(OSError, match="No space"):
    _save(tmp_path / "a", seed=1)
  monkeypatch.undo()
  assert bundle_lib.load(tmp_path / "a").fingerprint == first.fingerprint
  assert len(list((tmp_path / "a").iterdir())) == 2


def test_bad_bundles_are_told_apart(tmp_path):
  folder = tmp_path / "a"
  with pytest.raises(errors.UserError, match="is not a model bundle"):
    bundle_lib.load(folder)
  _save(folder)
  spec_path = folder / "bundle.json"
  good = spec_path.read_text()
  spec_path.write_text(json.dumps(json.loads(good) | {"version": 99}))
  with pytest.raises(errors.UserError, match="bundle version 99"):
    bundle_lib.load(folder)
  spec_path.write_text(good[: len(good) // 2])
  with pytest.raises(errors.UserError, match="damaged"):
    bundle_lib.load(folder)
  spec_path.write_text(good)
  weights = next(folder.glob("weights-*.npz"))
  data = bytearray(weights.read_bytes())
  data[len(data) // 3] ^= 4
  weights.write_bytes(data)
  with pytest.raises(errors.UserError, match="damaged"):
    bundle_lib.load(folder)
  weights.unlink()
  with pytest.raises(errors.UserError, match="is missing"):
    bundle_lib.load(folder)


def test_version_1_reads_as_calibrated_and_aligned_as_ours(tmp_path):
  saved = _save(tmp_path / "a")
  assert saved.spec["version"] == 2
  path = tmp_path / "a" / "bundle.json"
  spec = json.loads(path.read_text())
  for key in ("alignment", "calibrated", "encoder_weights"):
    del spec[key]
  path.write_text(json.dumps(spec | {"version": 1}))
  old = bundle_lib.load(tmp_path / "a")
  assert old.calibrated and old.alignment == bundle_lib.OWN_ALIGNMENT
  assert old.threshold == 1.5 and old.published_distance is None
  # What version 1 gave, so that a gallery which it filled stays open to it.
  names = ("encoder", "input", "standardize", "views", "metric", "weights")
  text = json.dumps({name: spec[name] for name in names}, sort_keys=True)
  assert old.fingerprint == hashlib.sha256(text.encode()).hexdigest()
  with pytest.raises(ValueError, match="no distances"):
    old.distances([0.0])


def test_alignment_is_in_the_fingerprint_and_calibration_is_not(tmp_path):
  ours = _save(tmp_path / "a")
  other = bundle_lib.Bundle(ours.spec | {"alignment": "dlib"}, {})
  assert other.fingerprint != ours.fingerprint
  published = bundle_lib.Bundle(ours.spec | {"calibrated": False}, {})
  assert published.fingerprint == ours.fingerprint
  # Calibrating fits the head anew; what a gallery holds does not change.
  head = jax.tree.map(lambda leaf: leaf + 1, ours.variables["head"])
  fitted = bundle_lib.save(
    tmp_path / "b", ours.spec, {**ours.variables, "head": head}
  )
  assert fitted.spec["weights"] != ours.spec["weights"]
  assert fitted.fingerprint == ours.fingerprint


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_published_threshold(metric, tmp_path):
  saved = colour_bundle.save(tmp_path / "a", metric=metric, threshold=0.3)
  loaded = bundle_lib.load(tmp_path / "a")
  assert not loaded.calibrated and loaded.alignment == "eyes_of_somebody"
  assert loaded.published_distance == 0.3 and loaded.threshold == 0.0
  rng = np.random.default_rng(0)
  faces = rng.integers(0, 256, (6, 8, 8, 3), np.uint8)
  e = loaded.embed(faces)
  np.testing.assert_array_equal(e, saved.embed(faces))
  logits = loaded.logits(e[:3], e[3:])
  if metric == "cosine":
    expected = 1 - np.sum(e[:3] * e[3:], axis=1)
  else:
    expected = np.linalg.norm(e[:3] - e[3:], axis=1)
  np.testing.assert_allclose(loaded.distances(logits), expected, atol=1e-6)
  np.testing.assert_array_equal(logits >= loaded.threshold, expected <= 0.3)
  # At the published distance itself the logit is 0, to the bit.
  contact = np.float32(0.3) if metric == "euclidean" else 1 - np.float32(0.3)
  score = -(contact.astype(np.float64) ** 2)
  if metric == "cosine":
    score = contact
  logit = loaded.logits_from_scores(score)
  assert abs(logit) < 1e-7 and loaded.distances(logit) == np.float32(0.3)
  assert loaded.distances(5.0) == 0


def test_no_published_threshold_judges_nobody_the_same(tmp_path):
  bundle = colour_bundle.save(tmp_path / "a", threshold=None)
  assert bundle.threshold == np.inf and bundle.published_distance is None
  face = bundle.embed(np.full((1, 8, 8, 3), (9, 80, 200), np.uint8))
  assert bundle.distances(bundle.logits(face, face)) < 1e-6


def test_colours_are_rgb_and_not_averaged(tmp_path):
  bundle = colour_bundle.save(tmp_path / "a", metric="euclidean")
  assert bundle.channels == 3 and bundle.input_size == (8, 8)
  face = np.full((1, 8, 8, 3), (51, 102, 204), np.uint8)
  done = bundle.embed(face)[0].reshape(2, 2, 3)
  expected = (np.array([0.2, 0.4, 0.8]) - [0.1, 0.2, 0.3]) / 0.5
  np.testing.assert_allclose(done, np.broadcast_to(expected, (2, 2, 3)), 1e-5)
  with pytest.raises(ValueError, match=r"uint8 \[N, 8, 8, 3\]"):
    bundle.embed(face[..., 0])


def test_wrong_images_are_refused(bundle):
  for bad in (
    np.zeros((2, 16, 16), np.float32),
    np.zeros((2, 8, 16), np.uint8),
    np.zeros((16, 16), np.uint8),
    np.zeros((2, 16, 16, 3), np.uint8),
  ):
    with pytest.raises(ValueError, match="images must be uint8"):
      bundle.embed(bad)


def test_probability_is_the_sigmoid():
  np.testing.assert_allclose(
    bundle_lib.probability([-1e4, 0.0, np.log(3.0), 1e4]),
    [0, 0.5, 0.75, 1],
    atol=1e-12,
  )


def test_names_of_templates_in_earlier_bundles(tmp_path):
  new = colour_bundle.save(tmp_path / "b", alignment="dlib_150")
  path = tmp_path / "b" / "bundle.json"
  spec = json.loads(path.read_text())
  assert spec["detector"] == "dlib"
  spec["alignment"] = "dlib150"
  del spec["detector"]
  path.write_text(json.dumps(spec))
  old = bundle_lib.load(tmp_path / "b")
  # A gallery that the earlier one filled stays valid.
  assert old.fingerprint == new.fingerprint
  assert old.alignment == "dlib_150" and old.detector == "dlib"
  other = colour_bundle.save(tmp_path / "c", alignment="arcface_112")
  assert other.fingerprint != new.fingerprint and other.detector == "dlib68"


def test_the_detector_is_no_part_of_the_fingerprint(bundle):
  assert bundle.detector == "haar"
  assert bundle.framing == {
    "size": 16, "channels": 1, "alignment": "olivetti", "detector": "haar"
  }  # fmt: skip
  other = bundle_lib.Bundle(bundle.spec | {"detector": "dlib"}, {})
  assert other.detector == "dlib" and other.fingerprint == bundle.fingerprint


def test_faces_that_nothing_cuts_out_have_no_detector(tmp_path):
  assert colour_bundle.save(tmp_path / "b").detector is None
