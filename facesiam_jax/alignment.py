"""Faces turned, scaled and moved to where a network expects them.

Pure functions: the similarity transform that fits landmarks to a template, and
the bilinear warp that follows it. Points are (x, y) in pixels with (0, 0) at
the outer corner of the first pixel, whose centre is (0.5, 0.5); places in a
template are parts of its side, so that a face keeps its framing at any size.

Detectors give one of three kinds of landmarks, each the picture's left first:
  "five": centres of both eyes, tip of the nose, both mouth corners, as ArcFace;
  "corners": outer and inner corner of the right eye, outer and inner corner of
    the left eye, base of the nose, in the order of dlib's 5-point predictor;
  "eyes": both pupils.
Corners are not ArcFace's five: an eye's centre is the midpoint of its corners,
but the nose's base lies below its tip, and there is no mouth. A template has a
place for each of the three kinds instead, taken from one mean face.

References: Umeyama 1991, Least-squares estimation of transformation parameters
between two point patterns, IEEE PAMI 13(4); Deng et al. 2019, ArcFace (its
template); King 2009, Dlib-ml (its mean face, and chips with padding).
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from facesiam_jax import warping

KINDS = {"five": 5, "corners": 5, "eyes": 2}

# dlib's mean face; 0 and 1 are the sides of a box without padding. The eye
# centres are the means of the six points that dlib has around each eye.
_MEAN_FIVE = (
  (0.2254918, 0.2159903),
  (0.7547613, 0.2159903),
  (0.490127, 0.515625),
  (0.254149, 0.780233),
  (0.726104, 0.780233),
)
_MEAN_CORNERS = (
  (0.8595674595992, 0.2134981538014),
  (0.6460604764104, 0.2289674387677),
  (0.1205750620789, 0.2137274526848),
  (0.3340850613712, 0.2290642403242),
  (0.4901123135679, 0.6277975316475),
)
_DLIB_PADDING = 0.25
# ArcFace's template in its 112 pixels, where whole numbers are pixel centres.
_ARCFACE_FIVE = (
  (38.2946, 51.6963),
  (73.5318, 51.5014),
  (56.0252, 71.7366),
  (41.5493, 92.3655),
  (70.7299, 92.2041),
)

# 1 4 6 4 1: halves an image without aliasing.
_BINOMIAL = np.array([1, 4, 6, 4, 1]) / 16


@dataclasses.dataclass(frozen=True)
class Template:
  """Where the landmarks of a face lie in an aligned picture.

  Attributes:
    size: side of the picture that networks with this template take, pixels.
    places: kind of landmarks to their places, float64 [N, 2], parts of the
      side.
    fits_image: whether the squared distances are least in the image (as dlib
      does) or in the template (as insightface does): the scales differ by the
      squared correlation of both.
  """

  size: int
  places: dict[str, np.ndarray]
  fits_image: bool


def _carried(
  points: np.ndarray, start: np.ndarray, end: np.ndarray
) -> np.ndarray:
  """Moves points by the similarity that takes `start` to `end`."""
  z, w, p = (a @ np.array([1, 1j]) for a in (start, end, points))
  centred = z - z.mean()
  factor = np.vdot(centred, w - w.mean()) / np.vdot(centred, centred).real
  moved = factor * (p - z.mean()) + w.mean()
  return np.stack([moved.real, moved.imag], axis=-1)


def _template(size: int, five: np.ndarray, *, fits_image: bool) -> Template:
  corners = _carried(np.array(_MEAN_CORNERS), np.array(_MEAN_FIVE), five)
  places = {"five": five, "corners": corners, "eyes": five[:2]}
  return Template(size, places, fits_image)


TEMPLATES: dict[str, Template] = {
  "arcface_112": _template(
    112, (np.array(_ARCFACE_FIVE) + 0.5) / 112, fits_image=False
  ),
  "dlib_150": _template(
    150,
    (np.array(_MEAN_FIVE) + _DLIB_PADDING) / (1 + 2 * _DLIB_PADDING),
    fits_image=True,
  ),
}


def _complex(points: ArrayLike) -> jax.Array:
  points = jnp.asarray(points)
  if not jnp.issubdtype(points.dtype, jnp.floating):
    points = points.astype(jnp.float32)
  return lax.complex(points[..., 0], points[..., 1])


def _as_matrix(factor: jax.Array, shift: jax.Array) -> jax.Array:
  """Returns z -> factor z + shift, of complex z = x + iy, as [..., 2, 3]."""
  rows = (
    (factor.real, -factor.imag, shift.real),
    (factor.imag, factor.real, shift.imag),
  )
  return jnp.stack([jnp.stack(row, axis=-1) for row in rows], axis=-2)


def umeyama(source: ArrayLike, target: ArrayLike) -> jax.Array:
  """Fits the similarity transform that takes one set of points to another.

  Turn, scale and shift, no reflection, that minimise
    sum over points of |matrix (x, y, 1) - target|^2.
  In the plane, with points as complex numbers z and w, that is exactly
    w ~ a z + b,  a = sum(conj(z - mean) (w - mean)) / sum(|z - mean|^2).
  Batch meaning: leading axes are independent.

  Args:
    source: points (x, y), float [..., N, 2], N >= 1.
    target: their places, float [..., N, 2].

  Returns:
    [[s cos, -s sin, x], [s sin, s cos, y]] that acts on columns (x, y, 1),
    float [..., 2, 3].

  Raises:
    ValueError: if the shapes differ or are not [..., N, 2] with N >= 1.

  Degenerate input: one point, or source points that coincide, tell neither
  turn nor scale: those are then 0 and 1, and the gradient stays finite. Target
  points that coincide give scale 0. Points on a line are no special case.
  References: Umeyama 1991, eq. 40-42, for two dimensions.
  """
  shapes = jnp.shape(source), jnp.shape(target)
  if shapes[0] != shapes[1] or shapes[0][-1:] != (2,) or 0 in shapes[0][-2:]:
    raise ValueError(
      "source and target must both be [..., N, 2] with N >= 1, got shapes "
      f"{shapes[0]} and {shapes[1]}."
    )
  if len(shapes[0]) < 2:
    raise ValueError(f"points must be [..., N, 2], got shape {shapes[0]}.")
  z, w = _complex(source), _complex(target)
  z_mean, w_mean = z.mean(-1, keepdims=True), w.mean(-1, keepdims=True)
  z, w = z - z_mean, w - w_mean
  spread = (z.real**2 + z.imag**2).sum(-1)
  # Rounding of the mean leaves coinciding points a little apart.
  size = (z_mean.real**2 + z_mean.imag**2)[..., 0]
  tiny = (4 * jnp.finfo(spread.dtype).eps) ** 2 * size
  known = spread > z.shape[-1] * tiny
  factor = (jnp.conj(z) * w).sum(-1) / jnp.where(known, spread, 1)
  factor = jnp.where(known, factor, 1)
  return _as_matrix(factor, w_mean[..., 0] - factor * z_mean[..., 0])


def _parts(matrix: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Returns factor and shift of a similarity [..., 2, 3]."""
  column = lambda j: lax.complex(matrix[..., 0, j], matrix[..., 1, j])
  return column(0), column(2)


