"""Tests of `create` and of the encoders for small grey faces."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from facesiam_jax import encoders
from facesiam_jax.encoders import cnn

PARAMETERS = {
  # 3x3 kernels and biases of the stages, then the dense layer.
  "article_cnn": 320 + 18_496 + 73_856 + (8 * 8 * 128 + 1) * 128,
  "small_cnn": 160 + 6_960 + 41_568 + (4 * 4 * 96 + 1) * 128,
  # The filters are fixed: 8 x 8 cells of 30 magnitudes, the dense layer.
  "gabor": (8 * 8 * 30 + 1) * 1024,
}
DIMS = {"gabor": 1024}


class OneNumber(nn.Module):
  """An encoder of the reader's own."""

  sizes: tuple[int, ...] = (1,)

  @nn.compact
  def __call__(self, images, *, train=False, rows=None):
    return nn.Dense(self.sizes[0])(images.reshape(len(images), -1))


def _faces(count=3, side=64):
  rng = np.random.default_rng(0)
  return jnp.asarray(rng.normal(size=(count, side, side, 1)), jnp.float32)


@pytest.mark.parametrize("name", PARAMETERS)
def test_shape_type_and_parameter_count(name):
  module, faces = encoders.create(name), _faces()
  variables = module.init(jax.random.key(0), faces)
  embeddings = module.apply(variables, faces)
  assert embeddings.shape == (3, DIMS.get(name, 128))
  assert embeddings.dtype == jnp.float32
  count = sum(leaf.size for leaf in jax.tree.leaves(variables))
  assert count == PARAMETERS[name]
  assert set(variables) == {"params"}


@pytest.mark.parametrize("name", ["article_cnn", "small_cnn"])
def test_rows_do_not_see_each_other(name):
  arguments = {"widths": [4, 6], "dim": 5, "dropout": 0.3}
  module, faces = encoders.create(name, **arguments), _faces(4, 17)
  variables = module.init(jax.random.key(0), faces)
  rows = jnp.array([5, 2, 7, 11])

  def run(some):
    return module.apply(
      variables,
      faces[some],
      train=True,
      rows=rows[some],
      rngs={"dropout": jax.random.key(1)},
    )

  whole = run(jnp.arange(4))
  np.testing.assert_allclose(whole[2:], run(jnp.arange(2, 4)), atol=1e-5)
  still = module.apply(variables, faces)
  assert not np.allclose(whole, still, atol=1e-3)
  with pytest.raises(ValueError, match="rows"):
    module.apply(
      variables, faces, train=True, rngs={"dropout": jax.random.key(1)}
    )


def test_article_cnn_equals_flax_layers():
  faces = _faces(2, 19)
  module = cnn.ArticleCNN(widths=(4, 6), dim=5)
  variables = module.init(jax.random.key(0), faces)
  params = variables["params"]
  x = faces
  for stage, width in enumerate((4, 6)):
    layer = {"params": params[f"Conv_{stage}"]}
    x = nn.relu(nn.Conv(width, (3, 3)).apply(layer, x))
    x = nn.max_pool(x, (2, 2), (2, 2))
  dense = params["Dense_0"]
  expected = x.reshape(2, -1) @ dense["kernel"] + dense["bias"].reshape(1, -1)
  np.testing.assert_allclose(
    module.apply(variables, faces), expected, atol=1e-5
  )


def _local_contrast_by_loops(image, sigma, floor):
  height, width = image.shape

  def blur(values):
    out = np.zeros(values.shape)
    for y, x in np.ndindex(height, width):
      total = weights = 0.0
      for i, j in np.ndindex(height, width):
        weight = np.exp(-((y - i) ** 2 + (x - j) ** 2) / (2 * sigma**2))
        total, weights = total + weight * values[i, j], weights + weight
      out[y, x] = total / weights
    return out

  centred = image - blur(image)
  return centred / np.sqrt(blur(centred**2) + floor)


def test_local_contrast_equals_loops():
  images = np.random.default_rng(0).normal(size=(2, 9, 7, 2))
  actual = cnn.local_contrast(jnp.asarray(images, jnp.float32), 1.7, 0.03)
  for b, c in np.ndindex(2, 2):
    expected = _local_contrast_by_loops(images[b, ..., c], 1.7, 0.03)
    np.testing.assert_allclose(actual[b, ..., c], expected, atol=2e-5)
  flat = cnn.local_contrast(jnp.ones((1, 6, 6, 1)), 2.0)
  np.testing.assert_allclose(flat, 0, atol=1e-5)
  for arguments in ((0.0, 0.1), (1.0, 0.0)):
    with pytest.raises(ValueError, match="positive"):
      cnn.local_contrast(jnp.ones((1, 6, 6, 1)), *arguments)


def test_small_cnn_evens_contrast_only_when_asked():
  faces = _faces(2, 32)
  plain = cnn.SmallCNN(widths=(4,), dim=3)
  variables = plain.init(jax.random.key(0), faces)
  even = cnn.SmallCNN(widths=(4,), dim=3, contrast_sigma=2.0)
  shrunk = nn.avg_pool(faces, (2, 2), (2, 2))
  after = cnn.SmallCNN(widths=(4,), dim=3, shrink=1)
  np.testing.assert_allclose(
    even.apply(variables, faces),
    after.apply(variables, cnn.local_contrast(shrunk, 2.0)),
    atol=1e-5,
  )
  np.testing.assert_allclose(
    plain.apply(variables, faces), after.apply(variables, shrunk), atol=1e-5
  )


def test_own_encoder_by_import_path():
  module = encoders.create(f"{__name__}:OneNumber", sizes=[7])
  assert module.sizes == (7,)
  variables = module.init(jax.random.key(0), _faces())
  assert module.apply(variables, _faces()).shape == (3, 7)


@pytest.mark.parametrize(
  ("name", "arguments", "words"),
  [
    ("resnet9000", {}, "did you mean .*resnet50"),
    ("no_such_package.module:Class", {}, "cannot be imported"),
    ("facesiam_jax.encoders:Nothing", {}, "cannot be imported"),
    (":Class", {}, "cannot be imported"),
    ("math:sqrt", {}, "not a flax.linen.Module"),
    ("small_cnn", {"colour": 3}, "colour"),
  ],
)
def test_create_refuses(name, arguments, words):
  with pytest.raises(ValueError, match=words):
    encoders.create(name, **arguments)


@pytest.mark.parametrize("name", PARAMETERS)
def test_refuses_images_too_small_for_the_stages(name):
  with pytest.raises(ValueError, match="pixels"):
    encoders.create(name).init(jax.random.key(0), _faces(1, 7))
