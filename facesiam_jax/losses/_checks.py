"""What the losses ask of their arguments: one sentence when it is not so.

Shapes and dtypes are always known. Values are looked at only where they are
known too: not inside `jit`, `vmap` or `grad`, and not in an array that other
processes hold a part of.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

_INT32 = np.iinfo(np.int32)


def known(x: ArrayLike) -> np.ndarray | None:
  """Returns the values of x as NumPy, or None where they are not known."""
  if isinstance(x, jax.core.Tracer):
    return None
  if isinstance(x, jax.Array) and not x.is_fully_addressable:
    return None
  # device_get, not asarray alone: an explicit transfer passes the transfer
  # guard that the training loop sets.
  return np.asarray(jax.device_get(x))


def above(name: str, value: float, low: float) -> None:
  """Raises ValueError unless value > low; NaN is refused too."""
  if not value > low:
    wanted = "positive" if low == 0 else f"above {low}"
    raise ValueError(f"{name} must be {wanted}, got {value}.")


def within(name: str, value: float, low: float, high: float) -> None:
  """Raises ValueError unless low <= value <= high."""
  if not low <= value <= high:
    raise ValueError(f"{name} must be from {low} to {high}, got {value}.")


def floats(name: str, x: ArrayLike, rank: int) -> jax.Array:
  """Returns x as float32 after checking rank, dtype and that it has rows."""
  x = jnp.asarray(x)
  if x.ndim != rank:
    wanted = "[B]" if rank == 1 else "[B, D]"
    raise ValueError(f"{name} must have shape {wanted}, got {x.shape}.")
  if not jnp.issubdtype(x.dtype, jnp.floating):
    raise ValueError(f"{name} must be floating point, got dtype {x.dtype}.")
  if x.size == 0:
    raise ValueError(f"{name} must not be empty, got shape {x.shape}.")
  return x.astype(jnp.float32)


def like(name: str, x: jax.Array, other: str, y: jax.Array) -> None:
  """Raises ValueError unless the two arrays have the same shape."""
  if x.shape != y.shape:
    raise ValueError(
      f"{name} and {other} must have the same shape, got {x.shape} and "
      f"{y.shape}."
    )


def weights(
  name: str, x: ArrayLike | None, other: str, rows: jax.Array
) -> jax.Array:
  """Returns one float32 weight for each row of `rows`; None means ones."""
  if x is None:
    return jnp.ones(rows.shape[:1], jnp.float32)
  x = jnp.asarray(x)
  if x.shape != rows.shape[:1]:
    raise ValueError(
      f"{name} must hold one weight for each row of {other}, got {x.shape} "
      f"for {rows.shape}."
    )
  return x.astype(jnp.float32)


def labels(
  name: str,
  x: ArrayLike,
  other: str,
  rows: jax.Array,
  *,
  low: int = _INT32.min,
  high: int = _INT32.max,
  used: ArrayLike | None = None,
) -> jax.Array:
  """Returns one int32 label for each row of `rows`, checked to be in range.

  Without the check an int64 id would be cut to 32 bits in silence, and two
  people could become one.
  """
  values = known(x)
  array = jnp.asarray(x)
  if array.shape != rows.shape[:1]:
    raise ValueError(
      f"{name} must hold one label for each row of {other}, got "
      f"{array.shape} for {rows.shape}."
    )
  if not jnp.issubdtype(array.dtype, jnp.integer):
    raise ValueError(f"{name} must be integers, got dtype {array.dtype}.")
  mask = None if used is None else known(used)
  if values is not None and (used is None or mask is not None):
    values = values if mask is None else values[mask > 0]
    wrong = values[(values < low) | (values > high)]
    if wrong.size:
      raise ValueError(
        f"{name} must be from {low} to {high}, got {int(wrong[0])}."
      )
  return array.astype(jnp.int32)
