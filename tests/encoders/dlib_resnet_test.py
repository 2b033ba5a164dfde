"""Tests of facesiam_jax.encoders.dlib_resnet against NumPy in float64."""

import jax
import jax.numpy as jnp
import numeric
import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from facesiam_jax.encoders import dlib_resnet

TINY = {"dim": 4, "widths": (3, 5), "depths": (2, 2)}
# 23 pixels: the halving block has 1x1 pixels where its shortcut has 2x2.
IMAGES = np.random.default_rng(0).normal(size=(2, 23, 24, 3)).astype(np.float32)


def _tiny(**changes):
  return dlib_resnet.DlibResNet(**{**TINY, **changes})


def _shapes(module, shape):
  images = jax.ShapeDtypeStruct(shape, jnp.float32)
  return jax.eval_shape(module.init, jax.random.key(0), images)


def _variables(seed=1):
  """Random, biases too, so that nothing hides behind a zero or a one."""
  shapes = _shapes(_tiny(), IMAGES.shape)
  rng = np.random.default_rng(seed)

  def draw(path, leaf):
    scale = 1 / np.sqrt(max(1, np.prod(leaf.shape[:-1])))
    return (rng.normal(size=leaf.shape) * scale).astype(np.float32)

  return jax.tree_util.tree_map_with_path(draw, shapes)


def _apply(variables, images, **changes):
  # Compiled whole: dispatched one by one, the operations take far longer.
  return jax.jit(_tiny(**changes).apply)(variables, images)


def _windows(x, size, stride):
  view = sliding_window_view(x, (size, size), axis=(1, 2))
  return view[:, ::stride, ::stride]


def _con(x, p, stride, padding):
  sides = (padding, padding)
  x = np.pad(x, ((0, 0), sides, sides, (0, 0)))
  windows = _windows(x, p["kernel"].shape[0], stride)
  return np.einsum("byxcij,ijco->byxo", windows, p["kernel"]) + p["bias"]


def _affine(x, p):
  return x * p["scale"] + p["bias"]


def _block(x, p, down, *, shift=False):
  y = _con(x, p["con1"], 2 if down else 1, 0 if down else 1)
  y = np.maximum(_affine(y, p["affine1"]), 0)
  y = _affine(_con(y, p["con2"], 1, 1), p["affine2"])
  if down:
    x = _windows(x, 2, 2).mean(axis=(-1, -2))
  total = np.zeros(np.maximum(x.shape, y.shape))
  for part in (x, y):
    starts = [
      (whole - side) * shift
      for whole, side in zip(total.shape, part.shape, strict=True)
    ]
    ends = np.add(starts, part.shape)
    total[tuple(map(slice, starts, ends))] += part
  return np.maximum(total, 0)


def _expected(params, images, *, shift=False):
  p = jax.tree.map(np.float64, params)
  x = np.maximum(
    _affine(_con(np.float64(images), p["con"], 2, 0), p["affine"]), 0
  )
  x = _windows(x, 3, 2).max(axis=(-1, -2))
  for name in ("alevel1_0", "alevel1_1", "alevel0_0", "alevel0_1"):
    x = _block(x, p[name], name == "alevel0_0", shift=shift)
  return x.mean(axis=(1, 2)) @ p["fc"]["kernel"]


def test_equals_numpy():
  variables = _variables()
  embeddings = _apply(variables, IMAGES)
  assert embeddings.shape == (2, 4)
  assert embeddings.dtype == jnp.float32
  expected = _expected(variables["params"], IMAGES)
  np.testing.assert_allclose(embeddings, expected, rtol=1e-4, atol=1e-5)
  # Rows do not know of each other, and training changes nothing.
  run = jax.jit(lambda v, x: _tiny().apply(v, x, train=True))
  swapped = run(variables, IMAGES[::-1])
  np.testing.assert_allclose(swapped[::-1], embeddings, rtol=1e-4, atol=1e-5)
  # The comparison would notice zeros put before instead of after.
  wrong = _expected(variables["params"], IMAGES, shift=True)
  assert np.abs(wrong - expected).max() > 0.01


@pytest.mark.parametrize(
  "path",
  [
    ("con", "bias"),
    ("alevel1_1", "affine1", "scale"),
    ("alevel0_0", "con1", "bias"),
    ("alevel0_1", "affine2", "scale"),
    ("fc", "kernel"),
  ],
  ids="/".join,
)
def test_gradients_equal_central_differences(path):
  variables = _variables()
  weights = np.random.default_rng(3).normal(size=(2, 4))

  def replaced(tree, path, value):
    head, *rest = path
    new = replaced(tree[head], rest, value) if rest else value
    return {**tree, head: new}

  def loss(value):
    params = replaced(variables["params"], path, value)
    return jnp.sum(weights * _tiny().apply({"params": params}, IMAGES))

  def reference(value):
    params = replaced(variables["params"], path, value)
    return np.sum(weights * _expected(params, IMAGES))

  value = variables["params"]
  for name in path:
    value = value[name]
  numeric.assert_gradients_close(
    jax.jit(jax.grad(loss))(value), numeric.gradient(reference, value), 2e-4
  )


