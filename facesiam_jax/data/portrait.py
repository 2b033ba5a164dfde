"""Draws a face from numbers: a person, a shot of them, pixels out.

Eyes, brows, nose, mouth, hair and what else a face has are simple shapes with
soft edges, painted over each other on the head of `portrait_solid`.

Pure functions of arrays; `synthetic` says which people there are.
"""

import jax
import jax.numpy as jnp

from facesiam_jax.data import portrait_solid as solid
from facesiam_jax.data.portrait_solid import Canvas, Person, Shot


def _inside(distance: jax.Array, softness: jax.Array | float) -> jax.Array:
  """1 where the distance is negative, 0 outside, a slope of that width."""
  return jnp.clip(0.5 - distance / softness, 0.0, 1.0)


def _over(picture: jax.Array, mask: jax.Array, colour: jax.Array) -> jax.Array:
  """Paints a colour, [3] or [S, S, 3], where the mask is."""
  colour = jnp.broadcast_to(colour, picture.shape)
  return picture + mask[..., None] * (colour - picture)


def _shaded(colour: jax.Array, level: jax.Array) -> jax.Array:
  """A colour [3] at a level [S, S] of light: [S, S, 3]."""
  return colour.reshape(1, 1, 3) * level[..., None]


def _strands(at: Canvas) -> jax.Array:
  """Fine light and dark lines that run down from the crown."""
  angle = jnp.arctan2(at.x, at.y + 1.3)
  waves = jnp.sin(70.0 * angle + 3.0 * jnp.sin(5.0 * at.y))
  # Finer than a pixel, they would only flicker.
  strength = jnp.clip(0.045 / at.pixel - 0.6, 0.0, 1.0)
  return 1.0 + 0.12 * strength * waves


def _hair_colour(person: Person, shot: Shot, at: Canvas) -> jax.Array:
  shine = solid.bump((at.x - 0.35 * shot.light_x) / 0.35, (at.y + 0.62) / 0.16)
  level = (0.55 + 0.45 * shot.ambient) * _strands(at) + 0.35 * shine
  return _shaded(person.hair, level)


def _paint_behind(
  picture: jax.Array, person: Person, shot: Shot, at: Canvas
) -> jax.Array:
  """Hair behind the head, neck and shoulders, ears."""
  edge = 1.5 * at.pixel
  crown = solid.outline(person, at.x / (1.0 + person.hair_volume), at.y)
  crown = crown / (1.0 + 0.6 * person.hair_volume)
  hangs = jnp.abs(at.x) - (person.width + 0.5 * person.hair_volume)
  long = jnp.maximum(hangs, -at.y - 0.1)
  behind = jnp.minimum((crown - 1.0) * 0.6, long)
  behind = jnp.maximum(behind, at.y - person.hair_length)
  hair = _hair_colour(person, shot, at)
  picture = _over(picture, _inside(behind, 2.0 * edge), 0.8 * hair)
  flare = 0.5 + 0.5 * jnp.clip(at.y - 0.6, 0.0, 1.0) ** 2
  neck = jnp.maximum(jnp.abs(at.x) - flare * person.width, 0.3 - at.y)
  shade = shot.ambient + 0.35 * (1.0 - shot.ambient)
  picture = _over(picture, _inside(neck, edge), person.skin * shade * 0.85)
  shoulder = 0.83 + 0.35 * at.x**2 + 0.25 * solid.bump(at.x / 0.3, 0.0 * at.y)
  picture = _over(picture, _inside(shoulder - at.y, edge), shot.clothes * shade)
  # An ear goes out of sight on the side that turns away.
  hidden = 0.24 * jnp.maximum(-jnp.sign(at.x) * jnp.sin(shot.yaw), 0.0)
  ear_x = jnp.abs(at.x) - (person.width + 0.01 - hidden)
  ear_y = at.y - person.eye_row - 0.1
  ear = (ear_x / (0.55 * person.ears)) ** 2 + (ear_y / person.ears) ** 2
  skin = _shaded(person.skin, shade * (0.75 + 0.2 * jnp.clip(ear, 0, 1)))
  return _over(picture, _inside(jnp.sqrt(ear) - 1.0, edge / 0.1), skin)


