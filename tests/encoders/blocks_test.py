"""Tests of what the families of encoders share."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import PartitionSpec as P

from facesiam_jax import parallel
from facesiam_jax.encoders import blocks, layers
from tests.reference import windows as reference

CASES = [
  # images, window, stride, padding
  ((2, 9, 8, 3), (3, 3), 2, 1),
  ((3, 7, 5, 2), (3, 3), 1, 1),
  ((2, 6, 7, 2), (2, 3), 1, 0),
  ((2, 8, 9, 1), (4, 3), 3, 2),
  # One window that is the whole image; a stride that leaves pixels out.
  ((3, 5, 4, 2), (5, 4), 1, 0),
  ((2, 7, 8, 2), (2, 2), 3, 0),
  # One window an image, which leaves out a column.
  ((2, 5, 6, 3), (5, 5), 3, 0),
]


def _images(shape, seed=0):
  values = np.random.default_rng(seed).normal(size=shape)
  return jnp.asarray(values, jnp.float32)


def _pulled_back(function, *arguments):
  """Values, a random cotangent, and the gradients it gives."""
  shape = jax.eval_shape(function, *arguments)
  cotangent = np.random.default_rng(1).normal(size=shape.shape)

  @jax.jit
  def run(*arguments):
    values, pull = jax.vjp(function, *arguments)
    return values, pull(jnp.asarray(cotangent, shape.dtype))

  values, gradients = run(*arguments)
  return values, cotangent, gradients


@pytest.mark.parametrize("case", CASES)
def test_max_pool_equals_loops_with_ties(case):
  shape, window, stride, padding = case
  # Few distinct values, so that most windows have ties.
  images = np.random.default_rng(2).integers(-3, 0, size=shape)
  images = jnp.asarray(images, jnp.float32)
  values, cotangent, (gradient,) = _pulled_back(
    lambda x: blocks.max_pool(x, window, stride, padding), images
  )
  setting = (window, stride, padding)
  np.testing.assert_array_equal(values, reference.max_pool(images, *setting))
  expected = reference.max_pool_gradient(images, cotangent, *setting)
  np.testing.assert_allclose(gradient, expected, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_avg_pool_equals_loops(case):
  shape, window, stride, _ = case
  images = _images(shape)
  values = jax.jit(lambda x: blocks.avg_pool(x, window, stride))(images)
  expected = reference.avg_pool(images, window, stride)
  np.testing.assert_allclose(values, expected, atol=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_depthwise_equals_loops(case):
  shape, window, stride, padding = case
  images, kernel = _images(shape), _images((*window, 1, shape[-1]), seed=3)
  values, cotangent, gradients = _pulled_back(
    lambda x, k: blocks.depthwise_conv(x, k, stride=stride, padding=padding),
    images,
    kernel,
  )
  setting = (stride, padding)
  expected = reference.depthwise(images, kernel, *setting)
  np.testing.assert_allclose(values, expected, atol=1e-5)
  expected = reference.depthwise_gradients(images, kernel, cotangent, *setting)
  for actual, wanted in zip(gradients, expected, strict=True):
    np.testing.assert_allclose(actual, wanted, atol=1e-4)


def test_wrong_depthwise_gradients_are_rejected():
  images, kernel = _images((2, 7, 5, 2)), _images((3, 3, 1, 2), seed=3)
  _, cotangent, gradients = _pulled_back(
    lambda x, k: blocks.depthwise_conv(x, k, padding=1), images, kernel
  )
  expected = reference.depthwise_gradients(images, kernel, cotangent, 1, 1)
  not_flipped = blocks.depthwise_conv(
    jnp.asarray(cotangent, jnp.float32), kernel, padding=1
  )
  np.testing.assert_allclose(gradients[0], expected[0], atol=1e-4)
  for wrong in (not_flipped, gradients[0][::-1]):
    assert np.abs(wrong - expected[0]).max() > 0.1
  for wrong in (gradients[1][::-1], gradients[1].swapaxes(0, 1)):
    assert np.abs(wrong - expected[1]).max() > 0.1


def test_other_platforms_get_the_native_operations():
  images, kernel = _images((2, 7, 5, 2)), _images((3, 3, 1, 2), seed=3)

  def loss(images, kernel):
    hidden = blocks.depthwise_conv(images, kernel, padding=1)
    return jnp.sum(jnp.square(blocks.max_pool(hidden, 3, 2, 1)))

  traced = jax.jit(jax.grad(loss, argnums=(0, 1))).trace(images, kernel)
  cpu = traced.lower(lowering_platforms=("cpu",)).as_text()
  tpu = traced.lower(lowering_platforms=("tpu",)).as_text()
  assert "convolution" not in cpu and "select_and_scatter" not in cpu
  assert "convolution" in tpu and "select_and_scatter" in tpu


def test_avg_pool_keeps_bfloat16():
  images = _images((2, 6, 6, 2)).astype(jnp.bfloat16)
  assert blocks.avg_pool(images, 3, 3).dtype == jnp.bfloat16


def test_no_images_and_bfloat16():
  kernel = _images((3, 3, 1, 2))
  values, _, gradients = _pulled_back(
    lambda x, k: blocks.depthwise_conv(x, k, padding=1),
    jnp.zeros((0, 5, 5, 2)),
    kernel,
  )
  assert values.shape == (0, 5, 5, 2)
  np.testing.assert_array_equal(gradients[1], 0)
  images = _images((2, 6, 6, 2))
  half = images.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16)
  values, _, gradients = _pulled_back(blocks.depthwise_conv, *half)
  assert values.dtype == gradients[0].dtype == gradients[1].dtype
  assert values.dtype == jnp.bfloat16
  exact = blocks.depthwise_conv(images, kernel)
  np.testing.assert_allclose(values.astype(jnp.float32), exact, atol=0.05)


@pytest.mark.parametrize(
  ("run", "words"),
  [
    (lambda x: blocks.max_pool(x, 6, 1), "exceeds"),
    (lambda x: blocks.max_pool(x, 2, 0), "at least 1"),
    (lambda x: blocks.max_pool(x, 2, 1, 2), "less than the window"),
    (lambda x: blocks.avg_pool(x, (6, 1), 1), "exceeds"),
    (lambda x: blocks.depthwise_conv(x, jnp.ones((3, 3, 2, 1))), "need a k"),
    (lambda x: blocks.depthwise_conv(x, jnp.ones((7, 3, 1, 2))), "exceeds"),
    (
      lambda x: blocks.depthwise_conv(x, jnp.ones((3, 3, 1, 2)), padding=-1),
      "at least 0",
    ),
  ],
)
def test_windows_refuse(run, words):
  with pytest.raises(ValueError, match=words):
    run(jnp.ones((1, 5, 5, 2)))


def test_global_avg_pool_sums_in_float32():
  images = jnp.full((2, 64, 64, 3), 1.01, jnp.bfloat16)
  mean = blocks.global_avg_pool(images)
  assert mean.dtype == jnp.float32 and mean.shape == (2, 3)
  np.testing.assert_allclose(mean, float(images[0, 0, 0, 0]), rtol=1e-6)


def test_prelu_and_affine():
  x = jnp.asarray([[-2.0, -4.0], [3.0, 0.0]])
  prelu = blocks.PReLU()
  variables = prelu.init(jax.random.key(0), x)
  np.testing.assert_array_equal(variables["params"]["slope"], [0.25, 0.25])
  variables = {"params": {"slope": jnp.asarray([0.5, -1.0])}}
  np.testing.assert_array_equal(prelu.apply(variables, x), [[-1, 4], [3, 0]])
  affine = blocks.Affine()
  np.testing.assert_array_equal(
    affine.apply(affine.init(jax.random.key(0), x), x), x
  )
  variables = {
    "params": {"scale": jnp.asarray([2.0, 1.0]), "bias": jnp.asarray([1.0, 5])}
  }
  np.testing.assert_array_equal(affine.apply(variables, x), [[-3, 1], [7, 5]])
  for module in (prelu, affine):
    half = x.astype(jnp.bfloat16)
    made = module.init(jax.random.key(0), half)
    assert module.apply(made, half).dtype == jnp.bfloat16
    assert {a.dtype for a in jax.tree.leaves(made)} == {jnp.dtype("float32")}


def test_batch_norm_by_hand():
  x = _images((4, 3, 5, 2)) * 3 + 1
  module = blocks.BatchNorm(epsilon=0.1, momentum=0.7)
  variables = module.init(jax.random.key(0), x, train=False)
  variables["params"] = {
    "scale": jnp.asarray([2.0, 0.5]), "bias": jnp.asarray([1.0, -1.0])
  }  # fmt: skip
  out, updates = module.apply(variables, x, train=True, mutable=["batch_stats"])
  wide = np.asarray(x, np.float64)
  mean, var = wide.mean(axis=(0, 1, 2)), wide.var(axis=(0, 1, 2))
  expected = (wide - mean) / np.sqrt(var + 0.1) * [2, 0.5] + [1, -1]
  np.testing.assert_allclose(out, expected, atol=1e-5)
  kept = updates["batch_stats"]
  np.testing.assert_allclose(kept["mean"], 0.3 * mean, atol=1e-5)
  np.testing.assert_allclose(kept["var"], 0.7 + 0.3 * var, atol=1e-5)
  still = module.apply({**variables, **updates}, x, train=False)
  mean, var = np.asarray(kept["mean"]), np.asarray(kept["var"])
  expected = (wide - mean) / np.sqrt(var + 0.1)
  np.testing.assert_allclose(still, expected * [2, 0.5] + [1, -1], atol=1e-5)


def test_batch_norm_without_scale_or_bias_and_in_half():
  x = _images((4, 2))
  for use_scale, use_bias in ((False, True), (True, False), (False, False)):
    module = blocks.BatchNorm(use_scale=use_scale, use_bias=use_bias)
    variables = module.init(jax.random.key(0), x, train=True)
    names = {"scale": use_scale, "bias": use_bias}
    wanted = {name for name, used in names.items() if used}
    assert set(variables.get("params", {})) == wanted
  half = blocks.BatchNorm(dtype="bfloat16")
  variables = half.init(jax.random.key(0), x, train=False)
  assert {a.dtype for a in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
  assert half.apply(variables, x, train=False).dtype == jnp.bfloat16


class _Rectifying(nn.Module):
  """Normalises, rectifies, convolves: as the library does, or Flax."""

  own: bool
  dtype: str = "float32"

  @nn.compact
  def __call__(self, x):
    if self.own:
      norm = blocks.BatchNorm(dtype=self.dtype, name="norm")
      made = blocks.relu_later(norm.later(x, train=True))
      return layers.Conv(3, strides=2, padding="VALID", name="conv")(made)
    # `momentum` and `epsilon` have other defaults there.
    x = nn.BatchNorm(False, momentum=0.9, epsilon=1e-5, name="norm")(x)
    conv = nn.Conv(3, (3, 3), strides=2, padding="VALID", name="conv")
    return conv(nn.relu(x))


def test_what_is_rectified_in_the_convolution_equals_flax():
  x = _images((6, 7, 8, 2)) * 2 + 1
  variables = _Rectifying(own=True).init(jax.random.key(0), x)
  bias = jnp.asarray([0.3, -0.2])
  variables["params"]["norm"]["bias"] = bias
  rest = {"batch_stats": variables["batch_stats"]}

  def run(own):
    module = _Rectifying(own)
    apply = lambda params, x: module.apply(
      {"params": params, **rest}, x, mutable=["batch_stats"]
    )
    values, pull, updates = jax.vjp(apply, variables["params"], x, has_aux=True)
    return values, updates, pull(jnp.sin(values))

  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
    jax.jit(run, static_argnums=0)(True),
    jax.jit(run, static_argnums=0)(False),
  )


def test_what_is_rectified_in_the_convolution_is_not_kept():
  x = _images((6, 7, 8, 2))
  variables = _Rectifying(own=True).init(jax.random.key(0), x)

  def kept(own):
    run = lambda v: _Rectifying(own).apply(v, x, mutable=["batch_stats"])[0]
    arrays = jax.tree.leaves(jax.vjp(run, variables)[1])
    return [a for a in arrays if a.shape == x.shape]

  assert all(np.array_equal(a, x) for a in kept(own=True))
  assert any((a >= 0).all() for a in kept(own=False))


def test_what_is_rectified_keeps_the_dtype():
  x = _images((2, 5, 5, 2))
  module = _Rectifying(own=True, dtype="bfloat16")
  out, _ = module.init_with_output(jax.random.key(0), x)
  assert out.dtype == jnp.bfloat16


@pytest.mark.parametrize("count", [1, 2, 8])
def test_batch_norm_is_of_the_global_batch(count, devices):
  x = _images((8, 3, 2)) + jnp.arange(8.0).reshape(8, 1, 1)
  module = blocks.BatchNorm(axis_name=parallel.AXIS)
  variables = module.init(jax.random.key(0), x, train=False)
  step = lambda x: module.apply(
    variables, x, train=True, mutable=["batch_stats"]
  )
  mapped = parallel.pmap(
    step, parallel.make_mesh(devices[:count]), out_specs=(P(parallel.AXIS), P())
  )
  alone = blocks.BatchNorm()
  expected = alone.apply(variables, x, train=True, mutable=["batch_stats"])
  for actual, wanted in zip(
    jax.tree.leaves(mapped(x)), jax.tree.leaves(expected), strict=True
  ):
    np.testing.assert_allclose(actual, wanted, atol=1e-5)


def test_depthwise_module_equals_flax():
  images = _images((2, 7, 6, 4))
  own = blocks.DepthwiseConv(3, 2, 1, use_bias=True)
  plain = nn.Conv(
    4, (3, 3), (2, 2), ((1, 1), (1, 1)), feature_group_count=4
  )  # fmt: skip
  variables = own.init(jax.random.key(0), images)
  variables["params"]["bias"] = jnp.arange(4.0)
  np.testing.assert_allclose(
    own.apply(variables, images), plain.apply(variables, images), atol=1e-5
  )
  bare = blocks.DepthwiseConv().init(jax.random.key(0), images)
  assert set(bare["params"]) == {"kernel"}
  assert bare["params"]["kernel"].shape == (3, 3, 1, 4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", jnp.float16])
def test_compute_dtype(dtype):
  assert blocks.compute_dtype(dtype) == jnp.dtype(dtype)


@pytest.mark.parametrize("dtype", ["float64", "int8", "half a float", None])
def test_compute_dtype_refuses(dtype):
  with pytest.raises(ValueError, match="float32, bfloat16, float16"):
    blocks.compute_dtype(dtype)


@pytest.mark.parametrize(
  ("shape", "arguments", "words"),
  [
    ((4, 8, 8), {}, r"\[B, H, W, C\], not \(4, 8, 8\)"),
    ((4, 8, 8, 1), {"channels": 3}, "3 channels"),
    ((4, 8, 8, 1), {"size": 9}, "9 x 9 pixels"),
    ((4, 8, 8, 1), {"size": (8, 9)}, "8 x 9 pixels"),
    ((4, 8, 7, 1), {"smallest": 8}, "8 x 8 pixels or more"),
  ],
)
def test_check_images_refuses(shape, arguments, words):
  with pytest.raises(ValueError, match=words):
    blocks.check_images(jnp.ones(shape), **arguments)


def test_check_images_accepts_and_wants_floats():
  images = jnp.ones((2, 8, 9, 3))
  blocks.check_images(images, channels=3, smallest=8, size=(8, 9))
  with pytest.raises(ValueError, match="float, not uint8"):
    blocks.check_images(images.astype(jnp.uint8))
