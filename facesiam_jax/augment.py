"""Random changes of face images that keep the person: pose, light, occlusion.

Pure functions, images to images, meant to run inside the jitted training
step. Every draw for an example comes from the key and the example's index in
the global batch, so the result does not depend on how the batch is spread
over devices. Each kind of change has columns of its own among the draws:
switching one on leaves the draws of the others as they were.
"""

import math
from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

# Columns of the uniform draws of a row, by purpose.
_FLIP, _ROTATION, _SHEAR, _SCALE, _STRETCH, _SHIFT_Y, _SHIFT_X = range(7)
_GAIN, _OFFSET, _GRADIENT_Y, _GRADIENT_X, _GAMMA = range(7, 12)
_ERASE, _ERASE_H, _ERASE_W, _ERASE_Y, _ERASE_X, _ERASE_GREY = range(12, 18)
_NUM_DRAWS = 18
# Knots of the elastic displacement along each side.
_KNOTS = 4


def _row_keys(key: jax.Array, rows: jax.Array, purpose: int) -> jax.Array:
  key = jax.random.fold_in(key, purpose)
  return jax.vmap(lambda row: jax.random.fold_in(key, row))(rows)


def _broadcast(values: jax.Array, rank: int) -> jax.Array:
  return values.reshape(-1, *(1,) * (rank - 1))


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

  Degenerate input: a singular matrix collapses the picture to a line or point.
  """
  images = jnp.asarray(images, jnp.float32)
  matrices, offsets = jnp.asarray(matrices), jnp.asarray(offsets)
  chex.assert_rank([images, matrices, offsets], [4, 3, 2])
  chex.assert_equal_shape_prefix([images, matrices, offsets], 1)
  batch, height, width, channels = images.shape
  y = (jnp.arange(height) - (height - 1) / 2).reshape(1, -1, 1)
  x = (jnp.arange(width) - (width - 1) / 2).reshape(1, 1, -1)
  y = y - _broadcast(offsets[:, 0], 3)
  x = x - _broadcast(offsets[:, 1], 3)
  (yy, yx), (xy, xx) = [
    [_broadcast(matrices[:, i, j], 3) for j in (0, 1)] for i in (0, 1)
  ]
  from_y = yy * y + yx * x + (height - 1) / 2
  from_x = xy * y + xx * x + (width - 1) / 2
  if displacement is not None:
    moved = jnp.asarray(displacement)
    from_y, from_x = from_y + moved[..., 0], from_x + moved[..., 1]
  from_y = jnp.clip(from_y, 0, height - 1)
  from_x = jnp.clip(from_x, 0, width - 1)
  # The upper left of the four neighbours; the last pixel counts as a right or
  # lower neighbour with weight 1.
  top = jnp.clip(jnp.floor(from_y), 0, max(height - 2, 0))
  left = jnp.clip(jnp.floor(from_x), 0, max(width - 2, 0))
  down, right = (from_y - top)[..., None], (from_x - left)[..., None]
  corner = (top * width + left).astype(jnp.int32)
  flat = images.reshape(batch, height * width, channels)
  step_y, step_x = width * (height > 1), int(width > 1)

  def at(offset: int) -> jax.Array:
    index = (corner + offset).reshape(batch, -1)
    pick = jax.vmap(lambda a, i: a.at[i].get(mode="promise_in_bounds"))
    return pick(flat, index).reshape(images.shape)

  upper = at(0) * (1 - right) + at(step_x) * right
  lower = at(step_y) * (1 - right) + at(step_y + step_x) * right
  return upper * (1 - down) + lower * down


def elastic_displacement(
  knots: ArrayLike, height: int, width: int
) -> jax.Array:
  """Spreads displacements at a coarse grid of knots over the whole image.

  Between knots the weights follow a raised cosine, so the field is smooth.

  Args:
    knots: displacement at each knot, float [B, K, K, 2], K >= 2; the outer
      knots lie on the border.
    height: rows of the field.
    width: columns of the field.

  Returns:
    float [B, height, width, 2], in the knots' unit.
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


