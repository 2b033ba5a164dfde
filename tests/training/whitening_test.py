"""Tests of the closed-form fit, alone and as the start of a run."""

import jax
import numpy as np
import pytest
import tiny

from facesiam_jax import bundle as bundle_lib
from facesiam_jax import errors
from facesiam_jax.training import config as config_lib
from facesiam_jax.training import loop, metric_writer, run, whitening

RNG = np.random.default_rng(0)
# Twelve people whose photos vary along mixed axes of very unequal size.
MIXING = RNG.normal(size=(6, 6)) * np.array([9.0, 5.0, 2.0, 1.0, 0.5, 0.2])
IDS = np.repeat(np.arange(12), 8)
FEATURES = (
  3.0 * RNG.normal(size=(12, 6))[IDS] + RNG.normal(size=(96, 6)) @ MIXING.T
)


def _fit(features=FEATURES, ids=IDS, dim=6, shrinkage=1e-12):
  return whitening.within_class_whitening(
    features, ids, dim=dim, shrinkage=shrinkage
  )


def _scatter(values, ids):
  """Within-person scatter, by loops."""
  total = np.zeros((values.shape[1], values.shape[1]))
  for person in set(ids):
    own = [v for v, i in zip(values, ids, strict=True) if i == person]
    mean = sum(own) / len(own)
    for value in own:
      total += np.outer(value - mean, value - mean)
  return total / len(values)


def test_scatter_within_people_becomes_the_identity():
  kernel, bias = _fit()
  whitened = FEATURES @ kernel + bias
  np.testing.assert_allclose(_scatter(whitened, IDS), np.eye(6), atol=1e-5)
  np.testing.assert_allclose(whitened.mean(axis=0), 0.0, atol=1e-9)


def _of_everything(features, ids):
  return _fit(features, np.zeros_like(ids))


def _main_axes_only(features, ids):
  del ids
  centred = features - features.mean(axis=0)
  return np.linalg.eigh(centred.T @ centred)[1], np.zeros(6)


def _of_person_means(features, ids):
  means = np.stack([features[ids == i].mean(0) for i in range(12)])
  return _fit(means[ids] + 1e-3 * features, np.zeros_like(ids))


def _inverse_for_its_root(features, ids):
  return np.linalg.inv(_scatter(features, ids)), np.zeros(6)


@pytest.mark.parametrize(
  "wrong",
  [_of_everything, _main_axes_only, _of_person_means, _inverse_for_its_root],
)
def test_wrong_whitenings_are_rejected(wrong):
  kernel, _ = wrong(FEATURES, IDS)
  scatter = _scatter(FEATURES @ kernel, IDS)
  assert np.abs(scatter - np.eye(6)).max() > 0.1


def test_distances_do_not_depend_on_the_axes_of_the_features():
  rotation, _ = np.linalg.qr(RNG.normal(size=(6, 6)))
  one, other = (
    features @ kernel + bias
    for features in (FEATURES, 7.0 * FEATURES @ rotation + 2.0)
    for kernel, bias in [_fit(features, shrinkage=0.1)]
  )
  products = one @ one.T
  np.testing.assert_allclose(other @ other.T, products, rtol=1e-6, atol=1e-6)


def test_shrinkage_tames_axes_along_which_nobody_varied():
  flat = FEATURES.copy()
  flat[:, 0] = 10.0 * IDS  # differs between people, never within one
  size = lambda shrinkage: np.abs(_fit(flat, shrinkage=shrinkage)[0]).max()
  assert size(1e-9) > 1e3 * size(0.1)


def test_fewer_dimensions_keep_the_main_axes():
  kernel, _ = _fit(dim=2)
  axes = np.linalg.svd(FEATURES - FEATURES.mean(0))[2][:2]
  left = kernel - axes.T @ (axes @ kernel)
  np.testing.assert_allclose(left, 0.0, atol=1e-9)


