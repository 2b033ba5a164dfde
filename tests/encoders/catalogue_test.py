"""Tests of the catalogue: every entry builds; a wrong name gets near ones."""

import importlib

import jax
import jax.numpy as jnp
import ml_collections
import pytest
import tiny

from facesiam_jax import encoders, parallel
from facesiam_jax.encoders import catalogue
from facesiam_jax.encoders.classifier import Classifier
from facesiam_jax.training import recipe as recipe_lib

REQUIRED = {
  *("article_cnn", "small_cnn", "gabor", "koch2015", "mobilefacenet"),
  *(f"resnet{depth}" for depth in (18, 34, 50, 101)),
  *(f"iresnet{depth}" for depth in (18, 34, 50, 100)),
}


def test_has_what_is_promised():
  assert set(encoders.names()) >= REQUIRED
  assert encoders.names() == tuple(catalogue.ENTRIES)


@pytest.mark.parametrize("name", encoders.names())
def test_entries_embed_faces_of_their_size(name):
  """Shapes only: nothing is compiled."""
  entry, module = catalogue.find(name), encoders.create(name)
  shape = (2, entry.size, entry.size, entry.channels)
  images = jax.ShapeDtypeStruct(shape, jnp.float32)
  embeddings, variables = jax.eval_shape(
    module.init_with_output, jax.random.key(0), images
  )
  assert embeddings.shape == (2, module.dim)
  assert embeddings.dtype == jnp.float32
  assert set(variables) <= {"params", "batch_stats"}
  dtypes = {leaf.dtype.name for leaf in jax.tree.leaves(variables)}
  assert dtypes == {"float32"}
  assert entry.weights


@pytest.mark.parametrize("name", encoders.names())
def test_entries_refuse_a_size_they_cannot_take(name):
  module, channels = encoders.create(name), catalogue.find(name).channels
  images = jax.ShapeDtypeStruct((1, 7, 7, channels), jnp.float32)
  with pytest.raises(ValueError, match="pixels"):
    jax.eval_shape(module.init, jax.random.key(0), images)


@pytest.mark.parametrize("name", encoders.names())
def test_entries_can_average_their_statistics_over_a_mesh(name):
  entry, module = catalogue.find(name), encoders.create(name)
  shape = (2, entry.size, entry.size, entry.channels)
  images = jax.ShapeDtypeStruct(shape, jnp.float32)
  variables = jax.eval_shape(module.init, jax.random.key(0), images)
  assert hasattr(module, "axis_name") == ("batch_stats" in variables)


@pytest.mark.parametrize(
  ("name", "near"),
  [
    ("resnet5O", "resnet50"),
    ("iresnet-100", "iresnet100"),
    ("mobile_face_net", "mobilefacenet"),
    ("koch", "koch2015"),
  ],
)
def test_unknown_names_get_the_nearest(name, near):
  with pytest.raises(ValueError, match=f"{name!r}; did you mean .*{near}"):
    encoders.create(name)


def test_a_name_like_no_other_gets_all():
  with pytest.raises(
    ValueError, match="known are article_cnn, .*resnet50.*:Cl"
  ):
    encoders.create("xyzzy")


def test_arguments_replace_the_catalogues():
  module = encoders.create("resnet18", stage_sizes=[1, 1], dim=3)
  assert module.stage_sizes == (1, 1) and module.dim == 3
  assert not module.bottleneck


def test_families_are_imported_when_made():
  for entry in catalogue.ENTRIES.values():
    module, _, attribute = entry.path.partition(":")
    family = importlib.import_module(f"facesiam_jax.encoders.{module}")
    assert hasattr(family, attribute)


def _shapes(classifier):
  images = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
  return jax.eval_shape(classifier.init_with_output, jax.random.key(0), images)


def test_classifier_has_a_class_a_person_on_the_same_backbone():
  small = {"stage_sizes": [1, 1], "width": 4, "dim": 6}
  logits, variables = _shapes(Classifier("resnet18", 9, small))
  assert logits.shape == (2, 9) and logits.dtype == jnp.float32
  params = variables["params"]
  assert params["classes"]["kernel"].shape == (6, 9)
  _, alone = _shapes(encoders.create("resnet18", **small))
  assert params["backbone"] == alone["params"]
  assert variables["batch_stats"]["backbone"] == alone["batch_stats"]


def test_classifier_of_an_encoder_without_statistics():
  made = Classifier("small_cnn", 4, {"widths": [2]}, axis_name="data")
  logits, variables = _shapes(made)
  assert logits.shape == (2, 4) and set(variables) == {"params"}
  with pytest.raises(ValueError, match="did you mean"):
    _shapes(Classifier("resnet19", 4))


@pytest.mark.parametrize(
  ("name", "args", "axis"),
  [
    ("mobilefacenet", {"width": 4}, parallel.AXIS),
    ("small_cnn", {"widths": (4,)}, None),
  ],
)
def test_training_averages_statistics_over_the_mesh(name, args, axis):
  config = tiny.config()
  with config.unlocked():
    config.encoder.name = name
    config.encoder.args = ml_collections.ConfigDict(args)
  encoder = recipe_lib.make_recipe(config).encoder
  assert getattr(encoder, "axis_name", None) == axis
