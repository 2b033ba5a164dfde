"""Tests of the layers with their own gradients."""

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax
from jax.sharding import AxisType, PartitionSpec

from facesiam_jax import encoders
from facesiam_jax.encoders import layers
from tests.reference import layers as reference

CASES = [
  # images, kernel, strides, padding
  ((3, 7, 5, 2), (3, 3, 2, 5), (1, 1), "SAME"),
  ((11, 6, 9, 3), (3, 5, 3, 2), (1, 1), "VALID"),
  ((9, 8, 7, 1), (5, 5, 1, 4), (2, 2), "SAME"),
  ((2, 9, 11, 3), (2, 3, 3, 2), (2, 3), "VALID"),
  ((3, 7, 6, 2), (3, 2, 2, 3), (3, 1), ((2, 0), (1, 3))),
  # The padding exceeds the window, and a stride skips pixels altogether.
  ((2, 5, 5, 2), (2, 2, 2, 3), (3, 3), ((3, 4), (2, 3))),
  ((1, 4, 4, 2), (1, 1, 2, 3), (2, 2), "SAME"),
  ((2, 9, 8, 2), (1, 1, 2, 3), (1, 1), ((0, 2), (1, 0))),
  # More pixels than one matrix product is made for on CPU.
  ((2, 9, 10, 2), (3, 3, 2, 3), (1, 1), "SAME"),
  # Steps of two, odd and even sides and windows.
  ((2, 17, 18, 3), (7, 7, 3, 4), (2, 2), ((3, 3), (3, 3))),
  ((3, 20, 17, 1), (4, 3, 1, 2), (2, 2), "VALID"),
  ((1, 19, 16, 2), (3, 4, 2, 2), (2, 2), ((0, 1), (2, 3))),
]


def _arrays(image_shape, kernel_shape, seed=0):
  rng = np.random.default_rng(seed)
  return (
    jnp.asarray(rng.normal(size=image_shape), jnp.float32),
    jnp.asarray(rng.normal(size=kernel_shape), jnp.float32),
  )


def _pads(images, kernel, strides, padding):
  if isinstance(padding, str):
    return lax.padtype_to_pads(
      images.shape[1:3], kernel.shape[:2], strides, padding
    )
  return padding


def _pulled_back(function, *arguments, seed=1):
  """Values, a random cotangent, and the gradients it gives."""
  values, pull = jax.vjp(function, *arguments)
  cotangent = np.random.default_rng(seed).normal(size=values.shape)
  return values, cotangent, pull(jnp.asarray(cotangent, values.dtype))


def _close(actual, expected, tolerance=1e-5):
  scale = max(1.0, float(np.max(np.abs(expected), initial=0.0)))
  np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize("case", CASES)
def test_conv_equals_loops(case):
  image_shape, kernel_shape, strides, padding = case
  images, kernel = _arrays(image_shape, kernel_shape)
  pads = _pads(images, kernel, strides, padding)
  values, cotangent, gradients = _pulled_back(
    lambda x, k: layers.conv(x, k, strides=strides, padding=padding),
    images,
    kernel,
  )
  _close(values, reference.conv(images, kernel, strides, pads))
  expected = reference.conv_gradients(images, kernel, strides, pads, cotangent)
  _close(gradients[0], expected[0])
  _close(gradients[1], expected[1])


@pytest.mark.parametrize("case", CASES)
def test_conv_equals_native(case):
  image_shape, kernel_shape, strides, padding = case
  images, kernel = _arrays(image_shape, kernel_shape)

  def native(x, k):
    return lax.conv_general_dilated(
      x, k, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )

  own = _pulled_back(
    lambda x, k: layers.conv(x, k, strides=strides, padding=padding),
    images,
    kernel,
  )
  expected = _pulled_back(native, images, kernel)
  _close(own[0], expected[0])
  _close(own[2][0], expected[2][0])
  _close(own[2][1], expected[2][1])


def test_wrong_gradients_are_rejected():
  """The comparison with loops notices the usual mistakes."""
  images, kernel = _arrays((3, 7, 5, 2), (3, 3, 2, 4))
  pads = ((1, 1), (1, 1))
  _, cotangent, (right_x, right_k) = _pulled_back(layers.conv, images, kernel)
  g = jnp.asarray(cotangent, jnp.float32)
  not_flipped = layers.conv(g, kernel.swapaxes(2, 3))
  transposed = layers.conv(g, kernel[::-1, ::-1].swapaxes(0, 1).swapaxes(2, 3))
  expected_x, expected_k = reference.conv_gradients(
    images, kernel, (1, 1), pads, cotangent
  )
  _close(right_x, expected_x)
  for wrong in (not_flipped, transposed, right_x[::-1]):
    with pytest.raises(AssertionError):
      _close(wrong, expected_x)
  for wrong in (right_k[::-1, ::-1], right_k.swapaxes(0, 1), right_k / 3):
    with pytest.raises(AssertionError):
      _close(wrong, expected_k)


