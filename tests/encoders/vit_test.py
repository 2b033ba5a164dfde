"""Tests of facesiam_jax.encoders.vit against NumPy in float64."""

import itertools
import math

import jax
import jax.numpy as jnp
import numeric
import numpy as np
import pytest

from facesiam_jax import parallel
from facesiam_jax.encoders import vit

TINY = {
  "dim": 5,
  "size": 8,
  "patch": 4,
  "width": 6,
  "depth": 2,
  "heads": 3,
  "mlp_ratio": 2,
}
IMAGES = np.random.default_rng(0).normal(size=(3, 8, 8, 2)).astype(np.float32)
SIZES = {"tiny": (192, 3), "small": (384, 6), "base": (768, 12)}


def _tiny(**changes):
  return vit.ViT(**{**TINY, **changes})


def _variables(seed=1):
  """Random, norms and biases too; large enough that attention is uneven."""
  shapes = jax.eval_shape(_tiny().init, jax.random.key(0), IMAGES)
  rng = np.random.default_rng(seed)
  draw = lambda leaf: rng.normal(size=leaf.shape).astype(np.float32) * 0.7
  return jax.tree.map(draw, shapes)


def _apply(variables, images, **changes):
  # Compiled whole: dispatched one by one, the operations take far longer.
  return jax.jit(_tiny(**changes).apply)(variables, images)


def _dense(x, p):
  return x @ p["kernel"] + p["bias"]


def _norm(x, p):
  centred = x - x.mean(-1, keepdims=True)
  variance = np.square(centred).mean(-1, keepdims=True)
  return centred / np.sqrt(variance + 1e-6) * p["scale"] + p["bias"]


def _attention(x, p, heads):
  each = _dense(x, p["qkv"])
  read = np.zeros_like(x)
  side = x.shape[-1] // heads
  for row, head in np.ndindex(len(x), heads):
    columns = slice(head * side, (head + 1) * side)
    q, k, v = (part[:, columns] for part in np.split(each[row], 3, axis=1))
    weights = np.exp(q @ k.T / math.sqrt(side))
    weights /= weights.sum(axis=1, keepdims=True)
    read[row, :, columns] = weights @ v
  return _dense(read, p["proj"])


def _mlp(x, p):
  hidden = _dense(x, p["fc1"])
  erf = np.vectorize(math.erf)
  return _dense(hidden * (1 + erf(hidden / math.sqrt(2))) / 2, p["fc2"])


def _expected(params, images, *, keep=(1, 1, 1, 1), heads=3):
  """`keep` scales the branches: attention and layers of both blocks."""
  p = jax.tree.map(np.float64, params)
  patches = [
    np.einsum(
      "bijc,ijco->bo",
      images[:, y : y + 4, x : x + 4],
      p["patch_embed_proj"]["kernel"],
    )
    + p["patch_embed_proj"]["bias"]
    for y in (0, 4)
    for x in (0, 4)
  ]
  first = np.broadcast_to(p["cls_token"][0], (len(images), 6))
  x = np.stack([first, *patches], axis=1) + p["pos_embed"]
  for number in (0, 1):
    b = p[f"blocks_{number}"]
    branch = _attention(_norm(x, b["norm1"]), b["attn"], heads)
    x = x + keep[2 * number] * branch
    x = x + keep[2 * number + 1] * _mlp(_norm(x, b["norm2"]), b["mlp"])
  return _dense(_norm(x, p["norm"])[:, 0], p["head"])


def test_equals_numpy():
  variables = _variables()
  embeddings = _apply(variables, IMAGES)
  assert embeddings.shape == (3, 5)
  assert embeddings.dtype == jnp.float32
  expected = _expected(variables["params"], IMAGES)
  np.testing.assert_allclose(embeddings, expected, rtol=1e-4, atol=1e-5)
  # The comparison would notice heads of another width, and patches by column.
  wrong = _expected(variables["params"], IMAGES, heads=2)
  assert np.abs(wrong - expected).max() > 0.01
  wrong = _expected(variables["params"], IMAGES.swapaxes(1, 2))
  assert np.abs(wrong - expected).max() > 0.01


@pytest.mark.parametrize(
  "path",
  [
    ("cls_token",),
    ("pos_embed",),
    ("blocks_0", "norm1", "scale"),
    ("blocks_1", "attn", "qkv", "kernel"),
    ("blocks_0", "mlp", "fc1", "bias"),
    ("patch_embed_proj", "bias"),
  ],
  ids="/".join,
)
def test_gradients_equal_central_differences(path):
  params = _variables()["params"]
  weights = np.random.default_rng(3).normal(size=(3, 5))

  def replaced(tree, path, value):
    head, *rest = path
    new = replaced(tree[head], rest, value) if rest else value
    return {**tree, head: new}

  def loss(value):
    changed = {"params": replaced(params, path, value)}
    return jnp.sum(weights * _tiny().apply(changed, IMAGES))

  value = params
  for name in path:
    value = value[name]
  expected = numeric.gradient(
    lambda v: np.sum(weights * _expected(replaced(params, path, v), IMAGES)),
    value,
  )
  actual = jax.jit(jax.grad(loss))(value)
  numeric.assert_gradients_close(actual, expected, 5e-4)


