"""Resampling of images at moved points: affine maps and smooth fields.

Pure functions of arrays, nothing random; `augment` draws what goes in, and
`alignment` cuts faces out with `sample`.
"""

import math

import chex
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike


def _column(values: jax.Array) -> jax.Array:
  return values.reshape(-1, 1, 1)


def affine_matrices(
  *,
  rotation: jax.Array,
  shear: jax.Array,
  scale: jax.Array,
  stretch: jax.Array,
) -> jax.Array:
  """Composes the matrices that take output to input coordinates.

  For one image, with (y, x) measured from the image's centre:
    input = inverse(R(rotation) Shear(shear) diag(scale * stretch,
    scale / stretch)) output
  A positive rotation turns the picture counter-clockwise as seen, a positive
  shear moves its lower part to the right, a scale above 1 enlarges it, a
  stretch above 1 makes it taller and narrower.

  Args:
    rotation: radians, float [B].
    shear: radians, float [B], in (-pi/2, pi/2).
    scale: factor, float [B], > 0.
    stretch: square root of the factor of height over width, float [B], > 0.

  Returns:
    float32 [B, 2, 2], acting on (y, x) columns.
  """
  cos, sin, tan = jnp.cos(rotation), jnp.sin(rotation), jnp.tan(shear)
  tall, wide = 1 / (scale * stretch), stretch / scale
  # inverse(diag) inverse(Shear) inverse(R), written out.
  rows = [
    [tall * cos, tall * sin],
    [wide * (-sin - tan * cos), wide * (cos - tan * sin)],
  ]
  return jnp.stack([jnp.stack(row, axis=-1) for row in rows], axis=-2)


def warp(
  images: ArrayLike,
  matrices: ArrayLike,
  offsets: ArrayLike,
  displacement: ArrayLike | None = None,
) -> jax.Array:
  """Resamples each image at affinely mapped, then displaced, points.

  Output pixel p (measured from the centre) takes the bilinear value at
    matrix (p - offset) + displacement[p]
  and points beyond the border take the border's value.
  Batch meaning: rows are independent.

  Args:
    images: float [B, H, W, C].
    matrices: output to input coordinates, float [B, 2, 2], on (y, x).
    offsets: shift of the picture down and right in pixels, float [B, 2].
    displacement: of the sampling points in pixels, float [B, H, W, 2].

  Returns:
    float32 [B, H, W, C].

  What makes the images should be cheap, or have gone through `fusion.settled`.

  Degenerate input: a singular matrix collapses the picture to a line or point.
  """
  images = jnp.asarray(images, jnp.float32)
  matrices, offsets = jnp.asarray(matrices), jnp.asarray(offsets)
  chex.assert_rank([images, matrices, offsets], [4, 3, 2])
  chex.assert_equal_shape_prefix([images, matrices, offsets], 1)
  if displacement is None:
    displacement = jnp.zeros((*images.shape[:1], 1, 1, 2))
  displacement = jnp.asarray(displacement)
  height, width = images.shape[1:3]
  y = (jnp.arange(height) - (height - 1) / 2).reshape(1, -1, 1)
  x = (jnp.arange(width) - (width - 1) / 2).reshape(1, 1, -1)
  y = y - _column(offsets[:, 0])
  x = x - _column(offsets[:, 1])
  (yy, yx), (xy, xx) = [
    [_column(matrices[:, i, j]) for j in (0, 1)] for i in (0, 1)
  ]
  from_y = yy * y + yx * x + (height - 1) / 2
  from_x = xy * y + xx * x + (width - 1) / 2
  from_y = from_y + displacement[..., 0]
  from_x = from_x + displacement[..., 1]
  return sample(images, from_y, from_x)


def sample(images: jax.Array, y: jax.Array, x: jax.Array) -> jax.Array:
  """Reads images at points between their pixels, bilinearly.

  Points beyond the border take the border's value.
  Batch meaning: rows are independent.

  Args:
    images: float32 [B, H, W, C].
    y: row of each point, 0 for the centre of the first, float [B, h, w].
    x: column of each point, likewise, float [B, h, w].

  Returns:
    float32 [B, h, w, C].
  """
  batch, height, width, channels = images.shape
  y, x = jnp.clip(y, 0, height - 1), jnp.clip(x, 0, width - 1)
  # The upper left of the four neighbours; the last pixel counts as a right or
  # lower neighbour with weight 1.
  top = jnp.clip(jnp.floor(y), 0, max(height - 2, 0))
  left = jnp.clip(jnp.floor(x), 0, max(width - 2, 0))
  down, right = (y - top)[..., None], (x - left)[..., None]
  corner = (top * width + left).astype(jnp.int32)
  flat = images.reshape(batch, height * width, channels)
  step_y, step_x = width * (height > 1), int(width > 1)

  def at(offset: int) -> jax.Array:
    # No -1: a batch of none leaves it undetermined.
    index = (corner + offset).reshape(batch, math.prod(y.shape[1:]))
    pick = jax.vmap(lambda a, i: a.at[i].get(mode="promise_in_bounds"))
    return pick(flat, index).reshape(*y.shape, channels)

  upper = at(0) * (1 - right) + at(step_x) * right
  lower = at(step_y) * (1 - right) + at(step_y + step_x) * right
  return upper * (1 - down) + lower * down


def smooth_field(knots: ArrayLike, height: int, width: int) -> jax.Array:
  """Spreads values at a coarse grid of knots over the whole image.

  Between knots the weights follow a raised cosine, so the field is smooth.

  Args:
    knots: value at each knot, float [B, K, K, C], K >= 2; the outer knots lie
      on the border.
    height: rows of the field.
    width: columns of the field.

  Returns:
    float [B, height, width, C], in the knots' unit.
  """
  knots = jnp.asarray(knots)
  chex.assert_rank(knots, 4)

  def weights(size: int, count: int) -> jax.Array:
    place = jnp.linspace(0, count - 1, size)[:, None]
    near = jnp.clip(1 - jnp.abs(place - jnp.arange(count)[None]), 0, 1)
    return jnp.sin(near * (jnp.pi / 2)) ** 2

  rows, columns = (
    weights(height, knots.shape[1]),
    weights(width, knots.shape[2]),
  )
  return jnp.einsum(
    "yi,bijc,xj->byxc",
    rows,
    knots,
    columns,
    precision=jax.lax.Precision.HIGHEST,
  )