def _draw(
  sampler: Callable[..., jax.Array],
  key: jax.Array,
  rows: jax.Array,
  purpose: int,
  shape: tuple[int, ...],
) -> jax.Array:
  """Draws [B, *shape] numbers, those of row i from (key, rows[i]) alone."""
  keys = _row_keys(key, rows, purpose)
  return jax.vmap(lambda row_key: sampler(row_key, shape))(keys)


def _pose(
  images: jax.Array,
  signed: jax.Array,
  key: jax.Array,
  rows: jax.Array,
  strengths: dict[str, float],
) -> jax.Array:
  """Warps images by the drawn affine map and elastic displacement."""
  _, height, width, _ = images.shape
  turn = strengths["rotation_deg"] * signed[:, _ROTATION]
  matrices = affine_matrices(
    rotation=jnp.deg2rad(turn),
    shear=jnp.deg2rad(strengths["shear_deg"] * signed[:, _SHEAR]),
    # Logarithmic, so that a factor and its inverse are equally likely.
    scale=jnp.exp(signed[:, _SCALE] * math.log1p(strengths["scale"])),
    stretch=jnp.exp(signed[:, _STRETCH] * math.log1p(strengths["stretch"]) / 2),
  )
  offsets = strengths["shift"] * jnp.stack(
    [signed[:, _SHIFT_Y] * height, signed[:, _SHIFT_X] * width], axis=-1
  )
  displacement = None
  if strengths["elastic"]:
    shape = (_KNOTS, _KNOTS, 2)
    knots = 2 * _draw(jax.random.uniform, key, rows, 1, shape) - 1
    knots = knots * strengths["elastic"]
    side = jnp.array([height, width], jnp.float32).reshape(1, 1, 1, 2)
    displacement = elastic_displacement(knots * side, height, width)
  return warp(images, matrices, offsets, displacement)


def _light(
  images: jax.Array,
  signed: jax.Array,
  key: jax.Array,
  rows: jax.Array,
  strengths: dict[str, float],
) -> jax.Array:
  """Changes gamma, gain, offset, the fall of light, and adds noise."""
  _, height, width, _ = images.shape

  def column(number: int) -> jax.Array:
    return _broadcast(signed[:, number], 4)

  if strengths["gamma"]:
    power = jnp.exp(column(_GAMMA) * math.log1p(strengths["gamma"]))
    images = jnp.maximum(images, 1e-6) ** power
  gain = 1 + column(_GAIN) * strengths["gain"]
  y = jnp.linspace(-1, 1, height).reshape(1, -1, 1, 1)
  x = jnp.linspace(-1, 1, width).reshape(1, 1, -1, 1)
  fall = column(_GRADIENT_Y) * y + column(_GRADIENT_X) * x
  images = images * (gain + fall * strengths["gradient"])
  images = images + column(_OFFSET) * strengths["offset"]
  if strengths["noise"]:
    grain = _draw(jax.random.normal, key, rows, 2, images.shape[1:])
    images = images + grain * strengths["noise"]
  return jnp.clip(images, 0, 1)


def _erase(
  images: jax.Array, uniform: jax.Array, side: float, probability: float
) -> jax.Array:
  """Covers one rectangle of each chosen image with a flat grey."""
  _, height, width, _ = images.shape
  # Sides between a third of the largest and the largest.
  long_y = height * side * (1 + 2 * uniform[:, _ERASE_H]) / 3
  long_x = width * side * (1 + 2 * uniform[:, _ERASE_W]) / 3
  centre_y = uniform[:, _ERASE_Y] * height
  centre_x = uniform[:, _ERASE_X] * width
  y = (jnp.arange(height) + 0.5).reshape(1, -1, 1, 1)
  x = (jnp.arange(width) + 0.5).reshape(1, 1, -1, 1)
  inside = (
    (jnp.abs(y - _broadcast(centre_y, 4)) < _broadcast(long_y / 2, 4))
    & (jnp.abs(x - _broadcast(centre_x, 4)) < _broadcast(long_x / 2, 4))
    & _broadcast(uniform[:, _ERASE] < probability, 4)
  )
  return jnp.where(inside, _broadcast(uniform[:, _ERASE_GREY], 4), images)


