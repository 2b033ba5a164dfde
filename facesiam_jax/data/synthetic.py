"""Synthetic people: drawn faces, as many as wanted, with no data at all.

For tests, benchmarks and runs at scale. A picture is a function of (seed,
identity, image number) alone, computed on the device by `portrait.draw`: the
same on any number of devices, in any order, one at a time or a million. A
network that tells these people apart tells drawings apart, not people: figures
measured here say that the machinery works, nothing about faces.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax.typing import ArrayLike

from facesiam_jax import errors
from facesiam_jax.data import portrait, portrait_solid, sets

NUM_GROUPS = 4
_FOLDS = 4
# What a random number is for; folded into the seed's key.
_PERSON, _SHOT, _NOISE = range(3)
# Faces drawn in one call; more would only take memory.
_BLOCK = 64

_SKINS = np.array(
  [[0.96, 0.80, 0.70], [0.88, 0.67, 0.53], [0.69, 0.47, 0.34],
   [0.42, 0.27, 0.19]], np.float32,
)  # fmt: skip
_HAIRS = np.array(
  [[0.09, 0.07, 0.06], [0.22, 0.14, 0.09], [0.38, 0.23, 0.13],
   [0.50, 0.24, 0.12], [0.78, 0.62, 0.36], [0.62, 0.61, 0.60]], np.float32,
)  # fmt: skip
_IRISES = np.array(
  [[0.25, 0.15, 0.08], [0.40, 0.27, 0.13], [0.30, 0.42, 0.26],
   [0.28, 0.43, 0.58], [0.42, 0.47, 0.50]], np.float32,
)  # fmt: skip
# From where to where each of a person's numbers is drawn, evenly.
_RANGES = {
  "width": (0.50, 0.62),
  "height": (0.70, 0.82),
  "jaw": (0.55, 0.90),
  "square": (2.0, 2.7),
  "eye_gap": (0.20, 0.27),
  "eye_row": (-0.12, 0.02),
  "eye_width": (0.085, 0.125),
  "eye_height": (0.38, 0.66),
  "eye_tilt": (-0.10, 0.22),
  "brow_row": (0.11, 0.20),
  "brow_width": (0.10, 0.17),
  "brow_weight": (0.012, 0.036),
  "brow_arch": (-0.01, 0.06),
  "nose_length": (0.24, 0.38),
  "nose_width": (0.07, 0.14),
  "nose_height": (0.08, 0.17),
  "mouth_row": (0.14, 0.21),
  "mouth_width": (0.15, 0.25),
  "lip": (0.022, 0.060),
  "lip_red": (0.15, 0.6),
  "cheek": (0.01, 0.06),
  "hairline": (-0.62, -0.34),
  "temple": (-0.2, 1.6),
  "parting": (-1.0, 1.0),
  "hair_volume": (0.03, 0.20),
  "ears": (0.10, 0.16),
}
# The same of a shot. Angles in radians.
_SHOT_RANGES = {
  "yaw": (-0.42, 0.42),
  "pitch": (-0.20, 0.20),
  "roll": (-0.12, 0.12),
  "shift_x": (-0.06, 0.06),
  "shift_y": (-0.02, 0.08),
  "zoom": (0.92, 1.06),
  "smile": (-0.6, 1.0),
  "open_mouth": (-1.0, 1.0),
  "open_eyes": (0.55, 1.1),
  "gaze": (-0.8, 0.8),
  "brow_lift": (-1.0, 1.0),
  "light_x": (-0.9, 0.9),
  "light_y": (-0.9, 0.2),
  "ambient": (0.35, 0.65),
  "exposure": (0.75, 1.2),
  "warmth": (-1.0, 1.0),
  "noise": (0.0, 0.03),
}


@dataclasses.dataclass(frozen=True)
class SyntheticFaces:
  """Drawn faces with who they show.

  Attributes:
    images: uint8 [N, H, W, C].
    identity_ids: person of each image, from 0, int32 [N].
    names: one name per identity id.
  """

  images: np.ndarray
  identity_ids: np.ndarray
  names: tuple[str, ...]


def _key(seed: jax.Array | int, purpose: int) -> jax.Array:
  return jax.random.fold_in(jax.random.key(seed), purpose)


def _ranged(
  uniform: jax.Array, ranges: dict[str, tuple[float, float]]
) -> dict[str, jax.Array]:
  return {
    name: low + (high - low) * uniform[number]
    for number, (name, (low, high)) in enumerate(ranges.items())
  }


def group(identity: jax.Array | int) -> jax.Array:
  """Returns the group of a person, 0..NUM_GROUPS - 1: identities in turn.

  Groups differ in the tone of their skin and hair, as data for measures of
  fairness need.
  """
  return jnp.asarray(identity) % NUM_GROUPS


def person(
  seed: jax.Array | int, identity: jax.Array | int
) -> portrait_solid.Person:
  """Draws who someone is.

  Args:
    seed: of the whole population.
    identity: number of the person, int32 >= 0.

  Returns:
    What stays the same in all their pictures.
  """
  key = jax.random.fold_in(_key(seed, _PERSON), identity)
  numbers = jax.random.uniform(key, (len(_RANGES) + 12,))
  fields = _ranged(numbers, _RANGES)
  (tone, red, hair, dark, iris, long, style, bearded, beard, lip_hair, glasses,
   grey) = numbers[len(_RANGES) :]  # fmt: skip
  of_group = group(identity)
  skin = jnp.asarray(_SKINS)[of_group]
  # Lighter groups have the whole range of hair, darker ones its dark end.
  shades = jnp.array([5, 4, 3, 2])[of_group]
  hair_number = jnp.floor(hair * shades).astype(jnp.int32)
  hair_number = jnp.where(grey < 0.12, len(_HAIRS) - 1, hair_number)
  iris_number = jnp.floor(iris * jnp.array([5, 4, 2, 1])[of_group])
  has_long_hair = (long < 0.45).astype(jnp.float32)
  has_beard = (1.0 - has_long_hair) * (bearded < 0.45)
  return portrait_solid.Person(
    skin=skin * (0.88 + 0.24 * tone) * jnp.stack([1.0 + 0.05 * red, 1.0, 1.0]),
    hair=jnp.asarray(_HAIRS)[hair_number] * (0.75 + 0.5 * dark),
    iris=jnp.asarray(_IRISES)[iris_number.astype(jnp.int32)],
    hair_length=jnp.where(has_long_hair > 0, 0.25 + 0.7 * style, -0.2),
    beard=has_beard * (beard < 0.6) * (0.35 + 0.65 * beard),
    moustache=has_beard * (lip_hair < 0.7),
    glasses=(glasses < 0.2).astype(jnp.float32),
    **fields,
  )


def shot(
  seed: jax.Array | int, identity: jax.Array | int, number: jax.Array | int
) -> portrait_solid.Shot:
  """Draws how a picture of someone is taken.

  Args:
    seed: of the whole population.
    identity: number of the person, int32 >= 0.
    number: of the picture within the person's, int32 >= 0.

  Returns:
    Pose, light, expression, clothes and background.
  """
  key = jax.random.fold_in(_key(seed, _SHOT), identity)
  key = jax.random.fold_in(key, number)
  numbers = jax.random.uniform(key, (len(_SHOT_RANGES) + 6,))
  fields = _ranged(numbers, _SHOT_RANGES)
  colours = numbers[len(_SHOT_RANGES) :]
  # Most mouths are shut.
  fields["open_mouth"] = jnp.maximum(fields["open_mouth"], 0.0)
  return portrait_solid.Shot(
    background=0.25 + 0.6 * (0.6 * colours[0] + 0.4 * colours[:3]),
    clothes=0.1 + 0.7 * colours[3:],
    **fields,
  )


def picture(
  seed: jax.Array | int,
  identity: jax.Array | int,
  number: jax.Array | int,
  *,
  size: int,
  channels: int,
) -> jax.Array:
  """Draws one picture of one person; jit it and vmap it.

  Args:
    seed: of the whole population.
    identity: number of the person, int32 >= 0.
    number: of the picture, int32 >= 0.
    size: side in pixels.
    channels: 1 (grey) or 3 (RGB).

  Returns:
    uint8 [size, size, channels].

  Raises:
    ValueError: for another number of channels, or a size below 8.
  """
  if channels not in (1, 3) or size < 8:
    raise ValueError(
      f"channels must be 1 or 3 and size at least 8, got {channels}, {size}."
    )
  taken = shot(seed, identity, number)
  pixels = portrait.draw(person(seed, identity), taken, size=size)
  if channels == 1:
    weights = jnp.array([0.299, 0.587, 0.114]).reshape(1, 1, 3)
    pixels = jnp.sum(pixels * weights, axis=2, keepdims=True)
  key = jax.random.fold_in(_key(seed, _NOISE), identity)
  key = jax.random.fold_in(key, number)
  # Drawn flat: a draw in three dimensions takes XLA long to compile.
  grain = jax.random.normal(key, (pixels.size,)).reshape(pixels.shape)
  pixels = jnp.clip(pixels + taken.noise * grain, 0.0, 1.0)
  return jnp.round(255.0 * pixels).astype(jnp.uint8)


def pictures(
  seed: jax.Array | int,
  identities: ArrayLike,
  numbers: ArrayLike,
  *,
  size: int,
  channels: int,
) -> jax.Array:
  """Draws pictures; pure, for use inside a jitted function.

  Batch meaning: rows are independent.

  Args:
    seed: of the whole population.
    identities: number of the person of each, int32 [B].
    numbers: of each picture within the person's, int32 [B].
    size: side in pixels.
    channels: 1 (grey) or 3 (RGB).

  Returns:
    uint8 [B, size, size, channels].

  Raises:
    ValueError: as `picture`.
  """
  one = functools.partial(picture, seed, size=size, channels=channels)
  return jax.vmap(one)(jnp.asarray(identities), jnp.asarray(numbers))


@functools.cache
def _drawer(size: int, channels: int) -> Callable[..., jax.Array]:
  draw = functools.partial(pictures, size=size, channels=channels)
  return jax.jit(draw)


def make_faces(
  num_people: int,
  images_per_person: int,
  *,
  size: int = 64,
  channels: int = 1,
  seed: int = 0,
) -> SyntheticFaces:
  """Draws a whole data set into memory.

  Args:
    num_people: identities 0..num_people - 1.
    images_per_person: pictures 0.. of each.
    size: side in pixels.
    channels: 1 (grey) or 3 (RGB).
    seed: of the whole population.

  Returns:
    The faces, in (person, picture) order.
  """
  people, numbers = np.indices((num_people, images_per_person), np.int32)
  people, numbers = people.reshape(-1), numbers.reshape(-1)
  images = np.empty((len(people), size, size, channels), np.uint8)
  draw = _drawer(size, channels)
  for first in range(0, len(people), _BLOCK):
    rows = np.arange(first, first + _BLOCK) % len(people)
    block = np.asarray(draw(seed, people[rows], numbers[rows]))
    images[first : first + _BLOCK] = block[: len(people) - first]
  names = tuple(f"person{identity}" for identity in range(num_people))
  return SyntheticFaces(images, people, names)


def load(config: ml_collections.ConfigDict, image_size: int) -> sets.DataSet:
  """Draws the data set that a config asks for, split by people.

  The test people are a quarter of all, those that `fold` says, with the same
  number of each group; the first of the others are for validation.

  Args:
    config: the `dataset` part of a training config.
    image_size: side in pixels.

  Returns:
    The faces and the people of each split.

  Raises:
    errors.UserError: for a field out of range.
  """
  blocks = np.arange(config.num_people) // NUM_GROUPS
  test = np.flatnonzero(blocks % _FOLDS == config.fold)
  rest = np.flatnonzero(blocks % _FOLDS != config.fold)
  for name, right, wanted in (
    ("num_people", config.num_people >= 8, "at least 8"),
    ("images_per_person", config.images_per_person >= 2, "at least 2"),
    ("channels", config.channels in (1, 3), "1 or 3"),
    ("fold", 0 <= config.fold < _FOLDS, f"0 to {_FOLDS - 1}"),
    (
      "num_validation",
      0 <= config.num_validation <= len(rest) - 2,
      f"0 to {len(rest) - 2}, so that two people are left to train on",
    ),
  ):
    if not right:
      raise errors.UserError(
        f"config.dataset.{name} must be {wanted} with config.dataset.name="
        f'"synthetic", got {config[name]}.'
      )
  faces = make_faces(
    config.num_people,
    config.images_per_person,
    size=image_size,
    channels=config.channels,
  )
  people = [tuple(part.tolist()) for part in
            np.split(rest, [config.num_validation])]  # fmt: skip
  return sets.DataSet(faces, people[1], people[0], tuple(test.tolist()))
