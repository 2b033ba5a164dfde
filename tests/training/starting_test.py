"""Tests of what a run starts from: the weights of a bundle."""

import jax
import numpy as np
import pytest
import tiny

from facesiam_jax import bundle as bundle_lib
from facesiam_jax import errors
from facesiam_jax.training import loop, starting
from facesiam_jax.training import recipe as recipe_lib


def _config(**changes):
  return tiny.config(
    "supcon",
    encoder__name="run_test_encoders:Normed",
    encoder__args={},
    **changes,
  )


def _bundle(folder, config):
  recipe = recipe_lib.make_recipe(config)
  state = recipe_lib.init_state(recipe, (16, 16, 1), 8)
  spec = {
    "encoder": config.encoder.to_dict(),
    "head": config.head.to_dict(),
    "metric": "cosine",
    "input": {"size": 16, "channels": 1},
    "standardize": config.standardize.to_dict(),
    "views": config.views.to_dict(),
    "dim": 4,
    "thresholds": {},
    "default_threshold": "",
    "calibration": {},
    "config": {},
  }
  variables = jax.device_get(recipe_lib.encoder_variables(state))
  bundle_lib.save(folder, spec, {"encoder": variables, "head": {}})
  return variables


def _drawn(config):
  recipe = recipe_lib.make_recipe(config)
  state = recipe_lib.init_state(recipe, (16, 16, 1), 8)
  return recipe, {
    "params": state.params["encoder"], "batch_stats": state.batch_stats
  }  # fmt: skip


def test_a_run_starts_from_the_bundle(tmp_path):
  """At a rate of 0 it ends with the bundle's weights, averaged ones too."""
  given = _bundle(tmp_path / "given", _config(seed=5))
  config = _config(
    init_from=str(tmp_path / "given"),
    optimizer__learning_rate=0.0,
    ema_decay=0.5,
    num_steps=2,
  )
  state = loop.fit(config, tmp_path / "run", tiny.split(), None)
  for params in (state.params, state.ema_params):
    for a, b in zip(
      jax.tree.leaves(params["encoder"]),
      jax.tree.leaves(given["params"]),
      strict=True,
    ):
      np.testing.assert_allclose(a, b, rtol=1e-6)
  _, drawn = _drawn(config)
  kernel = lambda tree: np.asarray(tree["params"]["Dense_0"]["kernel"])
  assert np.any(kernel(drawn) != kernel(given))


def test_statistics_come_too(tmp_path):
  given = _bundle(tmp_path, _config(seed=5))
  config = _config(init_from=str(tmp_path))
  recipe, drawn = _drawn(config)
  found = starting.encoder(config, recipe, drawn, tiny.split())
  assert jax.tree.structure(found) == jax.tree.structure(drawn)
  for a, b in zip(
    jax.tree.leaves(found["batch_stats"]),
    jax.tree.leaves(given["batch_stats"]),
    strict=True,
  ):
    np.testing.assert_array_equal(a, b)


def test_another_architecture_is_refused(tmp_path):
  _bundle(tmp_path, _config())
  config = tiny.config("supcon", init_from=str(tmp_path))
  recipe, drawn = _drawn(config)
  with pytest.raises(errors.UserError) as caught:
    starting.encoder(config, recipe, drawn, tiny.split())
  text = str(caught.value)
  assert (
    "'run_test_encoders:Normed' that is not this config's 'article_cnn'" in text
  )
  assert "has the shape" in text


def test_a_bundle_that_is_missing_is_named(tmp_path):
  config = _config(init_from=str(tmp_path / "none"))
  recipe, drawn = _drawn(config)
  with pytest.raises(errors.UserError, match="none is not a model bundle"):
    starting.encoder(config, recipe, drawn, tiny.split())


def test_another_standardization_is_told_of(tmp_path, caplog):
  _bundle(tmp_path, _config())
  config = _config(init_from=str(tmp_path), standardize__kind="per_image")
  recipe, drawn = _drawn(config)
  starting.encoder(config, recipe, drawn, tiny.split())
  assert any("standardized by" in r.message for r in caplog.records)