def test_conv_of_no_images():
  images, kernel = jnp.zeros((0, 5, 5, 2)), jnp.ones((3, 3, 2, 4))
  values, _, gradients = _pulled_back(layers.conv, images, kernel)
  assert values.shape == (0, 5, 5, 4)
  assert gradients[0].shape == images.shape
  np.testing.assert_array_equal(gradients[1], 0)


def test_conv_keeps_bfloat16():
  images, kernel = _arrays((2, 6, 6, 2), (3, 3, 2, 4))
  half = images.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16)
  values, _, gradients = _pulled_back(layers.conv, *half)
  exact = _pulled_back(layers.conv, images, kernel)
  assert values.dtype == gradients[0].dtype == gradients[1].dtype
  assert values.dtype == jnp.bfloat16
  _close(gradients[1].astype(jnp.float32), exact[2][1], 2e-2)


@pytest.mark.parametrize(
  ("kernel_shape", "arguments", "word"),
  [
    ((3, 3, 4, 2), {}, "channels"),
    ((3, 3, 2, 2), {"strides": 0}, "strides"),
    ((3, 3, 2, 2), {"padding": "REFLECT"}, "padding"),
    ((3, 3, 2, 2), {"padding": ((0, -1), (0, 0))}, "negative"),
    ((9, 3, 2, 2), {"padding": "VALID"}, "exceeds"),
  ],
)
def test_conv_refuses(kernel_shape, arguments, word):
  with pytest.raises(ValueError, match=word):
    layers.conv(jnp.ones((1, 5, 5, 2)), jnp.ones(kernel_shape), **arguments)


@pytest.mark.parametrize("shape", [(2, 6, 4, 3), (3, 7, 5, 2), (1, 2, 3, 1)])
def test_max_pool_equals_native_and_loops_with_ties(shape):
  # Few distinct values, so that most blocks have ties.
  images = np.random.default_rng(2).integers(0, 3, size=shape)
  images = jnp.asarray(images, jnp.float32)

  def native(x):
    return nn.max_pool(x, (2, 2), (2, 2))

  own = _pulled_back(layers.max_pool, images)
  expected = _pulled_back(native, images)
  np.testing.assert_array_equal(own[0], expected[0])
  np.testing.assert_array_equal(own[2][0], expected[2][0])
  loops = reference.max_pool_gradient(np.asarray(images), own[1])
  _close(own[2][0], loops)


def test_max_pool_gives_ties_to_the_first_in_reading_order():
  images = jnp.asarray([[1, 2, 0], [2, 2, 9]], jnp.float32)
  gradient = jax.grad(lambda x: layers.max_pool(x).sum())(
    images.reshape(1, 2, 3, 1)
  )
  np.testing.assert_array_equal(gradient[0, :, :, 0], [[0, 1, 0], [0, 0, 0]])


def test_max_pool_refuses_one_row():
  with pytest.raises(ValueError, match="2x2"):
    layers.max_pool(jnp.ones((1, 1, 4, 1)))


class _Plain(nn.Module):
  """The same stage from Flax's own layers, pooled last."""

  @nn.compact
  def __call__(self, x):
    x = nn.relu(nn.Conv(5, (3, 3), name="Conv_0")(x))
    return nn.max_pool(x, (2, 2), (2, 2))


class _Own(nn.Module):
  @nn.compact
  def __call__(self, x):
    return nn.relu(layers.Conv(5, pool=True)(x))


def test_conv_module_pooling_before_bias_equals_flax():
  images, _ = _arrays((3, 9, 7, 2), (1, 1, 1, 1))
  variables = _Own().init(jax.random.key(0), images)
  bias = jnp.linspace(-1, 1, 5)
  variables["params"]["Conv_0"]["bias"] = bias
  own = _pulled_back(lambda v: _Own().apply(v, images), variables)
  plain = _pulled_back(lambda v: _Plain().apply(v, images), variables)
  _close(own[0], plain[0])
  jax.tree.map(_close, own[2][0], plain[2][0])
  assert variables["params"]["Conv_0"]["kernel"].shape == (3, 3, 2, 5)
  without = layers.Conv(5, use_bias=False).init(jax.random.key(0), images)
  assert set(without["params"]) == {"kernel"}


