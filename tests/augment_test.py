"""Tests of the random changes of face images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from facesiam_jax import augment

EVERYTHING = {
  "flip": 0.5,
  "rotation_deg": 15.0,
  "shear_deg": 8.0,
  "scale": 0.1,
  "stretch": 0.1,
  "shift": 0.05,
  "elastic": 0.04,
  "gain": 0.2,
  "offset": 0.1,
  "gradient": 0.3,
  "gamma": 0.3,
  "noise": 0.02,
  "erase": 0.4,
}


def _images(count=5, height=13, width=11, channels=1, seed=0):
  rng = np.random.default_rng(seed)
  images = rng.uniform(size=(count, height, width, channels))
  return jnp.asarray(images, jnp.float32)


def test_all_off_is_bit_identical():
  images = _images()
  same = augment.augment(images, jax.random.key(0), jnp.arange(5))
  np.testing.assert_array_equal(same, images)


@pytest.mark.parametrize("name", sorted(EVERYTHING))
def test_each_change_alone(name):
  """Each acts, keeps shape and range, and its rows stand alone."""
  images, rows = _images(6, 16, 12, 2), jnp.array([3, 0, 8, 5, 21, 4])
  key = jax.random.key(1)

  @jax.jit
  def change(some, key, some_rows):
    return augment.augment(some, key, some_rows, **{name: EVERYTHING[name]})

  changed = change(images, key, rows)
  assert changed.shape == images.shape and changed.dtype == jnp.float32
  assert float(changed.min()) >= 0 and float(changed.max()) <= 1
  assert not np.allclose(changed, images, atol=1e-3)
  some = change(images[2:4], key, rows[2:4])
  np.testing.assert_allclose(some, changed[2:4], atol=1e-6)
  elsewhere = change(images, key, rows + 1)
  assert not np.allclose(elsewhere, changed, atol=1e-3)
  other_key = change(images, jax.random.key(2), rows)
  assert not np.allclose(other_key, changed, atol=1e-3)


def test_same_on_any_number_of_devices_and_under_jit():
  images, rows, key = _images(8), jnp.arange(8), jax.random.key(0)
  strengths = {name: EVERYTHING[name] for name in ("flip", "shift", "noise")}

  def change(some, some_rows):
    return augment.augment(some, key, some_rows, **strengths)

  expected = jax.jit(change)(images, rows)
  np.testing.assert_allclose(change(images, rows), expected, atol=1e-5)
  spec = PartitionSpec("data")
  mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
  mapped = jax.shard_map(
    change,
    mesh=mesh,
    in_specs=(spec, spec),
    out_specs=spec,
    check_vma=False,
  )
  np.testing.assert_allclose(jax.jit(mapped)(images, rows), expected, atol=1e-6)


def test_switching_one_on_leaves_the_draws_of_others():
  images, rows, key = _images(), jnp.arange(5), jax.random.key(0)
  mirrored = augment.augment(images, key, rows, flip=0.5)
  brighter = augment.augment(images, key, rows, flip=0.5, offset=0.2)
  by_hand = augment.augment(mirrored, key, rows, offset=0.2)
  np.testing.assert_allclose(brighter, by_hand, atol=1e-6)


def test_flip_probability_and_direction():
  images = _images(1, 4, 4)
  many = jnp.broadcast_to(images, (2000, 4, 4, 1))
  rows = jnp.arange(2000)
  flipped = augment.augment(many, jax.random.key(0), rows, flip=0.3)
  mirrored = np.all(flipped == images[:, :, ::-1], axis=(1, 2, 3))
  assert np.all(mirrored | np.all(flipped == images, axis=(1, 2, 3)))
  # Four standard deviations.
  assert abs(mirrored.mean() - 0.3) < 0.041
  always = augment.augment(images, jax.random.key(0), rows[:1], flip=1.0)
  np.testing.assert_array_equal(always, images[:, :, ::-1])


def test_erase_covers_one_rectangle_of_the_stated_size():
  images = jnp.full((400, 30, 30, 1), 2.0) / 3
  rows, key = jnp.arange(400), jax.random.key(0)
  erased = augment.augment(images, key, rows, erase=0.4, erase_probability=0.5)
  covered = np.asarray(erased[..., 0] != images[..., 0])
  some = covered.any(axis=(1, 2))
  assert abs(some.mean() - 0.5) < 0.1
  for mask in covered[some]:
    down, across = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    assert len(down) <= 13 and len(across) <= 13
    block = mask[down[0] : down[-1] + 1, across[0] : across[-1] + 1]
    assert block.all()
  never = augment.augment(images, key, rows, erase=0.4, erase_probability=0.0)
  np.testing.assert_array_equal(never, images)


def test_light_stays_within_its_strengths():
  images, rows = jnp.full((500, 5, 5, 1), 0.5), jnp.arange(500)
  key = jax.random.key(0)
  centre = augment.augment(images, key, rows, gain=0.2)[:, 2, 2, 0]
  assert 0.4 <= float(centre.min()) < 0.41
  assert 0.59 < float(centre.max()) <= 0.6
  offset = augment.augment(images, key, rows, offset=0.1)[:, 0, 0, 0]
  assert 0.4 <= float(offset.min()) < 0.41
  fall = augment.augment(images, key, rows, gradient=0.3)
  np.testing.assert_allclose(fall[:, 2, 2], 0.5, atol=1e-6)
  edge = fall[:, 0, 2, 0]
  assert 0.35 <= float(edge.min()) < 0.36
  gamma = augment.augment(images, key, rows, gamma=1.0)[:, 0, 0, 0]
  np.testing.assert_allclose(
    [gamma.min(), gamma.max()], [0.25, 0.5**0.5], atol=0.01
  )


def test_empty_batch():
  images = jnp.zeros((0, 8, 8, 1))
  rows = jnp.zeros(0, jnp.int32)
  empty = augment.augment(images, jax.random.key(0), rows, **EVERYTHING)
  assert empty.shape == images.shape


@pytest.mark.parametrize(
  "strength",
  [
    {"flip": 1.5},
    {"erase_probability": 2.0},
    {"scale": -0.1},
    {"shear_deg": 90.0},
  ],
)
def test_refuses_strengths_out_of_range(strength):
  with pytest.raises(ValueError, match=next(iter(strength))):
    augment.augment(_images(), jax.random.key(0), jnp.arange(5), **strength)


def test_new_people_changes_a_group_as_one():
  """Equal images of a group stay equal; other groups and keys differ."""
  image = _images(1, 16, 16)
  images, key = jnp.tile(image, (6, 1, 1, 1)), jax.random.key(0)
  groups = jnp.array([0, 0, 1, 1, 7, 7])
  for strength in ({"reshape": 0.1}, {"shade": 0.3}):
    changed = augment.new_people(images, key, groups, **strength)
    np.testing.assert_array_equal(changed[::2], changed[1::2])
    assert not np.allclose(changed[0], changed[2], atol=1e-3)
    assert not np.allclose(changed[0], images[0], atol=1e-3)
    assert float(changed.min()) >= 0 and float(changed.max()) <= 1
    alone = augment.new_people(images[3:4], key, groups[3:4], **strength)
    np.testing.assert_allclose(alone[0], changed[3], atol=1e-6)
    other = augment.new_people(images, jax.random.key(1), groups, **strength)
    assert not np.allclose(changed, other, atol=1e-3)


def test_new_people_limits():
  images, groups = _images(3), jnp.arange(3)
  same = augment.new_people(images, jax.random.key(0), groups)
  np.testing.assert_array_equal(same, images)
  shaded = augment.new_people(
    jnp.full((200, 8, 8, 1), 0.5), jax.random.key(0), jnp.arange(200), shade=0.2
  )
  ratio = np.log(np.asarray(shaded) / 0.5)
  assert 0.19 < np.abs(ratio).max() <= 0.2 + 1e-5
  with pytest.raises(ValueError, match="shade"):
    augment.new_people(images, jax.random.key(0), groups, shade=-0.1)


def test_a_mirrored_image_is_posed_as_its_mirror_image():
  images = jax.random.uniform(jax.random.key(3), (12, 10, 14, 2))
  rows, key = jnp.arange(12), jax.random.key(4)
  pose = {"rotation_deg": 20.0, "shear_deg": 8.0, "shift": 0.1, "elastic": 0.05}
  always = augment.augment(images, key, rows, flip=1.0, **pose)
  never = augment.augment(images[:, :, ::-1], key, rows, **pose)
  np.testing.assert_allclose(always, never, atol=2e-5)
  assert np.abs(always - augment.augment(images, key, rows, **pose)).max() > 0.1