def _paint_eyes(
  picture: jax.Array, person: Person, shot: Shot, at: Canvas
) -> jax.Array:
  """Eyeballs, irises, lids and brows, both sides at once."""
  edge = 1.5 * at.pixel
  side = jnp.sign(at.u)
  out = jnp.abs(at.u) - person.eye_gap
  row = at.v - person.eye_row + person.eye_tilt * out
  along = out / person.eye_width
  tall = person.eye_width * person.eye_height * shot.open_eyes
  bow = jnp.clip(1.0 - along**2, 0.0, 1.0)
  upper, lower = -tall * bow, 0.7 * tall * bow
  ball = jnp.maximum(upper - row, row - lower)
  ball = jnp.maximum(ball, jnp.abs(out) - person.eye_width)
  seen = _inside(ball, edge)
  white = jnp.array([0.93, 0.92, 0.9]) * jnp.minimum(shot.ambient + 0.4, 1.0)
  picture = _over(picture, seen, white)
  # The gaze is the same for both eyes, `out` is mirrored.
  look = out - side * shot.gaze * 0.35 * person.eye_width
  distance = jnp.sqrt(look**2 + (row + 0.1 * tall) ** 2)
  iris = 0.47 * person.eye_width
  picture = _over(picture, seen * _inside(distance - iris, edge), person.iris)
  picture = _over(
    picture, seen * _inside(distance - 0.45 * iris, edge), jnp.full(3, 0.04)
  )
  spark = jnp.sqrt((look - side * 0.3 * iris) ** 2 + (row + 0.4 * iris) ** 2)
  picture = _over(
    picture, seen * _inside(spark - 0.22 * iris, edge), jnp.ones(3)
  )
  lid = jnp.maximum(jnp.abs(row - upper) - 0.014, jnp.abs(along) - 1.05)
  picture = _over(picture, 0.85 * _inside(lid, edge), 0.25 * person.skin)
  crease = jnp.maximum(
    jnp.abs(row - upper * 1.25 + 0.03) - 0.005, jnp.abs(along) - 1.0
  )
  picture = _over(picture, 0.4 * _inside(crease, edge), 0.6 * person.skin)
  lift = person.brow_row + 0.04 * shot.brow_lift
  place = (out - 0.01) / person.brow_width
  brow = jnp.abs(row + lift - person.brow_arch * (place**2 - 0.5))
  brow = brow - person.brow_weight * (1.0 - 0.55 * jnp.clip(place, -1, 1))
  brow = jnp.maximum(brow, jnp.abs(out - 0.01) - person.brow_width)
  return _over(picture, 0.9 * _inside(brow, 1.6 * edge), 0.8 * person.hair)


def _paint_nose(picture: jax.Array, person: Person, at: Canvas) -> jax.Array:
  """Nostrils and the shadow under the tip; the relief does the rest."""
  tip = solid.nose_tip(person)
  shadow = solid.bump(
    at.u / (1.3 * person.nose_width), (at.v - tip - 0.05) / 0.03
  )
  picture = _over(picture, 0.3 * shadow, 0.45 * person.skin)
  hole = solid.bump(
    (jnp.abs(at.u) - 0.55 * person.nose_width) / (0.36 * person.nose_width),
    (at.v - tip - 0.02) / 0.018,
  )
  return _over(picture, 0.8 * hole, 0.25 * person.skin)


def _paint_mouth(
  picture: jax.Array, person: Person, shot: Shot, at: Canvas
) -> jax.Array:
  """Lips, and what is between them when the mouth is open."""
  edge = 1.5 * at.pixel
  wide = person.mouth_width * (1.0 + 0.16 * shot.smile)
  along = at.u / wide
  bow = jnp.clip(1.0 - along**2, 0.0, 1.0)
  line = at.v - solid.mouth_row(person) - 0.06 * shot.smile * (0.5 - along**2)
  gap = 0.5 * 0.13 * shot.open_mouth * bow
  dip = 1.0 - 0.35 * solid.bump(along / 0.18, 0.0 * along)
  top = -gap - person.lip * 0.8 * bow**0.7 * dip
  bottom = gap + person.lip * 1.1 * bow**0.7
  lips = jnp.maximum(jnp.maximum(top - line, line - bottom), jnp.abs(along) - 1)
  pink = jnp.array([0.75, 0.3, 0.3])
  tone = person.skin * (1 - person.lip_red) + pink * person.lip_red
  upper_darker = jnp.where(line < 0, 0.82, 1.0)
  level = (0.5 + 0.5 * shot.ambient) * upper_darker
  picture = _over(
    picture, 0.9 * _inside(lips, 1.5 * edge), _shaded(tone, level)
  )
  hole = jnp.maximum(jnp.abs(line) - gap, jnp.abs(along) - 0.95)
  picture = _over(
    picture,
    _inside(hole, edge) * jnp.clip(gap / 0.006, 0.0, 1.0),
    jnp.array([0.25, 0.08, 0.08]),
  )
  teeth = jnp.maximum(hole, line + 0.25 * gap)
  shown = jnp.clip(gap / 0.02, 0.0, 1.0)
  picture = _over(
    picture, 0.9 * shown * _inside(teeth, edge), jnp.full(3, 0.85)
  )
  crack = jnp.maximum(jnp.abs(line) - 0.008, jnp.abs(along) - 1.04)
  return _over(picture, 0.7 * _inside(crack, edge), 0.3 * person.skin)


