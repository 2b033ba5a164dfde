"""The head of a drawn face: a lit solid, and where its points are in the face.

Each pixel's point on the head is turned back by the pose into the face's own
plane; the face's relief and the head's roundness give the normals that are
lit. The unit of length is half the picture's side; y points down; u and v are
the face's own right and down. `portrait` paints on it.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Person(NamedTuple):
  """What stays the same in all pictures of a person; all scalars but colours.

  Attributes:
    skin: RGB in 0..1, float [3].
    hair: RGB of hair, brows and beard, float [3].
    iris: RGB, float [3].
    width: half width of the head.
    height: half height of the head.
    jaw: width of the jaw in relation to the head's.
    square: exponent of the head's outline, 2 = ellipse.
    eye_gap: from the middle to an eye.
    eye_row: height of the eyes, v.
    eye_width: half width of an eye.
    eye_height: half height of an open eye, in relation to its width.
    eye_tilt: rise of the outer corners.
    brow_row: above the eyes.
    brow_width: half width of a brow.
    brow_weight: half thickness of a brow.
    brow_arch: curvature of the brows.
    nose_length: below the eyes.
    nose_width: half width of the nostrils.
    nose_height: relief.
    mouth_row: below the nose.
    mouth_width: half width.
    lip: thickness of the lips.
    lip_red: how much redder than the skin, 0..1.
    cheek: relief of the cheekbones.
    hairline: v of the hairline in the middle.
    temple: how the hairline falls to the sides.
    parting: side of the parting, -1..1.
    hair_volume: thickness of the hair.
    hair_length: y to which it hangs.
    beard: 0 = none, 1 = full.
    moustache: likewise.
    glasses: 1 = always wears glasses.
    ears: size of the ears.
  """

  skin: jax.Array
  hair: jax.Array
  iris: jax.Array
  width: jax.Array
  height: jax.Array
  jaw: jax.Array
  square: jax.Array
  eye_gap: jax.Array
  eye_row: jax.Array
  eye_width: jax.Array
  eye_height: jax.Array
  eye_tilt: jax.Array
  brow_row: jax.Array
  brow_width: jax.Array
  brow_weight: jax.Array
  brow_arch: jax.Array
  nose_length: jax.Array
  nose_width: jax.Array
  nose_height: jax.Array
  mouth_row: jax.Array
  mouth_width: jax.Array
  lip: jax.Array
  lip_red: jax.Array
  cheek: jax.Array
  hairline: jax.Array
  temple: jax.Array
  parting: jax.Array
  hair_volume: jax.Array
  hair_length: jax.Array
  beard: jax.Array
  moustache: jax.Array
  glasses: jax.Array
  ears: jax.Array


class Shot(NamedTuple):
  """What differs from picture to picture; all scalars but colours.

  Attributes:
    yaw: turn of the head, radians.
    pitch: nod, radians.
    roll: tilt, radians.
    shift_x: of the head.
    shift_y: of the head.
    zoom: factor.
    smile: -1..1.
    open_mouth: 0..1.
    open_eyes: 0..1.
    gaze: -1..1.
    brow_lift: -1..1.
    light_x: where the light comes from, -1..1.
    light_y: likewise, -1 = above.
    ambient: share of light from everywhere, 0..1.
    exposure: factor.
    warmth: -1..1, colour of the light.
    noise: standard deviation.
    background: RGB, float [3].
    clothes: RGB, float [3].
  """

  yaw: jax.Array
  pitch: jax.Array
  roll: jax.Array
  shift_x: jax.Array
  shift_y: jax.Array
  zoom: jax.Array
  smile: jax.Array
  open_mouth: jax.Array
  open_eyes: jax.Array
  gaze: jax.Array
  brow_lift: jax.Array
  light_x: jax.Array
  light_y: jax.Array
  ambient: jax.Array
  exposure: jax.Array
  warmth: jax.Array
  noise: jax.Array
  background: jax.Array
  clothes: jax.Array


class Canvas(NamedTuple):
  """Where each pixel is: in the picture and on the face; all [S, S].

  Attributes:
    x: in the head's upright frame.
    y: likewise.
    u: in the face's own plane.
    v: likewise.
    radius: 1 on the head's outline, below it inside.
    pixel: side of a pixel.
  """

  x: jax.Array
  y: jax.Array
  u: jax.Array
  v: jax.Array
  radius: jax.Array
  pixel: jax.Array


def bump(x: jax.Array, y: jax.Array) -> jax.Array:
  return jnp.exp(-(x * x + y * y))


def outline(person: Person, x: jax.Array, y: jax.Array) -> jax.Array:
  """The head's implicit radius: 1 on its outline."""
  low = jnp.clip(y / person.height, 0.0, 1.0)
  width = person.width * (1.0 - (1.0 - person.jaw) * low**1.5)
  width = jnp.broadcast_to(width, x.shape)
  p = person.square
  across = jnp.maximum(jnp.abs(x) / width, 1e-4)
  down = jnp.maximum(jnp.abs(y) / person.height, 1e-4)
  return (across**p + down**p) ** (1.0 / p)


