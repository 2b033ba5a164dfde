"""Drawn spectacles: the same face with and without glasses, for training.

People take their glasses off, and a few training people seldom show it. On
faces whose eyes are in a known place a pair of rims is a little geometry.
Pure functions of arrays, for inside the jitted step.
"""

import chex
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from facesiam_jax import fusion

# Uniform draws of a row: (low, high) of each quantity. Lengths are fractions
# of the side of the face; the eyes are half a side apart.
_RANGES = (
  (0.0, 1.0),  # whether there are glasses
  (0.15, 0.24),  # half the width of a lens
  (0.10, 0.19),  # half the height of a lens
  (0.0, 0.06),  # how far below the pupil the lens is centred
  (-0.02, 0.02),  # sideways shift of the pair
  (2.0, 4.0),  # exponent of the outline: 2 an ellipse, 4 nearly a rectangle
  (0.008, 0.022),  # half the thickness of the rim
  (0.0, 0.8),  # grey value of the rim
  (0.5, 1.0),  # opacity of the rim
  (0.8, 1.05),  # light that passes the lens
  (-0.06, 0.0),  # height of the bridge, from the lens's centre
  (0.0, 1.0),  # strength of the glare, where there is one
  (-0.12, 0.12),  # place of the glare, sideways
  (-0.08, 0.08),  # place of the glare, downwards
  (-1.0, 1.0),  # whether there is a glare: above 0
)
_SOFTNESS = 0.008  # width of an edge, about half a pixel of 64
_GLARE = 0.035  # size of a glare


def _draws(key: jax.Array, rows: jax.Array) -> list[jax.Array]:
  """Draws all quantities of each row, each [B, 1, 1]."""
  keys = jax.vmap(lambda row: jax.random.fold_in(key, row))(rows)
  uniform = jax.vmap(lambda k: jax.random.uniform(k, (len(_RANGES),)))(keys)
  low, high = jnp.array(_RANGES).T
  values = low[None, :] + uniform * (high - low)[None, :]
  return [values[:, n, None, None] for n in range(len(_RANGES))]


def _edge(distance: jax.Array) -> jax.Array:
  """1 where distance < 0, 0 where it is > 0, soft between."""
  return jax.nn.sigmoid(-distance / _SOFTNESS)


def draw_glasses(
  images: ArrayLike,
  key: jax.Array,
  rows: ArrayLike,
  *,
  probability: float,
  eyes: tuple[tuple[float, float], tuple[float, float]] = (
    (0.25, 17 / 64),
    (0.75, 17 / 64),
  ),
) -> jax.Array:
  """Draws spectacles of random shape on some of the faces.

  Batch meaning: row i depends on images[i], key and rows[i] alone.

  Args:
    images: upright faces with values in 0..1, float [B, H, W, C].
    key: JAX random key.
    rows: index of each row in the global batch, int32 [B], >= 0.
    probability: share of the faces that get them, 0..1.
    eyes: (x, y) of the left and right pupil in the picture, as fractions of
      its width and height; the default is the framing of
      `facesiam_jax.faces.framing`.

  Returns:
    float32 [B, H, W, C], in 0..1; bit for bit the images if probability is 0.

  Raises:
    ValueError: if probability lies outside 0..1.

  Degenerate input: B == 0 returns an empty array.
  """
  if not 0 <= probability <= 1:
    raise ValueError(f"probability must be in 0..1, got {probability}.")
  images, rows = jnp.asarray(images), jnp.asarray(rows)
  chex.assert_rank([images, rows], [4, 1])
  chex.assert_equal_shape_prefix([images, rows], 1)
  if not probability:
    return images
  draws = _draws(key, rows)
  worn, width, height, below, aside, power, rim, grey, opacity = draws[:9]
  passing, bridge_y, glare, glare_x, glare_y, has_glare = draws[9:]
  size_y, size_x = images.shape[1:3]
  y = ((jnp.arange(size_y) + 0.5) / size_y)[None, :, None]
  x = ((jnp.arange(size_x) + 0.5) / size_x)[None, None, :]
  frame, lens, shine = jnp.zeros((3, 1, 1, 1))
  for eye_x, eye_y in eyes:
    dx, dy = x - eye_x - aside, y - eye_y - below
    # 1 on the outline of the lens; away from it, times the radius, about the
    # distance.
    outline = (
      jnp.abs(dx / width) ** power + jnp.abs(dy / height) ** power + 1e-6
    ) ** (1 / power)
    from_rim = (outline - 1) * jnp.minimum(width, height)
    frame = jnp.maximum(frame, _edge(jnp.abs(from_rim) - rim))
    lens = jnp.maximum(lens, _edge(from_rim))
    spot = jnp.square(dx - glare_x) + jnp.square(dy - glare_y)
    shine = jnp.maximum(shine, jnp.exp(-spot / (2 * _GLARE**2)))
  (left, eye_y), (right, _) = eyes
  middle = (left + right) / 2 + aside
  # The bridge spans what the lenses leave free; the temples run outwards.
  gap = jnp.abs(x - middle) - ((right - left) / 2 - width)
  reach = (right - left) / 2 + width - jnp.abs(x - middle)
  height_off = jnp.abs(y - eye_y - below - bridge_y) - rim
  bar = jnp.maximum(_edge(gap), _edge(reach)) * _edge(height_off)
  frame = jnp.maximum(frame, bar) * opacity
  has_glare = (has_glare > 0).astype(jnp.float32)
  shine = shine * lens * glare * has_glare
  through = 1 + (passing - 1) * lens
  drawn = images * through[..., None]
  drawn = drawn + (1 - drawn) * shine[..., None]
  drawn = drawn * (1 - frame[..., None]) + (grey * frame)[..., None]
  chosen = (worn < probability)[..., None]
  return fusion.settled(jnp.where(chosen, drawn, images))