@pytest.mark.parametrize("size", SIZES)
def test_parameter_counts(size):
  """At 224 pixels, patch 16, 1000 classes: timm's counts for ViT and DeiT."""
  width, heads = SIZES[size]
  published = {"tiny": 5_717_416, "small": 22_050_664, "base": 86_567_656}
  ours = {"tiny": 5_512_640, "small": 21_641_600, "base": 85_750_016}
  original = {"size": 224, "patch": 16, "dim": 1000}
  for settings, due in ((original, published), ({}, ours)):
    module = vit.ViT(width=width, heads=heads, **settings)
    patches = (module.size // module.patch) ** 2
    each = 12 * width**2 + (3 + 1 + 4 + 1 + 4) * width
    arithmetic = 3 * module.patch**2 * width + width + 12 * each + 2 * width
    arithmetic += (patches + 2) * width + (width + 1) * module.dim
    image = jax.ShapeDtypeStruct((1, module.size, module.size, 3), jnp.float32)
    shapes = jax.eval_shape(module.init, jax.random.key(0), image)["params"]
    count = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    assert count == due[size] == arithmetic
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(shapes))
    assert shapes["pos_embed"].shape == (1, 197, width)
    assert shapes["blocks_11"]["mlp"]["fc1"]["kernel"].shape == (
      width,
      4 * width,
    )


def test_remat_is_the_same_network_also_where_it_drops():
  variables, rows = _variables(), jnp.arange(3)

  def run(remat):
    module = _tiny(remat=remat, drop_path=0.5)
    rngs = {"dropout": jax.random.key(4)}

    def loss(v):
      embeddings = module.apply(v, IMAGES, train=True, rows=rows, rngs=rngs)
      return jnp.sum(jnp.square(embeddings))

    return jax.jit(jax.value_and_grad(loss))(variables)

  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3),
    run(True),
    run(False),
  )
  run = lambda v: _tiny(remat=True).apply(v, IMAGES)
  assert "remat" in str(jax.make_jaxpr(run)(variables))


def test_bfloat16_is_near_float32_and_its_softmax_is_float32():
  variables = jax.jit(_tiny().init)(jax.random.key(0), IMAGES)
  exact = _apply(variables, IMAGES)
  found = _apply(variables, IMAGES, dtype="bfloat16")
  assert found.dtype == jnp.float32
  error = np.linalg.norm(found - exact, axis=1) / np.linalg.norm(exact, axis=1)
  assert 0 < error.max() < 0.03
  half = lambda v: _tiny(dtype="bfloat16").apply(v, IMAGES)
  exps = [
    line
    for line in str(jax.make_jaxpr(half)(variables)).splitlines()
    if "= exp " in line
  ]
  assert exps and all(":f32" in line for line in exps)


def _dropped(variables, images, rows):
  module = _tiny(drop_path=0.6)
  rngs = {"dropout": jax.random.key(7)}
  return module.apply(variables, images, train=True, rows=rows, rngs=rngs)


def test_drop_path_leaves_out_branches_of_the_later_block_by_row():
  variables, rows = _variables(), jnp.arange(40)
  images = np.repeat(IMAGES[:1], 40, axis=0)
  run = jax.jit(_dropped)
  found = np.asarray(run(variables, images, rows))
  kinds = [
    _expected(variables["params"], IMAGES[:1], keep=(1, 1, *keep))[0]
    for keep in itertools.product((0, 1 / 0.4), repeat=2)
  ]
  errors = np.abs(found[:, None] - np.stack(kinds)[None]).max(axis=2)
  assert errors.min(axis=1).max() < 1e-3
  shares = np.bincount(errors.argmin(axis=1), minlength=4) / 40
  # Both left out: 0.36 of the rows; both kept: 0.16.
  assert 0.15 < shares[0] < 0.6
  assert 0.0 < shares[3] < 0.4
  # A row's fate depends on its place in the global batch alone.
  moved = run(variables, images, (rows + 7) % 40)
  np.testing.assert_allclose(
    moved, np.roll(found, -7, axis=0), rtol=1e-4, atol=1e-5
  )


def test_training_is_the_same_on_one_device_and_on_eight(devices):
  variables = _variables()
  images = np.random.default_rng(5).normal(size=(8, 8, 8, 2))
  images = images.astype(np.float32)
  expected = jax.jit(_dropped)(variables, images, jnp.arange(8))
  spec = jax.sharding.PartitionSpec

  def step(variables, images):
    rows = parallel.own_rows(8)
    return _dropped(variables, images, rows)

  mapped = parallel.pmap(
    step,
    parallel.make_mesh(devices),
    in_specs=(spec(), spec(parallel.AXIS)),
    out_specs=spec(parallel.AXIS),
  )
  np.testing.assert_allclose(
    mapped(variables, images), expected, rtol=1e-4, atol=1e-5
  )


def test_dropping_needs_rows_and_evaluation_does_not():
  variables = _variables()
  with pytest.raises(ValueError, match="rows"):
    _dropped(variables, IMAGES, None)
  np.testing.assert_allclose(
    _apply(variables, IMAGES, drop_path=0.6),
    _apply(variables, IMAGES),
    rtol=1e-6,
  )


@pytest.mark.parametrize(
  "changes, shape, match",
  [
    ({}, (1, 8, 12, 2), "takes images of 8 x 8 pixels"),
    ({}, (8, 8, 2), r"\[B, H, W, C\]"),
    ({"patch": 3}, (1, 8, 8, 2), "size must be a multiple of patch"),
    ({"heads": 4}, (1, 8, 8, 2), "width must be a multiple of heads"),
    ({"depth": 0}, (1, 8, 8, 2), "at least 1"),
    ({"drop_path": 1.0}, (1, 8, 8, 2), "drop_path must be in"),
    ({"dtype": "int8"}, (1, 8, 8, 2), "dtype must be one of"),
  ],
)
def test_what_does_not_fit_is_refused(changes, shape, match):
  with pytest.raises(ValueError, match=match):
    jax.eval_shape(_tiny(**changes).init, jax.random.key(0), jnp.zeros(shape))
