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

from facesiam_jax import fusion, warping

# Columns of the uniform draws of a row, by purpose.
_FLIP, _ROTATION, _SHEAR, _SCALE, _STRETCH, _SHIFT_Y, _SHIFT_X = range(7)
_GAIN, _OFFSET, _GRADIENT_Y, _GRADIENT_X, _GAMMA = range(7, 12)
_ERASE, _ERASE_H, _ERASE_W, _ERASE_Y, _ERASE_X, _ERASE_GREY = range(12, 18)
_NUM_DRAWS = 18
# Knots along each side of the elastic displacement, and of the shading.
_KNOTS = 4
_SHADE_KNOTS = 6


def _row_keys(key: jax.Array, rows: jax.Array, purpose: int) -> jax.Array:
  key = jax.random.fold_in(key, purpose)
  return jax.vmap(lambda row: jax.random.fold_in(key, row))(rows)


def _broadcast(values: jax.Array, rank: int) -> jax.Array:
  return values.reshape(-1, *(1,) * (rank - 1))


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


def _elastic_field(
  key: jax.Array,
  rows: jax.Array,
  purpose: int,
  strength: float,
  height: int,
  width: int,
) -> jax.Array:
  """Draws a smooth displacement of each row's points, in pixels."""
  knots = _draw(jax.random.uniform, key, rows, purpose, (_KNOTS, _KNOTS, 2))
  side = jnp.array([height, width], jnp.float32).reshape(1, 1, 1, 2)
  return warping.smooth_field((2 * knots - 1) * strength * side, height, width)


def _pose(
  images: jax.Array,
  signed: jax.Array,
  mirrored: jax.Array,
  key: jax.Array,
  rows: jax.Array,
  strengths: dict[str, float],
) -> jax.Array:
  """Warps images by the drawn affine map and elastic displacement.

  Images to be mirrored are read from the other side, so that each is read once.
  """
  _, height, width, _ = images.shape
  turn = strengths["rotation_deg"] * signed[:, _ROTATION]
  matrices = warping.affine_matrices(
    rotation=jnp.deg2rad(turn),
    shear=jnp.deg2rad(strengths["shear_deg"] * signed[:, _SHEAR]),
    # Logarithmic, so that a factor and its inverse are equally likely.
    scale=jnp.exp(signed[:, _SCALE] * math.log1p(strengths["scale"])),
    stretch=jnp.exp(signed[:, _STRETCH] * math.log1p(strengths["stretch"]) / 2),
  )
  offsets = strengths["shift"] * jnp.stack(
    [signed[:, _SHIFT_Y] * height, signed[:, _SHIFT_X] * width], axis=-1
  )
  side = jnp.stack([jnp.ones_like(turn), jnp.where(mirrored, -1, 1)], axis=-1)
  matrices = matrices * side[..., None]
  displacement = None
  if strengths["elastic"]:
    displacement = _elastic_field(
      key, rows, 1, strengths["elastic"], height, width
    )
    displacement = displacement * side[:, None, None]
  return warping.warp(images, matrices, offsets, displacement)


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
  mirrored = uniform[:, _FLIP] < flip
  if rotation_deg or shear_deg or scale or stretch or shift or elastic:
    images = _pose(images, signed, mirrored, key, rows, strengths)
  elif flip:
    images = jnp.where(_broadcast(mirrored, 4), images[:, :, ::-1], images)
  if gain or offset or gradient or gamma or noise:
    images = _light(images, signed, key, rows, strengths)
  if erase and erase_probability:
    images = _erase(images, uniform, erase, erase_probability)
  return images


def new_people(
  images: ArrayLike,
  key: jax.Array,
  groups: ArrayLike,
  *,
  reshape: float = 0.0,
  shade: float = 0.0,
) -> jax.Array:
  """Turns each group of images into a person who does not exist.

  All images of a group are deformed by one smooth random field and shaded by
  another: other proportions, other tones, still the same person among
  themselves. With the images of one person as a group, and a new key at every
  step, an encoder never sees a person twice, so that it has to learn what
  keeps a person the same, not the few people at hand. A group's pictures must
  not be compared with the same person's in another group.
  Batch meaning: row i depends on images[i], key and groups[i] alone.

  Args:
    images: values in 0..1, float [B, H, W, C].
    key: JAX random key.
    groups: which group each row belongs to, int32 [B], >= 0; in a batch of
      P people x K images, the row's index in the global batch // K.
    reshape: largest displacement of a 4 x 4 grid of knots, as a fraction of
      height and width.
    shade: largest change of the logarithm of the grey value at a 6 x 6 grid of
      knots.

  Returns:
    float32 [B, H, W, C], in 0..1; bit for bit the images if both are 0.

  Raises:
    ValueError: if a strength is negative.

  Degenerate input: B == 0 returns an empty array.
  """
  images, groups = jnp.asarray(images), jnp.asarray(groups)
  chex.assert_rank([images, groups], [4, 1])
  chex.assert_type([images, groups], [float, int])
  chex.assert_equal_shape_prefix([images, groups], 1)
  if min(reshape, shade) < 0:
    raise ValueError(
      f"reshape and shade must not be negative, not {reshape} and {shade}."
    )
  batch, height, width, _ = images.shape
  if reshape:
    moved = _elastic_field(key, groups, 3, reshape, height, width)
    still = jnp.broadcast_to(jnp.eye(2), (batch, 2, 2))
    images = warping.warp(images, still, jnp.zeros((batch, 2)), moved)
  if shade:
    shape = (_SHADE_KNOTS, _SHADE_KNOTS, 1)
    knots = 2 * _draw(jax.random.uniform, key, groups, 4, shape) - 1
    tone = jnp.exp(warping.smooth_field(knots * shade, height, width))
    images = jnp.clip(images * tone, 0, 1)
  return fusion.settled(images)
