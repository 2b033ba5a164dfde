"""Tests of configs: every recipe builds; every bad field is named."""

import dataclasses
import importlib.util
import pathlib
import types

import jax
import ml_collections
import numpy as np
import pytest
import tiny

from facesiam_jax import errors, metrics, parallel
from facesiam_jax.data import resident, sets
from facesiam_jax.training import calibrate, loop, objectives
from facesiam_jax.training import config as config_lib
from facesiam_jax.training import recipe as recipe_lib
from facesiam_jax.training import step as step_lib

RECIPES = sorted(
  (pathlib.Path(__file__).parents[2] / "configs").glob("[!_]*.py")
)


def _load(path):
  spec = importlib.util.spec_from_file_location(path.stem, path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.get_config()


def test_there_are_recipes():
  assert {path.stem for path in RECIPES} >= {"olivetti", "olivetti_article"}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
@pytest.mark.parametrize("num_devices", [1, 8])
def test_recipes_build_a_step(path, num_devices, devices):
  """Shapes only: nothing is compiled."""
  config = _load(path)
  config_lib.validate(config)
  recipe = recipe_lib.make_recipe(config)
  shape = (config.image_size, config.image_size, config.dataset.channels)
  data = resident.make_resident(
    np.zeros((240, *shape), np.uint8), np.repeat(np.arange(48), 5)
  )
  state = jax.eval_shape(lambda: recipe_lib.init_state(recipe, shape, 48))
  mesh = parallel.make_mesh(devices[:num_devices])
  chunk = loop.resolve_steps_per_call(config)
  steps = step_lib.make_train_steps(recipe, mesh, chunk)
  after, metrics = jax.eval_shape(steps, state, data)
  assert jax.tree.structure(after) == jax.tree.structure(state)
  assert metrics["loss"].shape == (chunk,)


@pytest.mark.parametrize(
  "change, match",
  [
    ({"num_steps": 0}, "config.num_steps must be at least 1"),
    ({"log_every": 0}, "config.log_every"),
    ({"log_every": 2, "eval_every": 3}, "config.eval_every must be a positive"),
    ({"eval_every": 4}, "config.checkpoint_every must be a multiple"),
    ({"ema_decay": 1.0}, "config.ema_decay"),
    ({"image_size": 3}, "config.image_size"),
    ({"calibration__kind": "guess"}, "config.calibration.kind"),
    ({"calibration__inner_folds": 1}, "config.calibration.inner_folds"),
    ({"calibration__target_fmr": 1.0}, "config.calibration.target_fmr"),
    ({"dataset__num_validation": 1}, "config.dataset.num_validation"),
    ({"steps_per_call": -1}, "config.steps_per_call"),
    ({"accumulate": 0}, "config.accumulate"),
    ({"on_nan": "hope"}, "config.on_nan must be in"),
    ({"on_collapse": "hope"}, "config.on_collapse must be in"),
    ({"optimizer__clip_norm": -1.0}, "config.optimizer.clip_norm"),
    ({"optimizer__final": 2.0}, "config.optimizer.final"),
    ({"optimizer__step_at": (0.5, 0.2)}, "config.optimizer.step_at"),
    ({"optimizer__freeze_steps": 7}, "config.optimizer.freeze_steps"),
    ({"optimizer__head_multiplier": -1.0}, "config.optimizer.head_multiplier"),
  ],
)
def test_values_out_of_range_are_named(change, match):
  with pytest.raises(errors.UserError, match=match):
    config_lib.validate(tiny.config(**change))


def test_unknown_missing_and_mistyped_fields_are_named():
  config = tiny.config()
  with config.unlocked():
    config.nope = 1
  with pytest.raises(errors.UserError, match="unknown field 'nope'"):
    config_lib.validate(config)
  config = tiny.config()
  with config.unlocked():
    del config.optimizer.momentum
  with pytest.raises(errors.UserError, match="lacks the field 'optimizer.mom"):
    config_lib.validate(config)
  config = tiny.config()
  with config.unlocked(), config.ignore_type():
    config.num_steps = "many"
  with pytest.raises(errors.UserError, match="num_steps must be of type int"):
    config_lib.validate(config)


@pytest.mark.parametrize(
  "change, match",
  [
    ({"encoder__name": "nope"}, "unknown encoder 'nope'"),
    ({"encoder__args": {"nope": 1}}, "nope"),
    ({"head__name": "nope"}, "unknown head 'nope'"),
    ({"objective__name": "nope"}, "unknown objective 'nope'"),
    ({"objective__args": {"nope": 1}}, "objective 'pair_bce'"),
    ({"optimizer__name": "nope"}, "optimizer.name is 'nope'"),
    ({"optimizer__schedule": "nope"}, "optimizer.schedule is 'nope'"),
    ({"objective__name": "nowhere:Nothing"}, "nowhere"),
  ],
)
def test_parts_that_cannot_be_built_are_named(change, match):
  with pytest.raises(errors.UserError, match=match):
    recipe_lib.make_recipe(tiny.config(**change))


def test_a_users_own_parts_are_found_by_import_path():
  made = objectives.create(
    "facesiam_jax.training.objectives:SupCon", temperature=0.2
  )
  assert made == objectives.SupCon(temperature=0.2)
  data = sets.load(tiny.config().dataset, image_size=16)
  assert data.faces.images.shape == (48, 16, 16, 1)


@pytest.mark.parametrize(
  "change, match",
  [
    ({"name": "nope"}, "config.dataset.name is 'nope'"),
    ({"name": "nowhere:load"}, "cannot be imported"),
    ({"name": "olivetti", "fold": 4}, "config.dataset.fold must be 0 to 3"),
    ({"name": "olivetti", "num_validation": 29}, "num_validation"),
  ],
)
def test_data_sets_that_cannot_be_loaded_are_named(change, match):
  config = tiny.config().dataset
  with config.unlocked():
    config.update(change)
  with pytest.raises(errors.UserError, match=match):
    sets.load(config, image_size=16)


def test_people_are_dealt_into_groups():
  groups = sets.split_people(tuple(range(10)), 3)
  assert sorted(p for group in groups for p in group) == list(range(10))
  assert [len(group) for group in groups] == [4, 3, 3]
  for wrong in (1, 11):
    with pytest.raises(errors.UserError, match="inner_folds"):
      sets.split_people(tuple(range(10)), wrong)


def test_steps_per_call_divides_every_interval():
  config = tiny.config(num_steps=60, log_every=20)
  assert loop.resolve_steps_per_call(config) == 1  # on CPU
  for wanted, expected in ((7, 5), (20, 20), (50, 20)):
    config.steps_per_call = wanted
    assert loop.resolve_steps_per_call(config) == expected


def test_thresholds_meet_their_targets():
  rng = np.random.default_rng(0)
  ids = np.repeat(np.arange(6), 5)
  i, j = np.triu_indices(30, 1)
  same = ids[i] == ids[j]
  logits = rng.normal(np.where(same, 2.0, -2.0), 1.5).astype(np.float32)
  scores = calibrate.Scores(logits, ids[i], ids[j])
  found = calibrate.thresholds(logits, scores, (0.05,))
  assert set(found) == {
    "eer",
    "fmr_0.01",
    "fmr_0.05",
    "fmr_0.1",
    *calibrate.LIKELIHOOD,
  }
  for name, entry in found.items():
    fmr = np.mean(logits[~same] >= entry["logit"])
    fnmr = np.mean(logits[same] < entry["logit"])
    assert (entry["fmr"], entry["fnmr"]) == (fmr, fnmr)
    if entry["target"]:
      assert fmr <= entry["target"], name
    assert entry["interval"] is None and "30 people" in entry["interval_reason"]


def _untrained(objective, **changes):
  """A recipe, and a state of its head alone."""
  recipe = recipe_lib.make_recipe(tiny.config(objective, **changes))
  zeros = np.zeros((1, 10), np.float32)
  params = recipe.head.init(jax.random.key(0), zeros, zeros)["params"]
  return recipe, types.SimpleNamespace(eval_params={"head": params})


def test_a_fitted_head_gives_log_likelihood_ratios(devices):
  """Cosines of two Gaussians: the fitted logit is near their exact one."""
  rng = np.random.default_rng(0)
  same = np.arange(40000) % 10 == 0
  cosines = rng.normal(np.where(same, 0.6, 0.2), 0.15).astype(np.float32)
  scores = calibrate.Scores(cosines, np.zeros(40000), np.where(same, 0, 1))
  recipe, head = _untrained("supcon")
  logits = 10.0 * cosines - 5.0  # as the head says before it is fitted
  scores = dataclasses.replace(scores, values=logits)
  variables, fitted = calibrate.fit_head(recipe, head, scores)
  points = np.array([0.1, 0.4, 0.7], np.float32)
  logits = recipe.head.apply(variables, points, method="from_scores")
  exact = (0.6 - 0.2) / 0.15**2 * (points - 0.4)
  np.testing.assert_allclose(logits, exact, atol=0.15 * np.abs(exact).max())
  again = recipe.head.apply(variables, cosines[:50], method="from_scores")
  np.testing.assert_allclose(fitted[:50], again, rtol=1e-4, atol=1e-4)


def test_a_network_that_learned_nothing_is_not_calibrated():
  same = np.arange(400) % 4 == 0
  cosines = np.where(same, 0.1, 0.5).astype(np.float32)
  scores = calibrate.Scores(cosines, np.zeros(400), np.where(same, 0, 1))
  with pytest.raises(ValueError, match="train longer"):
    calibrate.fit_head(*_untrained("supcon"), scores)


HEADS = {
  "abs_difference_logistic": {"monotone": True},
  "chi_square_logistic": {"monotone": True},
  "cosine_logistic": {},
  "euclidean_logistic": {"squared": True},
  "l1_logistic": {},
}


@pytest.mark.parametrize("name", HEADS)
def test_any_monotone_head_can_be_fitted(name):
  """The fitted head says of embeddings what the fit says of their scores."""
  recipe, state = _untrained("triplet", head__name=name, head__args=HEADS[name])
  rng = np.random.default_rng(0)
  ids = np.repeat(np.arange(8), 5)
  embeddings = rng.normal(size=(8, 10))[ids] + rng.normal(size=(40, 10))
  embeddings = embeddings.astype(np.float32)
  scores = calibrate.score_pairs(recipe, state, embeddings, ids)
  variables, logits = calibrate.fit_head(recipe, state, scores)
  i, j = np.triu_indices(40, 1)
  said = recipe.head.apply(variables, embeddings[i], embeddings[j])
  np.testing.assert_allclose(said, logits, rtol=1e-3, atol=1e-3)
  same = ids[i] == ids[j]
  assert logits[same].mean() > 0 > logits[~same].mean()
  slope, offset = metrics.fit_platt(logits, same)
  assert (slope, offset) == pytest.approx((1, 0), abs=1e-3)


def test_a_head_that_is_not_monotone_is_not_fitted():
  wrong = _untrained("triplet", head__name="abs_difference_logistic")
  scores = calibrate.Scores(np.ones(3), np.arange(3), np.zeros(3))
  with pytest.raises(ValueError, match="needs one with monotone=True"):
    calibrate.fit_head(*wrong, scores)


@pytest.mark.parametrize(
  "mean, match",
  [((0.1, 0.2), "standardize.mean must be a number, or one float"),
   ((0.1, "a", 0.2), "standardize.mean must be a number, or one float")],
)  # fmt: skip
def test_standardisation_by_channel_has_a_number_for_each(mean, match):
  given = {"kind": "fixed", "mean": (0.1, 0.2, 0.3), "std": 0.5}
  config = tiny.config("triplet", dataset__channels=3)
  config.standardize = ml_collections.ConfigDict(given)
  config_lib.validate(config)
  config.standardize = ml_collections.ConfigDict({**given, "mean": mean})
  with pytest.raises(errors.UserError, match=match):
    config_lib.validate(config)
