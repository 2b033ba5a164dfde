"""Tests of facesiam_jax.encoders.inception_resnet."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from facesiam_jax import encoders, parallel
from facesiam_jax.encoders import inception_resnet
from facesiam_jax.encoders.inception_resnet import InceptionResNetV1

_TINY = {"stage_sizes": (1, 1, 1), "width": 4, "dim": 6, "dropout": 0.0}


def _images(count, size=75, seed=0):
  rng = np.random.default_rng(seed)
  return rng.normal(size=(count, size, size, 3)).astype(np.float32)


@functools.cache
def _variables():
  """Random parameters and statistics, as no initialiser would give them."""
  shapes = jax.eval_shape(
    InceptionResNetV1(**_TINY).init, jax.random.key(0), _images(1)
  )
  rng = np.random.default_rng(1)

  def draw(path, leaf):
    name = path[-1].key
    if name == "kernel":
      fan_in = np.prod(leaf.shape[:-1])
      values = rng.normal(size=leaf.shape) * np.sqrt(2 / fan_in)
    elif name in ("scale", "var"):
      values = rng.uniform(0.5, 1.5, leaf.shape)
    else:
      values = rng.normal(size=leaf.shape) * 0.1
    return values.astype(np.float32)

  return jax.tree_util.tree_map_with_path(draw, shapes)


@functools.cache
def _apply(**changes):
  encoder = InceptionResNetV1(**{**_TINY, **changes})
  return jax.jit(encoder.apply)


def test_parameters_and_shapes_are_the_originals():
  """23,482,624: facenet-pytorch's InceptionResnetV1 without its classifier."""
  encoder = encoders.create("inception_resnet_v1")
  image = jax.ShapeDtypeStruct((2, 160, 160, 3), jnp.float32)
  embeddings, variables = jax.eval_shape(
    encoder.init_with_output, jax.random.key(0), image
  )
  assert embeddings.shape == (2, 512)
  params = variables["params"]
  count = sum(leaf.size for leaf in jax.tree.leaves(params))
  assert count == 23_482_624
  for place, shape in {
    ("conv2d_3b", "conv"): (1, 1, 64, 80),
    ("conv2d_4b", "conv"): (3, 3, 192, 256),
    ("repeat_1_4", "conv2d"): (1, 1, 96, 256),
    ("mixed_6a", "branch1_2", "conv"): (3, 3, 192, 256),
    ("repeat_2_9", "branch1_1", "conv"): (1, 7, 128, 128),
    ("mixed_7a", "branch2_2", "conv"): (3, 3, 256, 256),
    ("repeat_3_0", "branch1_2", "conv"): (3, 1, 192, 192),
    ("block8", "conv2d"): (1, 1, 384, 1792),
    ("last_linear",): (1792, 512),
  }.items():
    leaf = params
    for name in place:
      leaf = leaf[name]
    assert leaf["kernel"].shape == shape, place
  assert "repeat_1_5" not in params and "bias" not in params["last_linear"]
  assert variables["batch_stats"]["last_bn"]["var"].shape == (512,)


@pytest.mark.slow
def test_embeddings_are_finite_and_of_unit_length():
  images = _images(3)
  done = np.asarray(_apply()(_variables(), images))
  assert done.shape == (3, 6) and done.dtype == np.float32
  np.testing.assert_allclose(np.linalg.norm(done, axis=1), 1, rtol=1e-5)
  plain = np.asarray(_apply(normalize=False)(_variables(), images))
  lengths = np.linalg.norm(plain, axis=1, keepdims=True)
  np.testing.assert_allclose(plain / lengths, done, rtol=1e-4, atol=1e-6)
  assert np.abs(done[0] - done[1]).max() > 1e-3
  images[1:] = 0
  alone = _apply()(_variables(), images)
  np.testing.assert_allclose(alone[0], done[0], atol=1e-5)


def test_bfloat16_is_near_float32():
  """Largest difference of a unit embedding's entry, measured: 0.005."""
  images = _images(3)
  exact = np.asarray(_apply()(_variables(), images))
  rough = _apply(dtype="bfloat16")(_variables(), images)
  assert rough.dtype == np.float32
  assert 0 < np.abs(np.asarray(rough) - exact).max() < 0.02