def test_remat_is_the_same_network():
  params = _variables()["params"]
  # One block a stage compiles sooner.
  variables = {"params": {k: v for k, v in params.items() if k[-2:] != "_1"}}

  def run(remat):
    module = _tiny(remat=remat, depths=(1, 1))
    loss = lambda v: jnp.sum(jnp.square(module.apply(v, IMAGES)))
    return jax.jit(jax.value_and_grad(loss))(variables)

  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
    run(True),
    run(False),
  )
  text = str(
    jax.make_jaxpr(lambda v: _tiny(remat=True, depths=(1, 1)).apply(v, IMAGES))(
      variables
    )
  )
  assert "remat" in text or "checkpoint" in text


def test_bfloat16_is_near_float32():
  variables = _variables()
  exact = np.asarray(_apply(variables, IMAGES))
  half = _apply(variables, IMAGES, dtype="bfloat16")
  assert half.dtype == jnp.float32
  error = np.linalg.norm(half - exact, axis=1) / np.linalg.norm(exact, axis=1)
  assert 0 < error.max() < 0.03


def test_parameter_count_is_that_of_the_published_layout():
  """dlib names no number; this is the sum over dnn_face_recognition_ex.cpp."""
  con = lambda size, inputs, outputs: size**2 * inputs * outputs + outputs
  expected = con(7, 3, 32) + 2 * 32 + 256 * 128
  inputs = 32
  for width, depth in ((32, 3), (64, 4), (128, 3), (256, 3), (256, 1)):
    for _ in range(depth):
      expected += con(3, inputs, width) + con(3, width, width) + 4 * width
      inputs = width
  module = dlib_resnet.DlibResNet()
  shapes = _shapes(module, (1, 150, 150, 3))["params"]
  leaves = jax.tree.leaves(shapes)
  assert sum(leaf.size for leaf in leaves) == expected == 5_614_592
  assert all(leaf.dtype == jnp.float32 for leaf in leaves)
  convolutions = [leaf for leaf in leaves if leaf.ndim == 4]
  assert len(convolutions) == 29
  assert shapes["alevel1_0"]["con1"]["kernel"].shape == (3, 3, 128, 256)


def test_sizes_of_the_maps_are_dlibs():
  module = dlib_resnet.DlibResNet()
  images = jax.ShapeDtypeStruct((1, 150, 150, 3), jnp.float32)
  variables = jax.eval_shape(module.init, jax.random.key(0), images)
  run = lambda v, x: module.apply(v, x, capture_intermediates=True)
  _, state = jax.eval_shape(run, variables, images)
  found = {
    name: value["__call__"][0].shape[1:]
    for name, value in state["intermediates"].items()
    if name.startswith(("con", "alevel")) and "__call__" in value
  }
  assert found["con"] == (72, 72, 32)
  for level, (side, width, depth) in zip(
    (4, 3, 2, 1, 0),
    ((35, 32, 3), (17, 64, 4), (8, 128, 3), (4, 256, 3), (2, 256, 1)),
    strict=True,
  ):
    for number in range(depth):
      assert found[f"alevel{level}_{number}"] == (side, side, width)


def test_images_that_do_not_fit_are_refused():
  with pytest.raises(ValueError, match="19 x 19 pixels or more"):
    _shapes(_tiny(), (1, 18, 40, 3))
  _shapes(_tiny(), (1, 19, 19, 3))
  with pytest.raises(ValueError, match=r"\[B, H, W, C\]"):
    _shapes(_tiny(), (40, 40, 3))
  assert dlib_resnet.DlibResNet().smallest == 103
  assert _tiny(widths=(3,), depths=(1,)).smallest == 11


@pytest.mark.parametrize(
  "changes, match",
  [
    ({"depths": (1,)}, "one length"),
    ({"widths": (), "depths": ()}, "one length"),
    ({"depths": (1, 0)}, "at least 1"),
    ({"dtype": "float64"}, "dtype must be one of"),
  ],
)
def test_senseless_settings_are_refused(changes, match):
  with pytest.raises(ValueError, match=match):
    _shapes(_tiny(**changes), (1, 40, 40, 3))


def test_adding_fills_up_with_zeros_after():
  a = np.ones((2, 1, 3, 2), np.float32)
  b = np.full((2, 2, 2, 3), 2, np.float32)
  total = np.asarray(dlib_resnet.add_padded(a, b))
  assert total.shape == (2, 2, 3, 3)
  np.testing.assert_array_equal(total[0, :, :, 0], [[3, 3, 1], [2, 2, 0]])
  np.testing.assert_array_equal(total[1, :, :, 2], [[2, 2, 0], [2, 2, 0]])
  with pytest.raises(ValueError, match="as many in both"):
    dlib_resnet.add_padded(a, b[:1])
