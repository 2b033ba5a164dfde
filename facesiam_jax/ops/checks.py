"""What may come into the functions of `ops` and the heads, and as what."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

__all__ = ["columns", "floats", "rows"]


def floats(name: str, x: ArrayLike) -> jax.Array:
  """Returns x as float32.

  Args:
    name: what the caller calls x.
    x: float, any shape; bfloat16 and float16 are cast up.

  Returns:
    float32, same shape.

  Raises:
    ValueError: if x is not floating point or has no element.
  """
  x = jnp.asarray(x)
  if not jnp.issubdtype(x.dtype, jnp.floating):
    raise ValueError(
      f"{name} must be floating point, got dtype {x.dtype} and shape {x.shape}."
    )
  if x.size == 0:
    raise ValueError(f"{name} is empty: shape {x.shape}.")
  return x.astype(jnp.float32)


def _matrices(
  x: ArrayLike, y: ArrayLike, names: tuple[str, str]
) -> tuple[jax.Array, jax.Array]:
  x, y = jnp.asarray(x), jnp.asarray(y)
  if x.ndim != 2 or y.ndim != 2:
    raise ValueError(
      f"{names[0]} and {names[1]} must have rank 2, got shapes {x.shape} and "
      f"{y.shape}."
    )
  if x.size == 0 or y.size == 0:
    raise ValueError(
      f"{names[0]} and {names[1]} must not be empty, got shapes {x.shape} and "
      f"{y.shape}."
    )
  return floats(names[0], x), floats(names[1], y)


def rows(
  x: ArrayLike, y: ArrayLike, names: tuple[str, str] = ("x", "y")
) -> tuple[jax.Array, jax.Array]:
  """Returns two matrices that are compared row by row.

  Args:
    x: float [B, D].
    y: float [B, D].
    names: what the caller calls them.

  Returns:
    Both as float32.

  Raises:
    ValueError: if a rank is not 2, a dtype not floating, a matrix empty, or
      the shapes differ.
  """
  x, y = _matrices(x, y, names)
  if x.shape != y.shape:
    raise ValueError(
      f"{names[0]} and {names[1]} must have the same shape, got {x.shape} and "
      f"{y.shape}."
    )
  return x, y


def columns(
  x: ArrayLike, y: ArrayLike, names: tuple[str, str] = ("x", "y")
) -> tuple[jax.Array, jax.Array]:
  """Returns two matrices of which all rows are compared with all rows.

  Args:
    x: float [A, D].
    y: float [B, D].
    names: what the caller calls them.

  Returns:
    Both as float32.

  Raises:
    ValueError: if a rank is not 2, a dtype not floating, a matrix empty, or
      the widths D differ.
  """
  x, y = _matrices(x, y, names)
  if x.shape[1] != y.shape[1]:
    raise ValueError(
      f"{names[0]} and {names[1]} must have the same width, got {x.shape} and "
      f"{y.shape}."
    )
  return x, y