def _block(kind, remat):
  """A block on 7x7 pixels of 8 channels: (parameters, loss of parameters)."""
  common = {"axis_name": None, "dtype": "float32"}
  cls = nn.remat(kind, static_argnums=(2,)) if remat else kind
  block = cls(inception_resnet._BLOCK8, 2, common)
  images = _images(2, size=7, seed=3)[..., [0, 1, 2, 0, 1, 2, 0, 1]]
  init = jax.jit(block.init, static_argnums=2)
  variables = init(jax.random.key(0), images, False)

  def loss(params):
    done = block.apply({**variables, "params": params}, images, False)
    return jnp.sum(done * jnp.cos(jnp.arange(done.size)).reshape(done.shape))

  return variables["params"], loss


@pytest.mark.slow
def test_a_block_has_the_right_gradient_with_remat_too():
  params, loss = _block(inception_resnet._Residual, remat=False)
  again, remat_loss = _block(inception_resnet._Residual, remat=True)
  assert jax.tree.structure(params) == jax.tree.structure(again)
  gradient = jax.jit(jax.grad(loss))(params)
  other = jax.jit(jax.grad(remat_loss))(params)
  for one, two in zip(
    jax.tree.leaves(gradient), jax.tree.leaves(other), strict=True
  ):
    scale = max(1e-3, float(jnp.abs(one).max()))
    np.testing.assert_allclose(one, two, atol=1e-5 * scale)
  norm = np.sqrt(sum(float(jnp.sum(g**2)) for g in jax.tree.leaves(gradient)))
  shift = lambda size: jax.tree.map(
    lambda p, g: p + size * g / norm, params, gradient
  )
  run = jax.jit(loss)
  rise = float(run(shift(1e-2)) - run(shift(-1e-2))) / 2e-2
  assert rise == pytest.approx(norm, rel=0.01)


def test_remat_renames_nothing():
  shapes = [
    jax.eval_shape(
      InceptionResNetV1(**_TINY, remat=remat).init,
      jax.random.key(0),
      _images(1),
    )
    for remat in (False, True)
  ]
  assert shapes[0] == shapes[1]


@pytest.mark.slow
def test_statistics_are_those_of_the_global_batch(devices):
  images = _images(8)
  encoder = InceptionResNetV1(**_TINY, axis_name=parallel.AXIS)

  def step(variables, images):
    return encoder.apply(variables, images, train=True, mutable=["batch_stats"])

  results = []
  spec = jax.sharding.PartitionSpec
  for number in (1, 8):
    mesh = parallel.make_mesh(devices[:number])
    mapped = jax.jit(
      jax.shard_map(
        step,
        mesh=mesh,
        in_specs=(spec(), spec(parallel.AXIS)),
        out_specs=(spec(parallel.AXIS), spec()),
        check_vma=False,
      )
    )
    results.append(jax.device_get(mapped(_variables(), images)))
  (one, one_stats), (eight, eight_stats) = results
  np.testing.assert_allclose(one, eight, atol=1e-4)
  for a, b in zip(
    jax.tree.leaves(one_stats), jax.tree.leaves(eight_stats), strict=True
  ):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
  "images, changes, words",
  [
    (np.zeros((1, 74, 80, 3), np.float32), {}, "75 x 75"),
    (np.zeros((75, 75, 3), np.float32), {}, r"\[B, H, W, C\]"),
    (np.zeros((1, 75, 75, 3), np.float32), {"width": 5}, "even and positive"),
    (np.zeros((1, 75, 75, 3), np.float32), {"dtype": "int8"}, "dtype"),
  ],
)
def test_wrong_use_is_refused(images, changes, words):
  encoder = InceptionResNetV1(**{**_TINY, **changes})
  with pytest.raises(ValueError, match=words):
    jax.eval_shape(encoder.init, jax.random.key(0), images)


def test_training_with_dropout_needs_rows():
  encoder = InceptionResNetV1(**{**_TINY, "dropout": 0.5})
  with pytest.raises(ValueError, match="rows"):
    jax.eval_shape(
      functools.partial(encoder.apply, train=True, mutable=["batch_stats"]),
      _variables(),
      _images(1),
    )