def test_parameters_are_flaxs():
  images, _ = _arrays((2, 6, 6, 2), (1, 1, 1, 1))
  module = layers.Conv(4)
  variables = module.init(jax.random.key(3), images)
  plain = nn.Conv(4, (3, 3), kernel_init=layers.he_normal)
  jax.tree.map(
    np.testing.assert_array_equal,
    variables,
    plain.init(jax.random.key(3), images),
  )
  kernel, bias = (variables["params"][name] for name in ("kernel", "bias"))
  for wrong in ({"kernel": kernel[:2], "bias": bias}, {"kernel": bias}):
    with pytest.raises(flax.errors.ScopeParamShapeError, match="kernel"):
      module.apply({"params": wrong}, images)
  with pytest.raises(flax.errors.ScopeParamNotFoundError, match="bias"):
    module.apply({"params": {"kernel": kernel}}, images)


def test_initial_values_are_not_drawn_where_there_are_values():
  drawn = []

  def init(key, shape, dtype):
    drawn.append(shape)
    return jnp.ones(shape, dtype)

  images, _ = _arrays((2, 6, 6, 2), (1, 1, 1, 1))
  module = layers.Conv(4, kernel_init=init)
  variables = module.init(jax.random.key(0), images)
  assert drawn == [(3, 3, 2, 4)]
  module.apply(variables, images)
  assert drawn == [(3, 3, 2, 4)]


def _train_loss(kernel, images):
  hidden = layers.max_pool(layers.conv(images, kernel))
  return jnp.sum(jnp.square(hidden))


def test_gradients_inside_scan_and_shard_map():
  images, kernel = _arrays((8, 6, 6, 2), (3, 3, 2, 3))
  whole = jax.grad(_train_loss)(kernel, images)

  def body(total, some):
    return total + jax.grad(_train_loss)(kernel, some[None]), None

  scanned, _ = jax.jit(lambda x: lax.scan(body, jnp.zeros_like(kernel), x))(
    images
  )
  _close(scanned, whole)
  mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
  spec = PartitionSpec
  mapped = jax.shard_map(
    lambda k, x: lax.psum(jax.grad(_train_loss)(k, x), "data"),
    mesh=mesh,
    in_specs=(spec(), spec("data")),
    out_specs=spec(),
    check_vma=False,
  )
  _close(jax.jit(mapped)(kernel, images), whole)


def test_other_platforms_get_the_native_gradient():
  images, kernel = _arrays((8, 6, 6, 2), (3, 3, 2, 3))
  gradient = jax.jit(jax.grad(_train_loss, argnums=(0, 1)))
  traced = gradient.trace(kernel, images)
  cpu = traced.lower(lowering_platforms=("cpu",)).as_text()
  tpu = traced.lower(lowering_platforms=("tpu",)).as_text()
  assert "select_and_scatter" not in cpu and "select_and_scatter" in tpu
  # The gradient with respect to the kernel, as JAX says it: f01b_i01o->01bf.
  assert "[f, 0, 1, b]x" not in cpu and "[f, 0, 1, b]x" in tpu


@pytest.mark.parametrize("window", [1, 3])
def test_the_gradient_has_no_loops(window):
  # Of all that XLA does on CPU, convolutions inside loops are the slowest.
  images, kernel = _arrays((8, 6, 6, 2), (window, window, 2, 3))
  gradient = jax.jit(jax.grad(_train_loss, argnums=(0, 1)))
  text = gradient.trace(kernel, images).lower().as_text()
  assert "while" not in text


@pytest.mark.parametrize("platform", ["cpu", None])
def test_compiler_options_leave_convolutions_to_eigen(platform):
  # As on the eight CPU devices of the tests.
  arrays = _arrays((16, 16, 16, 32), (3, 3, 32, 32))
  options = encoders.compiler_options(platform)
  assert options == encoders.compiler_options("cpu") != {}
  run = lambda images, kernel: layers.conv(images, kernel).sum(axis=-1)
  fast = jax.jit(run, compiler_options=options)
  plain = jax.jit(run)
  _close(fast(*arrays), plain(*arrays))
  text = fast.lower(*arrays).compile().as_text()
  assert " convolution(" in text.split("ENTRY")[1]


@pytest.mark.parametrize("platform", ["gpu", "tpu", "METAL"])
def test_other_platforms_have_no_options(platform):
  assert encoders.compiler_options(platform) == {}


@pytest.mark.parametrize("version", [(0, 9, 2), (0, 13, 0), (1, 0, 0)])
def test_unknown_releases_have_no_options(monkeypatch, version):
  monkeypatch.setattr(jax, "__version_info__", version)
  assert encoders.compiler_options("cpu") == {}