def invert(matrix: ArrayLike) -> jax.Array:
  """Inverts similarity transforms.

  Args:
    matrix: from `umeyama`, float [..., 2, 3].

  Returns:
    float [..., 2, 3].

  Degenerate input: of scale 0, which has no inverse, everything goes to (0, 0).
  """
  factor, shift = _parts(jnp.asarray(matrix))
  squared = factor.real**2 + factor.imag**2
  known = squared > 0
  back = jnp.conj(factor) / jnp.where(known, squared, 1)
  back = jnp.where(known, back, 0)
  return _as_matrix(back, -back * shift)


def transform(matrix: ArrayLike, points: ArrayLike) -> jax.Array:
  """Moves points by similarity transforms.

  Args:
    matrix: float [..., 2, 3].
    points: (x, y), float [..., N, 2].

  Returns:
    float [..., N, 2].
  """
  factor, shift = _parts(jnp.asarray(matrix))
  moved = factor[..., None] * _complex(points) + shift[..., None]
  return jnp.stack([moved.real, moved.imag], axis=-1)


def to_image(
  landmarks: ArrayLike, template: str, *, kind: str = "five", size: int
) -> jax.Array:
  """Finds the transform from an aligned picture to the photo.

  Args:
    landmarks: in the photo, (x, y) in pixels, float [..., N, 2].
    template: name in `TEMPLATES`.
    kind: of the landmarks, in `KINDS`.
    size: side of the aligned picture in pixels, > 0.

  Returns:
    float [..., 2, 3], which takes pixels of the picture to those of the photo.

  Raises:
    ValueError: for an unknown template or kind, or another number of points.

  Degenerate input: landmarks that coincide give scale 0.
  """
  if template not in TEMPLATES or kind not in KINDS:
    raise ValueError(
      f"template must be one of {', '.join(TEMPLATES)} and kind one of "
      f"{', '.join(KINDS)}, got {template!r} and {kind!r}."
    )
  landmarks = jnp.asarray(landmarks)
  if landmarks.shape[-2:] != (KINDS[kind], 2):
    raise ValueError(
      f"landmarks of kind {kind!r} must be [..., {KINDS[kind]}, 2], got "
      f"{landmarks.shape}."
    )
  entry = TEMPLATES[template]
  places = jnp.asarray(entry.places[kind] * size, jnp.float32)
  places = jnp.broadcast_to(places, landmarks.shape)
  if entry.fits_image:
    return umeyama(places, landmarks)
  return invert(umeyama(landmarks, places))


def halvings(matrix: ArrayLike, side: int, *, size: int) -> int:
  """Returns how often `warp` halves an image before it reads from it.

  Args:
    matrix: one of those of `warp`, not traced, [2, 3].
    side: the longer side of the image in pixels.
    size: side of the picture in pixels, > 0.
  """
  scale = float(np.hypot(*np.asarray(matrix)[:, 0]))
  return min(int(math.log2(max(scale, 1.0))), _most_halvings(side, size))


