"""What an encoder costs: parameters and multiply-adds, without running it."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn


@dataclasses.dataclass(frozen=True)
class Cost:
  """What one face costs.

  Attributes:
    dim: size of the embedding.
    parameters: trained numbers; running statistics are not counted.
    multiply_adds: of convolutions and matrix products.
  """

  dim: int
  parameters: int
  multiply_adds: int


def _inner(eqn: Any) -> Iterator[Any]:
  """Yields the jaxprs that an equation calls."""
  for value in eqn.params.values():
    for item in value if isinstance(value, (tuple, list)) else (value,):
      item = getattr(item, "jaxpr", item)
      if hasattr(item, "eqns"):
        yield item


def of_jaxpr(
  jaxpr: Any, weight: Callable[[Any], int] = lambda _: 1, *, loops: bool = True
) -> int:
  """Counts the multiplications of a traced function's products.

  Args:
    jaxpr: such as `jax.jit(f).trace(...).jaxpr.jaxpr`.
    weight: of a product's equation; `multiply_adds` says what counts.
    loops: whether a scan counts as often as it runs, or once.

  Returns:
    Their weighted number, >= 0; inside `jax.shard_map`, those of one device.
  """
  inside = lambda eqn: (
    of_jaxpr(inner, weight, loops=loops) for inner in _inner(eqn)
  )

  def of_equation(eqn: Any) -> int:
    size = math.prod(eqn.outvars[0].aval.shape) if eqn.outvars else 0
    match eqn.primitive.name:
      case "dot_general":
        (contracted, _), _ = eqn.params["dimension_numbers"]
        shape = eqn.invars[0].aval.shape
        size *= math.prod(shape[axis] for axis in contracted)
        return weight(eqn) * size
      case "conv_general_dilated":
        features = eqn.params["dimension_numbers"].rhs_spec[0]
        shape = eqn.invars[1].aval.shape
        return weight(eqn) * size * math.prod(shape) // shape[features]
      case "cond":
        # The branches of `lax.platform_dependent` compute the same; the one
        # with native operations is the one that can be counted.
        return max(inside(eqn))
      case "scan":
        return (eqn.params["length"] if loops else 1) * sum(inside(eqn))
    return sum(inside(eqn))

  return sum(map(of_equation, jaxpr.eqns))


def multiply_adds(function: Any, *args: Any) -> int:
  """Counts the multiplications of a function's products, by tracing it.

  Convolutions (grouped ones too) and matrix products count, padding included,
  wherever they stand: inside jit, remat, custom gradients and scans. Of the
  branches of a condition the dearest counts, of a while loop one round.
  Elementwise arithmetic does not count.

  Args:
    function: of arrays; not run.
    *args: arrays or `jax.ShapeDtypeStruct`.

  Returns:
    Their number, >= 0.
  """
  return of_jaxpr(jax.make_jaxpr(function)(*args).jaxpr)


def measure(encoder: nn.Module, image_shape: tuple[int, int, int]) -> Cost:
  """Measures an encoder by tracing it; nothing is computed or compiled.

  Args:
    encoder: a Flax module (images, train=False) -> embeddings.
    image_shape: (H, W, C) of a face.

  Returns:
    Its cost for one face of this size.

  Raises:
    ValueError: if the encoder does not take faces of this size.
  """
  images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
  # One trace for all: drawing the parameters takes no products.
  jaxpr, (embeddings, variables) = jax.make_jaxpr(
    encoder.init_with_output, return_shape=True
  )(jax.random.key(0), images)
  leaves = jax.tree.leaves(variables["params"])
  return Cost(
    dim=embeddings.shape[-1],
    parameters=sum(math.prod(leaf.shape) for leaf in leaves),
    multiply_adds=of_jaxpr(jaxpr.jaxpr),
  )
