"""Tests of fitting landmarks to a template and cutting the face out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from facesiam_jax import alignment
from tests.reference import alignment as reference

# Jitted, because op by op each shape is compiled op by op; that both agree is
# tested below.
_warp = jax.jit(alignment.warp, static_argnames=("size", "level"))
_align = jax.jit(alignment.align, static_argnames=("template", "kind", "size"))


def _matrix(scale, angle, shift):
  cos, sin = scale * np.cos(angle), scale * np.sin(angle)
  return np.array([[cos, -sin, shift[0]], [sin, cos, shift[1]]])


def _landmarks(count=6, seed=0, noise=4.0):
  """Five landmarks of `count` faces of many sizes, turned and moved."""
  rng = np.random.default_rng(seed)
  five = alignment.TEMPLATES["arcface_112"].places["five"] * 112
  faces = []
  for _ in range(count):
    scale = rng.uniform(0.4, 5)
    matrix = _matrix(scale, rng.uniform(-3, 3), rng.uniform(-80, 900, 2))
    moved = five @ matrix[:, :2].T + matrix[:, 2]
    faces.append(moved + rng.normal(size=(5, 2)) * noise * scale)
  return np.stack(faces).astype(np.float32)


def _picture(height=40, width=31, channels=3, seed=0):
  """A smooth picture, float32 [1, H, W, C] in 0..255."""
  rng = np.random.default_rng(seed)
  y, x = np.mgrid[:height, :width]
  waves = rng.uniform(0.05, 0.25, (2, channels))
  picture = np.sin(y[..., None] * waves[0] + x[..., None] * waves[1])
  return (127 + 120 * picture).astype(np.float32)[None]


def test_equals_umeyamas_svd():
  rng = np.random.default_rng(1)
  source = rng.normal(size=(7, 5, 2)) * 30 + (200, -50)
  target = rng.normal(size=(7, 5, 2)) * 9 + (3, 90)
  # Some pairs want a mirror image most, which is no similarity.
  target[3:] = source[3:] * (-1, 1) + rng.normal(size=(4, 5, 2))
  expected = [
    reference.umeyama(s, t) for s, t in zip(source, target, strict=True)
  ]
  got = alignment.umeyama(source.astype(np.float32), target.astype(np.float32))
  np.testing.assert_allclose(got, expected, atol=2e-3, rtol=1e-4)
  wrong = {
    "the other way": alignment.invert(alignment.umeyama(target, source)),
    "x and y swapped": alignment.umeyama(source[..., ::-1], target),
    "not centred": alignment.umeyama(source + 1, target),
    "mirrored": alignment.umeyama(source * (-1, 1), target),
  }
  for name, matrix in wrong.items():
    with pytest.raises(AssertionError, match="Mismatched"):
      np.testing.assert_allclose(matrix, expected, atol=2e-3, rtol=1e-4)
      pytest.fail(name)


@pytest.mark.parametrize("points", [2, 3, 5, 11])
def test_finds_the_very_transform(points):
  rng = np.random.default_rng(points)
  source = rng.uniform(0, 1000, (4, points, 2))
  matrices = np.stack(
    [
      _matrix(s, a, (30, -9))
      for s, a in zip((0.1, 1, 3, 7), (0, 1, -2, 3.1), strict=True)
    ]
  )
  target = source @ matrices[..., :2].swapaxes(1, 2) + matrices[:, None, :, 2]
  got = alignment.umeyama(source.astype(np.float32), target.astype(np.float32))
  np.testing.assert_allclose(got, matrices, rtol=1e-4, atol=2e-2)
  moved = alignment.transform(got, source.astype(np.float32))
  # 1e-4 pixels on a face a thousand pixels wide would be luck in float32.
  np.testing.assert_allclose(moved, target, atol=2e-3 * 7)


def test_a_tenth_of_a_thousandth_of_a_pixel():
  source = alignment.TEMPLATES["arcface_112"].places["five"] * 112
  target = _landmarks(3, noise=1.0)
  got = alignment.umeyama(
    jnp.broadcast_to(jnp.asarray(source, jnp.float32), target.shape), target
  )
  for matrix, points in zip(np.asarray(got), target, strict=True):
    exact = reference.umeyama(source, points)
    ours = source @ matrix[:, :2].T + matrix[:, 2]
    theirs = source @ exact[:, :2].T + exact[:, 2]
    np.testing.assert_allclose(ours, theirs, atol=3e-4)


def test_degenerate_points():
  same = np.full((1, 5, 2), 123.4, np.float32)
  other = _landmarks(1)
  matrix = alignment.umeyama(same, other)
  np.testing.assert_allclose(matrix[0, :, :2], np.eye(2), atol=1e-6)
  np.testing.assert_allclose(
    alignment.transform(matrix, same)[0, 0], other[0].mean(0), rtol=1e-5
  )
  matrix = alignment.umeyama(other, same)
  np.testing.assert_allclose(matrix[0, :, :2], 0, atol=1e-5)
  assert np.isfinite(alignment.invert(jnp.zeros((2, 3)))).all()
  one = alignment.umeyama(np.ones((1, 2), np.float32), np.zeros((1, 2)))
  np.testing.assert_allclose(one, [[1, 0, -1], [0, 1, -1]], atol=1e-6)
  # On a line: turn and scale are known.
  line = np.array([[0, 0], [1, 0], [3, 0]], np.float32)
  matrix = alignment.umeyama(line, line @ np.array([[0, 2], [-2, 0]]))
  np.testing.assert_allclose(matrix, [[0, -2, 0], [2, 0, 0]], atol=1e-5)


@pytest.mark.parametrize("value", [0.0, 7.5, 1e-20, 3e4])
def test_gradients_are_finite_at_coinciding_points(value):
  same = jnp.full((5, 2), value)
  other = jnp.asarray(_landmarks(1)[0])
  for function in (
    lambda p: alignment.umeyama(p, other),
    lambda p: alignment.umeyama(other, p),
    lambda p: alignment.invert(alignment.umeyama(other, p)),
    lambda p: alignment.to_image(p, "arcface_112", size=112),
    lambda p: alignment.to_image(p, "dlib_150", size=150),
  ):
    jacobian, value = jax.jit(lambda p, f=function: (jax.jacobian(f)(p), f(p)))(
      same
    )
    assert np.isfinite(jacobian).all() and np.isfinite(value).all()


def test_gradients_are_the_numerical_ones():
  points = jnp.asarray(_landmarks(2)) / 100
  for template in alignment.TEMPLATES:
    check_grads(
      jax.jit(lambda p, t=template: alignment.to_image(p, t, size=4)),
      (points,),
      order=1,
      modes=["fwd", "rev"],
      atol=2e-2,
      rtol=2e-2,
    )


def test_inverse_undoes():
  matrix = jnp.asarray(_matrix(2.5, 1.1, (30, -7)), jnp.float32)
  points = jnp.asarray(_landmarks(1)[0])
  back = alignment.transform(
    alignment.invert(matrix), alignment.transform(matrix, points)
  )
  np.testing.assert_allclose(back, points, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("scale", [0.3, 1.0, 1.7])
def test_warp_equals_loops(scale):
  picture = _picture()
  matrix = _matrix(scale, 0.4, (4.2, -3.1))
  expected = reference.warp(picture[0], matrix, 19)
  got = _warp(picture, matrix[None], size=19)
  np.testing.assert_allclose(got[0], expected, atol=2e-2)
  # The face reaches beyond the picture, where it is black.
  assert (expected == 0).all(axis=-1).any()
  for wrong in (
    _matrix(scale, -0.4, (4.2, -3.1)),
    _matrix(scale, 0.4, (4.7, -2.6)),
    matrix[::-1],
  ):
    with pytest.raises(AssertionError):
      got = _warp(picture, wrong[None], size=19)
      np.testing.assert_allclose(got[0], expected, atol=2e-2)


@pytest.mark.parametrize("scale", [2.0, 3.0, 5.5, 9.0])
def test_reduction_does_not_alias(scale):
  # Stripes of one pixel become an even grey; a smooth picture stays itself.
  stripes = np.zeros((1, 400, 400, 1), np.float32)
  stripes[:, :, ::2] = 200
  matrix = _matrix(scale, 0.0, (13, 17))[None]
  got = np.asarray(_warp(stripes, matrix, size=38))
  assert np.abs(got - 100).max() < 2
  ramp = np.broadcast_to(np.arange(400.0)[None, None, :, None], stripes.shape)
  got = _warp(ramp, matrix, size=38)[0, :, :, 0]
  inside = scale * (np.arange(38) + 0.5) + 13 - 0.5
  keep = inside < 380
  np.testing.assert_allclose(
    got[:, keep], np.broadcast_to(inside[keep], (38, keep.sum())), atol=1e-2
  )


def test_warp_is_the_same_in_company_and_jitted():
  pictures = np.concatenate([_picture(seed=s) for s in range(3)])
  matrices = np.stack(
    [_matrix(s, a, (3, 3)) for s, a in ((0.5, 0), (2.3, 1), (4.5, 2))]
  )
  together = _warp(pictures, matrices, size=7)
  for i in range(3):
    one = slice(i, i + 1)
    alone = alignment.warp(pictures[one], matrices[one], size=7)
    np.testing.assert_allclose(together[i], alone[0], atol=1e-3)


@pytest.mark.parametrize("scale", [0.5, 1.0, 1.99, 2.3, 4.5, 9.0, 40.0])
@pytest.mark.parametrize("side, size", [(38, 19), (39, 19), (160, 9), (1, 4)])
def test_halvings_are_those_of_warp(scale, side, size):
  picture = np.random.default_rng(0).uniform(
    0, 255, (1, side, side - side // 3)
  )
  picture, matrix = picture[..., None], _matrix(scale, 0.4, (1.0, 2.0))
  level = alignment.halvings(matrix, side, size=size)
  want = _warp(picture, matrix[None], size=size)
  got = _warp(picture, matrix[None], size=size, level=level)
  np.testing.assert_allclose(got, want, atol=1e-3)
  other = _warp(picture, matrix[None], size=size, level=level + 1)
  assert side < 9 or np.abs(other - want).max() > 1


def test_warp_is_differentiable():
  picture = jnp.asarray(_picture(12, 11, 1))
  matrix = jnp.asarray(_matrix(1.3, 0.3, (0.7, 1.1)), jnp.float32)[None]
  check_grads(
    lambda p: _warp(p, matrix, size=5),
    (picture / 255,), order=1, modes=["rev"], atol=1e-2, rtol=1e-2,
  )  # fmt: skip
  # Away from pixel borders bilinear reading is smooth; a small step stays.
  gradient = jax.grad(lambda m: _warp(picture, m, size=5)[0, 2, 2, 0])(matrix)
  for index in ((0, 0, 2), (0, 1, 2)):
    step = 1e-2
    up = _warp(picture, matrix.at[index].add(step), size=5)
    down = _warp(picture, matrix.at[index].add(-step), size=5)
    slope = (up - down)[0, 2, 2, 0] / (2 * step)
    np.testing.assert_allclose(gradient[index], slope, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("kind", list(alignment.KINDS))
@pytest.mark.parametrize("template", list(alignment.TEMPLATES))
def test_landmarks_land_on_the_template(template, kind):
  entry = alignment.TEMPLATES[template]
  matrix = _matrix(1.7, 0.5, (40, 60))
  places = entry.places[kind] * entry.size
  landmarks = places @ matrix[:, :2].T + matrix[:, 2]
  got = alignment.to_image(
    landmarks.astype(np.float32), template, kind=kind, size=entry.size
  )
  np.testing.assert_allclose(got, matrix, rtol=1e-4, atol=1e-2)
  # A light at each landmark shines at its place in the aligned picture.
  y, x = np.mgrid[:300, :280] + 0.5
  for n, (a, b) in enumerate(landmarks):
    light = 255 * np.exp(-((x - a) ** 2 + (y - b) ** 2) / 30)
    picture = np.asarray(
      _align(
        light[None, ..., None],
        landmarks[None].astype(np.float32),
        template,
        kind=kind,
      )
    )[0, ..., 0]
    row, column = np.unravel_index(picture.argmax(), picture.shape)
    assert np.hypot(column + 0.5 - places[n, 0], row + 0.5 - places[n, 1]) < 1


def test_framing_does_not_depend_on_the_size():
  five = alignment.TEMPLATES["dlib_150"].places["five"] * 150 + (20, 30)
  picture = _picture(200, 190)
  landmarks = jnp.asarray(five[None], jnp.float32)
  small = _align(picture, landmarks, "dlib_150", size=50)
  large = _align(picture, landmarks, "dlib_150", size=100)
  pooled = large.reshape(1, 50, 2, 50, 2, 3).mean(axis=(2, 4))
  assert np.abs(small - pooled)[:, 2:-2, 2:-2].mean() < 4
  # Half a pixel beside it would be seen.
  aside = jnp.roll(large, 1, axis=2)
  aside = aside.reshape(1, 50, 2, 50, 2, 3).mean(axis=(2, 4))
  difference = np.abs(small - pooled) - np.abs(small - aside)
  assert difference[:, 2:-2, 2:-2].mean() < -1


def test_arcface_is_insightfaces_crop():
  cv2 = pytest.importorskip("cv2")
  numbers = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366],
     [41.5493, 92.3655], [70.7299, 92.2041]]
  )  # fmt: skip
  rng = np.random.default_rng(0)
  picture = _picture(260, 240)
  for scale, angle in ((0.6, 0.0), (1.0, -0.4), (1.8, 0.3)):
    matrix = _matrix(scale, angle, (20, 30))
    # Whole numbers are pixel centres there.
    points = numbers @ matrix[:, :2].T + matrix[:, 2]
    points += rng.normal(size=(5, 2)) * 3
    forward = reference.umeyama(points, numbers)
    expected = cv2.warpAffine(picture[0], forward, (112, 112), borderValue=0)
    aligned = _align(
      picture, (points + 0.5)[None].astype(np.float32), "arcface_112"
    )
    # OpenCV rounds places to 1/32 of a pixel.
    assert np.abs(aligned[0] - expected).mean() < 0.3
    shifted = _align(picture, points[None].astype(np.float32), "arcface_112")
    assert np.abs(shifted[0] - expected).mean() > 0.6


def test_corners_in_arcfaces_template_come_from_the_mean_face():
  dlib, arcface = (alignment.TEMPLATES[n] for n in ("dlib_150", "arcface_112"))
  matrix = reference.umeyama(dlib.places["five"], arcface.places["five"])
  moved = dlib.places["corners"] @ matrix[:, :2].T + matrix[:, 2]
  np.testing.assert_allclose(arcface.places["corners"], moved, atol=1e-9)


@pytest.mark.parametrize(
  "call, match",
  [
    (lambda: alignment.umeyama(np.ones((5, 2)), np.ones((4, 2))), "shapes"),
    (lambda: alignment.umeyama(np.ones((0, 2)), np.ones((0, 2))), "N >= 1"),
    (lambda: alignment.umeyama(np.ones((5, 3)), np.ones((5, 3))), r"\[..., N"),
    (lambda: alignment.umeyama(np.ones(2), np.ones(2)), r"\[..., N, 2\]"),
    (lambda: alignment.to_image(np.ones((5, 2)), "oval", size=9), "dlib_150"),
    (
      lambda: alignment.to_image(
        np.ones((5, 2)), "dlib_150", kind="eyes", size=9
      ),
      r"\[..., 2, 2\]",
    ),
    (lambda: alignment.warp(np.ones((1, 5, 5)), np.ones((1, 2, 3)), size=2),
     r"\[B, H, W, C\]"),
  ],
)  # fmt: skip
def test_refuses(call, match):
  with pytest.raises(ValueError, match=match):
    call()