def _most_halvings(side: int, size: int) -> int:
  """Returns how often to halve until an image is at most twice the size."""
  return max(0, math.ceil(math.log2(side / (2 * size)))) if side else 0


def warp(
  images: ArrayLike,
  matrices: ArrayLike,
  *,
  size: int,
  level: int | None = None,
) -> jax.Array:
  """Cuts a picture out of each image along a similarity transform, bilinearly.

  Where the picture is smaller than what it shows, the image is first halved,
  with a binomial filter, as long as the transform still reduces by two or more:
  bilinear reading alone would skip pixels. Beyond the image is black.
  Differentiable in images and matrices (in the latter up to where the number of
  halvings changes). Batch meaning: rows are independent.

  Args:
    images: [B, H, W, C], any range.
    matrices: from pixels of the picture to pixels of the image, [B, 2, 3].
    size: side of the pictures in pixels, > 0.
    level: how often to halve, from `halvings`; None finds it for each image,
      which is twice the work to trace and, of large images, to compute.

  Returns:
    float32 [B, size, size, C].

  Raises:
    ValueError: if the ranks or the batch sizes are wrong.

  Degenerate input: a transform of scale 0 fills the picture with one point.
  """
  images = jnp.asarray(images, jnp.float32)
  matrices = jnp.asarray(matrices, jnp.float32)
  if images.ndim != 4 or matrices.shape != (images.shape[0], 2, 3):
    raise ValueError(
      "images must be [B, H, W, C] and matrices [B, 2, 3], got "
      f"{images.shape} and {matrices.shape}."
    )
  most = _most_halvings(max(images.shape[1:3]), size)
  levels = [images]
  for _ in range(most if level is None else level):
    levels.append(_halved(levels[-1]))
  if level is not None:
    cut = lambda image, matrix: _cut(image, matrix, size=size, level=level)
    return jax.vmap(cut)(levels[-1], matrices)
  branches = [
    lambda image, matrix, n=n: _cut(image[n], matrix, size=size, level=n)
    for n in range(len(levels))
  ]

  def one(pyramid: list[jax.Array], matrix: jax.Array) -> jax.Array:
    # log2 of the scale, without its infinite slope at 0.
    squared = lax.stop_gradient((matrix[:, 0] ** 2).sum())
    level = 0.5 * jnp.log2(jnp.maximum(squared, 1.0))
    level = jnp.minimum(level, len(levels) - 1).astype(jnp.int32)
    return lax.switch(level, branches, pyramid, matrix)

  return jax.vmap(one)(levels, matrices)


def align(
  images: ArrayLike,
  landmarks: ArrayLike,
  template: str,
  *,
  kind: str = "five",
  size: int | None = None,
) -> jax.Array:
  """Aligns one face of each image to a template.

  Batch meaning: rows are independent.

  Args:
    images: [B, H, W, C], any range.
    landmarks: of the face in each image, (x, y) in pixels, float [B, N, 2].
    template: name in `TEMPLATES`.
    kind: of the landmarks, in `KINDS`.
    size: side of the result in pixels; None means the template's own.

  Returns:
    float32 [B, size, size, C], in the images' range; black beyond the image.

  Raises:
    ValueError: as `to_image` and `warp`.

  Degenerate input: landmarks that coincide fill the picture with one point.
  Example:
    >>> photo = jnp.zeros((1, 300, 200, 3))
    >>> eyes = jnp.array([[[80.0, 120.0], [120.0, 120.0]]])
    >>> align(photo, eyes, "arcface_112", kind="eyes").shape
    (1, 112, 112, 3)
  """
  if template in TEMPLATES and size is None:
    size = TEMPLATES[template].size
  matrices = to_image(landmarks, template, kind=kind, size=size or 1)
  return warp(images, matrices, size=size or 1)


def _halved(images: jax.Array) -> jax.Array:
  """Halves images; pixel i of the result lies at pixel 2 i of the image."""
  filters = jnp.asarray(_BINOMIAL, jnp.float32)
  for axis in (1, 2):
    length = images.shape[axis]
    padding = [(0, 0)] * 4
    padding[axis] = (2, 3)
    padded = jnp.pad(images, padding)
    taps = [
      lax.slice_in_dim(padded, k, k + length, 2, axis) * filters[k]
      for k in range(5)
    ]
    images = sum(taps[1:], start=taps[0])
  return images


def _cut(
  image: jax.Array, matrix: jax.Array, *, size: int, level: int
) -> jax.Array:
  """Reads [size, size, C] out of an image [h, w, C] halved `level` times."""
  centres = jnp.arange(size) + 0.5
  x, y = jnp.broadcast_arrays(centres[None, :], centres[:, None])
  (a, b, left), (c, d, top) = matrix
  # Pixel i of the halved image lies at pixel 2**level i of the whole one, whose
  # centre is half a pixel inside; one pixel of black lies around it.
  column = (a * x + b * y + left - 0.5) / 2**level + 1
  row = (c * x + d * y + top - 0.5) / 2**level + 1
  padded = jnp.pad(image, ((1, 1), (1, 1), (0, 0)))
  return warping.sample(padded[None], row[None], column[None])[0]