@pytest.mark.parametrize(
  "changes, match",
  [
    ({"features": FEATURES[0]}, r"\[N, F\]"),
    ({"ids": IDS[:4]}, r"\(96, 6\) and \(4,\)"),
    ({"features": np.where(FEATURES > 9, np.nan, FEATURES)}, "not finite"),
    ({"dim": 7}, "dim must be 1 to 6"),
    ({"shrinkage": 0.0}, "shrinkage must be positive"),
    ({"ids": np.arange(96)}, "no person has two images"),
  ],
)
def test_bad_input_is_named(changes, match):
  with pytest.raises(ValueError, match=match):
    _fit(**changes)


def _config(**changes):
  start = {
    "start__kind": "whitening",
    "encoder__name": "gabor",
    "encoder__args": {"wavelengths": (4.0,), "num_orientations": 2, "dim": 8},
    "num_steps": 0,
  }
  return tiny.config("supcon", **{**start, **changes})


def _fit_run(config, folder):
  return loop.fit(config, folder, tiny.split(), None)


@pytest.mark.slow
def test_a_run_without_steps_is_the_fit(tmp_path):
  config = _config()
  bundle = run.train(config, tmp_path / "run")
  again = run.train(config, tmp_path / "run")
  assert again.fingerprint == bundle.fingerprint
  elsewhere = run.train(config, tmp_path / "other")
  assert elsewhere.fingerprint == bundle.fingerprint
  rows = metric_writer.read_metrics(tmp_path / "run")
  assert [(row["step"], row["split"]) for row in rows] == [(0, "validation")]
  # Two people not fitted to: alike within, apart between, on average.
  data = tiny.Faces()
  embedded = bundle_lib.load(tmp_path / "run" / "bundle").embed(data.images)
  similarity = embedded @ embedded.T
  unseen = np.isin(data.identity_ids, (6, 7))
  same = data.identity_ids[unseen, None] == data.identity_ids[None, unseen]
  chosen = similarity[np.ix_(unseen, unseen)]
  assert chosen[same].mean() > chosen[~same].mean() + 0.1


def test_gradient_steps_go_on_from_the_fit(tmp_path):
  fitted = _fit_run(_config(), tmp_path / "fit")
  config = _config(num_steps=2, optimizer__learning_rate=1e-6)
  trained = _fit_run(config, tmp_path / "trained")
  assert int(trained.step) == 2
  pairs = zip(
    jax.tree.leaves(fitted.params), jax.tree.leaves(trained.params), strict=True
  )
  for before, after in pairs:
    np.testing.assert_allclose(before, after, atol=1e-3)


def test_augmented_copies_are_fitted_too(tmp_path):
  plain = _fit_run(_config(start__num_copies=0), tmp_path / "plain")
  copied = _fit_run(_config(start__num_copies=2), tmp_path / "copied")
  kernels = [
    s.params["encoder"]["projection"]["kernel"] for s in (plain, copied)
  ]
  assert not np.allclose(*kernels)


@pytest.mark.parametrize(
  "changes, match",
  [
    ({"start__kind": "nope"}, "config.start.kind"),
    ({"start__num_copies": -1}, "config.start.num_copies"),
    ({"start__shrinkage": 0.0}, "config.start.shrinkage"),
    ({"num_steps": -1}, "config.num_steps must be at least 0"),
    ({"new_people__reshape": 0.1}, "config.new_people must be all 0"),
    ({"start__kind": "random"}, "config.num_steps must be at least 1"),
  ],
)
def test_bad_starts_are_named(changes, match):
  with pytest.raises(errors.UserError, match=match):
    config_lib.validate(_config(**changes))


def test_encoders_that_cannot_be_fitted_are_named(tmp_path):
  config = _config(encoder__name="small_cnn", encoder__args={"widths": (4,)})
  with pytest.raises(errors.UserError, match="SmallCNN has none"):
    _fit_run(config, tmp_path / "a")
  config = _config(encoder__args={"wavelengths": (4.0,), "dim": 999})
  with pytest.raises(errors.UserError, match="cannot be fitted: dim must be"):
    _fit_run(config, tmp_path / "b")