def _check_strengths(strengths: dict[str, float]) -> None:
  for name, value in strengths.items():
    if value < 0:
      raise ValueError(f"{name} must not be negative, not {value}.")
  for name in ("flip", "erase_probability"):
    if strengths[name] > 1:
      raise ValueError(
        f"{name} is a probability, at most 1, not {strengths[name]}."
      )
  if strengths["shear_deg"] >= 90:
    raise ValueError(
      f"shear_deg must be below 90, not {strengths['shear_deg']}."
    )


def augment(
  images: ArrayLike,
  key: jax.Array,
  rows: ArrayLike,
  *,
  flip: float = 0.0,
  rotation_deg: float = 0.0,
  shear_deg: float = 0.0,
  scale: float = 0.0,
  stretch: float = 0.0,
  shift: float = 0.0,
  elastic: float = 0.0,
  gain: float = 0.0,
  offset: float = 0.0,
  gradient: float = 0.0,
  gamma: float = 0.0,
  noise: float = 0.0,
  erase: float = 0.0,
  erase_probability: float = 0.5,
) -> jax.Array:
  """Changes pose, light and occlusion of each image at random.

  In this order: mirroring; one bilinear warp for rotation, shear, scale,
  stretch, shift and elastic displacement, the border's value repeated beyond
  it; gamma, gain, fall of light, offset and noise, clipped to 0..1; one erased
  rectangle. Draws are uniform between minus and plus the strength unless said
  otherwise. A strength of 0 switches its change off; with all off the images
  come back bit for bit.
  Batch meaning: row i depends on images[i], key and rows[i] alone.

  Args:
    images: values in 0..1, float [B, H, W, C].
    key: JAX random key.
    rows: index of each row in the global batch, int32 [B], >= 0.
    flip: probability of mirroring left and right, 0..1.
    rotation_deg: largest rotation, degrees.
    shear_deg: largest horizontal shear, degrees, < 90.
    scale: largest change of size: factors 1 / (1 + scale) .. 1 + scale,
      log-uniform.
    stretch: the same for height over width.
    shift: largest shift, as a fraction of height and width.
    elastic: largest displacement of a 4 x 4 grid of knots, as a fraction of
      height and width.
    gain: contrast factor 1 - gain .. 1 + gain.
    offset: largest brightness added, in units of the full range.
    gradient: light varies linearly over the image, by up to this fraction from
      the centre to an edge, drawn for each axis.
    gamma: the exponent is 1 / (1 + gamma) .. 1 + gamma, log-uniform.
    noise: standard deviation of Gaussian noise, in units of the full range.
    erase: longest side of the rectangle, as a fraction of height and width.
    erase_probability: probability of the rectangle, 0..1.

  Returns:
    float32 [B, H, W, C], in 0..1.

  Raises:
    ValueError: if a strength is negative, a probability above 1, or shear_deg
      90 or more.

  Degenerate input: B == 0 returns an empty array.
  References: Zhong et al. 2020, Random erasing; Simard et al. 2003, Best
    practices for convolutional neural networks (elastic distortion).
  """
  strengths = {
    "flip": flip,
    "rotation_deg": rotation_deg,
    "shear_deg": shear_deg,
    "scale": scale,
    "stretch": stretch,
    "shift": shift,
    "elastic": elastic,
    "gain": gain,
    "offset": offset,
    "gradient": gradient,
    "gamma": gamma,
    "noise": noise,
    "erase": erase,
    "erase_probability": erase_probability,
  }
  images, rows = jnp.asarray(images), jnp.asarray(rows)
  chex.assert_rank([images, rows], [4, 1])
  chex.assert_type([images, rows], [float, int])
  chex.assert_equal_shape_prefix([images, rows], 1)
  _check_strengths(strengths)
  uniform = _draw(jax.random.uniform, key, rows, 0, (_NUM_DRAWS,))
  signed = 2 * uniform - 1
  if flip:
    chosen = _broadcast(uniform[:, _FLIP] < flip, 4)
    images = jnp.where(chosen, images[:, :, ::-1], images)
  if rotation_deg or shear_deg or scale or stretch or shift or elastic:
    images = _pose(images, signed, key, rows, strengths)
  if gain or offset or gradient or gamma or noise:
    images = _light(images, signed, key, rows, strengths)
  if erase and erase_probability:
    images = _erase(images, uniform, erase, erase_probability)
  return images