def _paint_beard(picture: jax.Array, person: Person, at: Canvas) -> jax.Array:
  """Beard along the jaw, moustache over the mouth."""
  mouth = solid.mouth_row(person)
  # Below a line from the ears past the corners of the mouth; free of the lips.
  reach = mouth - 0.02 - 0.5 * (jnp.abs(at.u) / person.width) ** 2
  lips = solid.bump(at.u / (1.05 * person.mouth_width), (at.v - mouth) / 0.09)
  beard = _inside(reach - at.v, 0.18) * (1.0 - jnp.clip(1.4 * lips, 0, 1))
  between = 0.5 * (solid.nose_tip(person) + mouth) + 0.02
  along = at.u / (1.05 * person.mouth_width)
  # Two lobes that thin out and fall to the corners of the mouth.
  sag = at.v - between - 0.05 * along**2
  bar = jnp.abs(sag) - 0.04 * jnp.clip(1.0 - along**2, 0.0, 1.0)
  bar = jnp.maximum(bar, jnp.abs(along) - 1.0)
  grain = _shaded(person.hair, 0.75 * _strands(at))
  picture = _over(picture, 0.9 * person.beard * beard, grain)
  return _over(picture, 0.9 * person.moustache * _inside(bar, 0.03), grain)


def _paint_front(
  picture: jax.Array,
  person: Person,
  shot: Shot,
  at: Canvas,
  head: jax.Array,
) -> jax.Array:
  """Hair over the forehead, and glasses."""
  edge = 1.5 * at.pixel
  lean = at.u - 0.25 * person.parting * person.width
  line = person.hairline + person.temple * lean**2
  crown = solid.outline(person, at.x / (1.0 + person.hair_volume), at.y)
  crown = (crown / (1.0 + 0.6 * person.hair_volume) - 1.0) * 0.6
  fringe = jnp.maximum(at.v - line - 0.02 * jnp.sin(24.0 * at.u), crown)
  hair = _hair_colour(person, shot, at)
  picture = _over(picture, _inside(fringe, 3.0 * edge), hair)
  out = (jnp.abs(at.u) - person.eye_gap) / (1.75 * person.eye_width)
  down = (at.v - person.eye_row - 0.015) / (1.3 * person.eye_width)
  ring = jnp.abs((out**4 + down**4) ** 0.25 - 1.0) * 0.17 - 0.014
  gap = jnp.maximum(person.eye_gap - 1.75 * person.eye_width, 0.01)
  bridge = jnp.maximum(
    jnp.abs(at.v - person.eye_row + 0.02) - 0.012, jnp.abs(at.u) - gap
  )
  frame = _inside(jnp.minimum(ring, bridge), edge) * head
  return _over(picture, person.glasses * frame, jnp.full(3, 0.08))


def draw(person: Person, shot: Shot, *, size: int) -> jax.Array:
  """Draws one picture, without noise.

  Args:
    person: who; scalars.
    shot: how; scalars.
    size: side of the picture in pixels.

  Returns:
    RGB in 0..1, float32 [size, size, 3].
  """
  at = solid.canvas(person, shot, size)
  axis = jnp.linspace(-1.0, 1.0, size)
  fall = 1.0 + 0.25 * (shot.light_x * axis[None, :] - axis[:, None])
  picture = jnp.clip(_shaded(shot.background, fall), 0.0, 1.0)
  picture = _paint_behind(picture, person, shot, at)
  head = _inside((at.radius - 1.0) * 0.6, 1.5 * at.pixel)
  level = solid.lit(person, shot, at)
  flush = solid.bump((jnp.abs(at.u) - 0.3) / 0.15, (at.v - 0.28) / 0.12)
  face = _shaded(person.skin, level)
  face = _over(face, 0.12 * flush, face * jnp.array([[[1.0, 0.0, 0.0]]]))
  face = _paint_beard(face, person, at)
  face = _paint_nose(face, person, at)
  face = _paint_mouth(face, person, shot, at)
  face = _paint_eyes(face, person, shot, at)
  picture = _over(picture, head, face)
  picture = _paint_front(picture, person, shot, at, head)
  tint = 1.0 + 0.08 * shot.warmth * jnp.array([[[1.0, 0.1, -1.0]]])
  return jnp.clip(picture * shot.exposure * tint, 0.0, 1.0)
