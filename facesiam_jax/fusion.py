"""Bounds to what XLA fuses on CPU, where fusing makes things anew many times.

XLA's CPU forms cheap arithmetic again in each loop that reads it, and again for
each of the places that one loop reads, with or without an optimization barrier.
What goes into a transposed copy or the nine taps of a window is then made
slowly, or nine times. Elsewhere these functions do nothing.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax import lax
from jax.tree_util import Partial

# Images at a time in the loop of `settled`.
_CHUNK = 8


def settled(images: jax.Array) -> jax.Array:
  """Returns images as they are, and has them computed once.

  Where costly augmentation goes into the four gathers of `warping.warp` this is
  20 times faster. What goes through a loop is computed before it. It takes
  three copies; `apart` takes none, where its function can be named.

  Args:
    images: [B, ...].

  Returns:
    The same. Up to 8 images go through no loop.
  """
  if images.shape[0] <= _CHUNK:
    return images
  return lax.platform_dependent(
    images,
    cpu=lambda x: lax.map(lax.optimization_barrier, x, batch_size=_CHUNK),
    default=lambda x: x,
  )


def apart(function: Callable[..., Any], *operands: Any) -> Any:
  """Calls a function, its operands and its result computed once, on CPU.

  The function is both branches of a condition: what XLA fuses ends at a branch,
  and whichever is taken, the result is the same. A training step of
  MobileFaceNet takes 0.68 of its time, one of ResNet-18 0.81 (jax 0.10.2, 48
  faces, two cores), with the gradients of `encoders.convolution` and
  `encoders.windows` in it. Under `jax.vmap` both branches are computed.

  Args:
    function: pure, arrays [...] -> arrays, traced twice.
    operands: what it is called with, arrays or trees of them; the last is an
      array, whose first number decides which branch is taken.

  Returns:
    function(*operands).

  Degenerate input: an empty last operand has no number; the function is called
    as it is.
  """
  if not operands[-1].size:
    return function(*operands)

  def either(*operands: Any) -> Any:
    first = operands[-1][(0,) * operands[-1].ndim]
    return lax.cond(first > 0, function, function, *operands)

  return lax.platform_dependent(*operands, cpu=either, default=function)


def formed(images: jax.Array | Partial) -> jax.Array:
  """Returns images that are there, or those that calling a `Partial` makes."""
  return images() if isinstance(images, Partial) else images


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def again(function: Callable[..., jax.Array], *operands: Any) -> jax.Array:
  """Calls a function whose gradient computes it once more, to keep less.

  For the way back the operands are kept, and nothing that was made of them.
  `jax.checkpoint` is to do that and does not on CPU under JAX 0.10, where XLA
  sees that the second computation is the first. Here it is in a branch (see
  `apart`), which waits for the cotangent. A training step of ResNet-50 keeps
  0.8 of what it kept and takes 0.84 to 0.89 of its time where memory is slow,
  1.03 to 1.05 on a machine of twice the speed. On GPU and TPU XLA keeps or
  computes again as it likes. Reverse mode, first order.

  Args:
    function: pure, arrays -> an array; closes over no traced array.
    operands: what it is called with, floating arrays or trees of them.

  Returns:
    function(*operands).
  """
  return function(*operands)


def _again_forward(
  function: Callable[..., jax.Array], *operands: Any
) -> tuple[jax.Array, tuple[Any, ...]]:
  return function(*operands), operands


def _again_backward(
  function: Callable[..., jax.Array],
  operands: tuple[Any, ...],
  cotangent: jax.Array,
) -> tuple[Any, ...]:
  def gradient(*given: Any) -> tuple[Any, ...]:
    *operands, cotangent = given
    return jax.vjp(function, *operands)[1](cotangent)

  return apart(gradient, *operands, cotangent)


again.defvjp(_again_forward, _again_backward)


def call(
  function: Callable[..., jax.Array],
  images: jax.Array | Partial,
  *operands: jax.Array,
) -> jax.Array:
  """Calls a function on images, or on what a `Partial` makes, kept by neither.

  Args:
    function: pure, (images, *operands) -> array.
    images: an array, or what makes it when called: the gradient then calls it
      once more, see `again`.
    operands: the other floating arrays.

  Returns:
    function(images, *operands).
  """
  if not isinstance(images, Partial):
    return function(images, *operands)
  whole = lambda images, *operands: function(images(), *operands)
  return again(whole, images, *operands)