@pytest.mark.parametrize(
  ("image_shape", "kernel_shape", "strides", "word", "absent"),
  [
    ((2, 9, 9, 8), (1, 1, 8, 4), 1, "dot_general", "convolution"),
    ((1, 7, 7, 8), (3, 3, 8, 4), 1, "dot_general", "convolution"),
    ((2, 7, 7, 8), (3, 3, 8, 4), 1, "convolution", "dot_general"),
    ((1, 8, 8, 8), (3, 3, 8, 4), 1, "convolution", "dot_general"),
    ((2, 20, 20, 8), (7, 7, 8, 8), 2, "7x7x8x8", "dot_general"),
  ],
)
def test_the_way_to_convolve_follows_from_the_shape_on_cpu_alone(
  image_shape, kernel_shape, strides, word, absent
):
  arrays = _arrays(image_shape, kernel_shape)
  run = jax.jit(lambda x, k: layers.conv(x, k, strides=strides))
  traced = run.trace(*arrays)
  cpu = traced.lower(lowering_platforms=("cpu",)).as_text()
  assert word in cpu and absent not in cpu
  tpu = traced.lower(lowering_platforms=("tpu",)).as_text()
  assert "convolution" in tpu and "dot_general" not in tpu
  assert "x".join(map(str, kernel_shape)) in tpu


def test_row_dropout_depends_on_key_and_row_alone():
  inputs = jnp.ones((6, 5, 7), jnp.float32)
  key, rows = jax.random.key(3), jnp.array([4, 0, 9, 2, 11, 5])
  whole = layers.row_dropout(inputs, 0.4, key, rows)
  for i in range(6):
    alone = layers.row_dropout(inputs[i : i + 1], 0.4, key, rows[i : i + 1])
    np.testing.assert_array_equal(alone[0], whole[i])
  assert not np.array_equal(whole[0], whole[1])
  other = layers.row_dropout(inputs, 0.4, jax.random.key(4), rows)
  assert not np.array_equal(other, whole)


def test_row_dropout_rate_scaling_and_independence():
  rate, rows = 0.3, jnp.arange(64)
  kept = layers.row_dropout(jnp.ones((64, 4096)), rate, jax.random.key(0), rows)
  kept = np.asarray(kept)
  np.testing.assert_allclose(np.unique(kept), [0, 1 / 0.7], rtol=1e-6)
  zeros = (kept == 0).astype(np.float64)
  # 262144 draws: five standard deviations are 0.0045.
  assert abs(zeros.mean() - rate) < 0.0045
  centred = zeros - rate
  variance = rate * (1 - rate)
  for shift in (1, 2, 3, 4, 8, 64, 512):
    along = np.mean(centred[:, shift:] * centred[:, :-shift]) / variance
    assert abs(along) < 0.011, shift
  between = (centred @ centred.T) / (4096 * variance)
  np.fill_diagonal(between, 0)
  assert np.abs(between).max() < 0.085


def test_row_dropout_limits():
  inputs, rows = jnp.ones((2, 3)), jnp.arange(2)
  same = layers.row_dropout(inputs, 0.0, jax.random.key(0), rows)
  np.testing.assert_array_equal(same, inputs)
  almost = layers.row_dropout(inputs, 1 - 1e-12, jax.random.key(0), rows)
  np.testing.assert_array_equal(almost, 0)
  for rate in (-0.1, 1.0):
    with pytest.raises(ValueError, match="rate"):
      layers.row_dropout(inputs, rate, jax.random.key(0), rows)


def test_row_dropout_module():
  inputs, rngs = jnp.ones((2, 3)), {"dropout": jax.random.key(0)}
  module = layers.RowDropout(0.5)
  still = module.apply({}, inputs, train=False, rows=None)
  np.testing.assert_array_equal(still, inputs)
  with pytest.raises(ValueError, match="rows"):
    module.apply({}, inputs, train=True, rows=None, rngs=rngs)
  dropped = module.apply({}, inputs, train=True, rows=jnp.arange(2), rngs=rngs)
  assert set(np.unique(dropped)) <= {0.0, 2.0}


def test_row_dropout_is_the_same_on_any_number_of_devices_and_in_scan():
  inputs, key = jnp.ones((16, 9)), jax.random.key(5)
  rows = jnp.arange(16)
  expected = layers.row_dropout(inputs, 0.5, key, rows)
  spec = PartitionSpec
  for count in (1, 8):
    mesh = jax.make_mesh(
      (count,),
      ("data",),
      devices=jax.devices()[:count],
      axis_types=(AxisType.Auto,),
    )
    mapped = jax.shard_map(
      lambda x, r: layers.row_dropout(x, 0.5, key, r),
      mesh=mesh,
      in_specs=(spec("data"), spec("data")),
      out_specs=spec("data"),
      check_vma=False,
    )
    np.testing.assert_array_equal(jax.jit(mapped)(inputs, rows), expected)

  def body(_, step):
    return None, layers.row_dropout(
      inputs, 0.5, jax.random.fold_in(key, step), rows
    )

  _, scanned = jax.jit(lambda: lax.scan(body, None, jnp.arange(3)))()
  for step in range(3):
    alone = layers.row_dropout(inputs, 0.5, jax.random.fold_in(key, step), rows)
    np.testing.assert_array_equal(scanned[step], alone)