def canvas(person: Person, shot: Shot, size: int) -> Canvas:
  pixel = 2.0 / size / shot.zoom
  axis = (jnp.arange(size) + 0.5) * (2.0 / size) - 1.0
  across, down = axis[None, :] - shot.shift_x, axis[:, None] - shot.shift_y
  cos, sin = jnp.cos(shot.roll) / shot.zoom, jnp.sin(shot.roll) / shot.zoom
  x, y = cos * across + sin * down, cos * down - sin * across
  radius = outline(person, x, y)
  depth = 0.75 * jnp.sqrt(jnp.clip(1.0 - radius**2, 0.0, 1.0))
  # Turned back: where the point is on the face seen from the front.
  u = x * jnp.cos(shot.yaw) - depth * jnp.sin(shot.yaw)
  front = x * jnp.sin(shot.yaw) + depth * jnp.cos(shot.yaw)
  v = y * jnp.cos(shot.pitch) - front * jnp.sin(shot.pitch)
  return Canvas(x, y, u, v, radius, pixel)


def nose_tip(person: Person) -> jax.Array:
  return person.eye_row + person.nose_length


def mouth_row(person: Person) -> jax.Array:
  return nose_tip(person) + person.mouth_row


def _relief(person: Person, shot: Shot, at: Canvas) -> jax.Array:
  """Height of the face over the bare head, [S, S]."""
  tip = nose_tip(person)
  # The ridge widens and rises from between the eyes to the tip.
  along = jnp.clip((at.v - person.eye_row) / person.nose_length, 0.0, 1.0)
  below = jnp.clip(1.0 - (at.v - tip) / 0.05, 0.0, 1.0)
  above = jnp.clip((at.v - person.eye_row) / 0.1 + 1.0, 0.0, 1.0)
  wide = person.nose_width * (0.35 + 0.5 * along)
  ridge = jnp.exp(-((at.u / wide) ** 2)) * (0.35 + 0.65 * along)
  height = person.nose_height * ridge * below * above
  mouth = mouth_row(person)
  # Both halves at once; rounded where they meet, lest there be a crease.
  half = jnp.sqrt(at.u**2 + 0.03**2)
  out = half - person.eye_gap
  socket = bump(out / 0.16, (at.v - person.eye_row) / 0.1)
  cheek = bump((out - 0.05) / 0.15, (at.v - person.eye_row - 0.24) / 0.13)
  raised = person.cheek * (1.0 + 0.6 * jnp.maximum(shot.smile, 0.0))
  wing = bump((half - 0.8 * person.nose_width) / 0.045, (at.v - tip) / 0.05)
  height = height - 0.045 * socket + raised * cheek
  height = height + 0.35 * person.nose_height * wing
  lips = bump(at.u / person.mouth_width, (at.v - mouth) / (1.5 * person.lip))
  return height + 0.03 * lips + 0.03 * bump(at.u / 0.12, (at.v - 0.72) / 0.1)


def lit(person: Person, shot: Shot, at: Canvas) -> jax.Array:
  """Brightness of the skin under the shot's light, [S, S]."""
  round_ = 0.75 * jnp.sqrt(jnp.clip(1.0 - at.radius**2, 0.01, 1.0))
  solid = round_ + _relief(person, shot, at)
  slope_y, slope_x = jnp.gradient(solid, at.pixel)
  light = jnp.stack([shot.light_x, shot.light_y, jnp.float32(1.1)])
  light = light / jnp.linalg.norm(light)
  # The outline's slope has no bound, a picture's brightness has.
  slope_x, slope_y = (jnp.clip(s, -2.5, 2.5) for s in (slope_x, slope_y))
  facing = -slope_x * light[0] - slope_y * light[1] + light[2]
  facing = facing / jnp.sqrt(1.0 + slope_x**2 + slope_y**2)
  return shot.ambient + (1.0 - shot.ambient) * jnp.maximum(facing, 0.0) * 1.25
