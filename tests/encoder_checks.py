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


def _pulled(module, variables, images, weights):
  """Returns a function of params: ((loss, (embeddings, stats)), gradient)."""
  rows = jnp.arange(len(images))
  rest = {k: v for k, v in variables.items() if k != "params"}
  run = lambda params: _loss(
    module, {"params": params, **rest}, images, weights, rows
  )
  return run, jax.jit(jax.value_and_grad(run, has_aux=True))


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


def check_gradient(module, size, channels=3):
  """Central differences along each leaf's own gradient, and remat's equal."""
  variables, images, weights = setting(module, size, channels)
  params = variables["params"]
  run, pulled = _pulled(module, variables, images, weights)
  (_, aux), gradient = pulled(params)
  _, again = _pulled(module.clone(remat=True), variables, images, weights)
  (_, aux_again), gradient_again = again(params)
  assert jax.tree.structure(gradient) == jax.tree.structure(gradient_again)
  for one, other in zip(
    jax.tree.leaves((aux, gradient)),
    jax.tree.leaves((aux_again, gradient_again)),
    strict=True,
  ):
    scale = max(1.0, float(np.abs(one).max()))
    np.testing.assert_allclose(one, other, atol=1e-5 * scale)
  value = jax.jit(lambda params: run(params)[0])
  leaves, structure = jax.tree.flatten(params)
  for place, slope in enumerate(jax.tree.leaves(gradient)):
    norm = float(np.linalg.norm(slope))
    step = 2e-3 / max(norm, 0.1)

    def along(sign, place=place, slope=slope, norm=norm, step=step):
      moved = list(leaves)
      moved[place] = leaves[place] + sign * step * slope / max(norm, 1e-6)
      return float(value(jax.tree.unflatten(structure, moved)))

    estimate = (along(1) - along(-1)) / (2 * step)
    # ReLU's kinks cost a few per cent, float32 the absolute term.
    assert abs(estimate - norm) < 0.05 * norm + 1e-3, (place, norm, estimate)


def check_devices(module, size, devices, channels=3):
  """Embeddings, statistics, gradients of a batch on 1 and on 8 devices."""
  variables, images, weights = setting(module, size, channels)
  module = module.clone(axis_name=parallel.AXIS)
  rest = {k: v for k, v in variables.items() if k != "params"}

  def step(params, images, weights):
    rows = parallel.own_rows(8)
    run = lambda params: _loss(
      module, {"params": params, **rest}, images, weights, rows
    )
    (_, (embeddings, updates)), gradient = jax.value_and_grad(
      run, has_aux=True
    )(params)
    return embeddings, updates, jax.lax.psum(gradient, parallel.AXIS)

  results = []
  for number in (1, 8):
    mapped = parallel.pmap(
      step,
      parallel.make_mesh(devices[:number]),
      in_specs=(P(), P(parallel.AXIS), P(parallel.AXIS)),
      out_specs=(P(parallel.AXIS), P(), P()),
    )
    results.append(mapped(variables["params"], images, weights))
  one, eight = results
  for actual, wanted in zip(
    jax.tree.leaves(eight[:2]), jax.tree.leaves(one[:2]), strict=True
  ):
    scale = max(1.0, float(np.abs(wanted).max()))
    np.testing.assert_allclose(actual, wanted, atol=1e-5 * scale)
  flat = lambda tree: np.concatenate(
    [np.ravel(leaf) for leaf in jax.tree.leaves(tree)]
  )
  numeric.assert_gradients_close(flat(eight[2]), flat(one[2]), rtol=1e-4)
