"""What every family of encoders must pass, on a tiny variant of it."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from facesiam_jax import parallel
from tests import numeric


def shapes(module, size, channels=3):
  """Returns name -> shape of the variables; nothing is compiled."""
  images = jax.ShapeDtypeStruct((1, size, size, channels), jnp.float32)
  variables = jax.eval_shape(module.init, jax.random.key(0), images)
  flat = jax.tree_util.tree_leaves_with_path(variables)
  return {"/".join(k.key for k in path): leaf.shape for path, leaf in flat}


def count(found):
  """Returns the number of trained numbers of `shapes`."""
  return sum(
    math.prod(shape)
    for name, shape in found.items()
    if name.startswith("params/")
  )


def _drawn(rng, path, shape):
  """A variable about where training would leave it; NumPy compiles nothing."""
  noise = rng.normal(size=shape)
  if len(shape) > 1:
    return noise * math.sqrt(2 / math.prod(shape[:-1]))
  around = {"scale": 1, "var": 1, "slope": 0.25}.get(path[-1].key, 0)
  return around + 0.05 * noise


def setting(module, size, channels=3, batch=8):
  """Returns (variables, images, weights of the output) drawn for a module."""
  rng = np.random.default_rng(0)
  array = lambda values: jnp.asarray(values, jnp.float32)
  shape = (batch, size, size, channels)
  images = array(rng.normal(size=shape))
  variables = jax.tree_util.tree_map_with_path(
    lambda path, leaf: array(_drawn(rng, path, leaf.shape)),
    jax.eval_shape(module.init, jax.random.key(0), images),
  )
  return variables, images, array(rng.normal(size=(batch, module.dim)))


def _loss(module, variables, images, weights, rows):
  embeddings, updates = module.apply(
    variables,
    images,
    train=True,
    rows=rows,
    rngs={"dropout": jax.random.key(2)},
    mutable=["batch_stats"],
  )
  return jnp.sum(embeddings * weights), (embeddings, updates)


def _training(module, variables, images, weights):
  """Returns params -> (loss, (embeddings, statistics)) of a whole batch."""
  rows = jnp.arange(len(images))
  rest = {k: v for k, v in variables.items() if k != "params"}
  return lambda params: _loss(
    module, {"params": params, **rest}, images, weights, rows
  )


def _compiled(function, params):
  """Compiled with little optimisation, which takes half the time."""
  options = {"xla_backend_optimization_level": 0}
  return jax.jit(function).lower(params).compile(compiler_options=options)


def check_embeddings(module, size, channels=3, *, half):
  """Finite, float32, row by row; in bfloat16 within `half` of float32."""
  variables, images, _ = setting(module, size, channels, batch=4)
  run = jax.jit(module.apply)
  whole = run(variables, images)
  assert whole.shape == (4, module.dim) and whole.dtype == jnp.float32
  assert np.isfinite(whole).all() and np.std(whole, axis=0).min() > 0
  backwards = run(variables, images[::-1])
  np.testing.assert_allclose(
    backwards[::-1], whole, atol=1e-5 * np.abs(whole).max()
  )
  small = module.clone(dtype="bfloat16")
  low = jax.jit(small.apply)(variables, images)
  assert low.dtype == jnp.float32
  error = np.linalg.norm(low - whole) / np.linalg.norm(whole)
  assert 0 < error < half, error


def _check_close(actual, expected):
  assert jax.tree.structure(actual) == jax.tree.structure(expected)
  for one, other in zip(
    jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True
  ):
    scale = max(1.0, float(np.abs(other).max()))
    np.testing.assert_allclose(one, other, atol=1e-5 * scale)


def _check_slopes(value, params, gradient):
  """Central differences along each leaf's own gradient give its length."""
  leaves, structure = jax.tree.flatten(params)
  for place, slope in enumerate(jax.tree.leaves(gradient)):
    norm = float(np.linalg.norm(slope))
    step = 2e-3 / max(norm, 0.1)
    ends = []
    for sign in (1, -1):
      moved = list(leaves)
      moved[place] = leaves[place] + sign * step * slope / max(norm, 1e-6)
      ends.append(float(value(jax.tree.unflatten(structure, moved))))
    estimate = (ends[0] - ends[1]) / (2 * step)
    # ReLU's kinks cost a few per cent, float32 the absolute term.
    assert abs(estimate - norm) < 0.05 * norm + 1e-3, (place, norm, estimate)


def check_training(module, size, channels=3, *, devices=None):
  """The gradient is right, with remat and over `devices` the same.

  Over devices: embeddings, statistics and gradient of one global batch.
  """
  variables, images, weights = setting(module, size, channels)
  params = variables["params"]
  run = _training(module, variables, images, weights)
  pulled = jax.value_and_grad(run, has_aux=True)
  (_, aux), gradient = _compiled(pulled, params)(params)
  again = _training(module.clone(remat=True), variables, images, weights)
  pulled = jax.value_and_grad(again, has_aux=True)
  (_, aux_again), gradient_again = _compiled(pulled, params)(params)
  _check_close((aux_again, gradient_again), (aux, gradient))
  value = _compiled(lambda params: run(params)[0], params)
  _check_slopes(value, params, gradient)
  if devices:
    mapped = _on_devices(module, variables, images, weights, devices)
    embeddings, updates, gradient_there = mapped
    _check_close((embeddings, updates), aux)
    flat = lambda tree: np.concatenate(
      [np.ravel(leaf) for leaf in jax.tree.leaves(tree)]
    )
    numeric.assert_gradients_close(flat(gradient_there), flat(gradient))


def _on_devices(module, variables, images, weights, devices):
  """Returns (embeddings, statistics, gradient), a share of rows a device."""
  module = module.clone(axis_name=parallel.AXIS)
  rest = {k: v for k, v in variables.items() if k != "params"}

  def step(params, images, weights):
    rows = parallel.own_rows(len(devices))
    run = lambda params: _loss(
      module, {"params": params, **rest}, images, weights, rows
    )
    (_, (embeddings, updates)), gradient = jax.value_and_grad(
      run, has_aux=True
    )(params)
    return embeddings, updates, jax.lax.psum(gradient, parallel.AXIS)

  own = P(parallel.AXIS)
  mapped = parallel.pmap(
    step,
    parallel.make_mesh(devices),
    in_specs=(P(), own, own),
    out_specs=(own, P(), P()),
  )
  return mapped(variables["params"], images, weights)
