"""Gabor magnitudes and one linear layer: an encoder for few training people.

The filters are fixed, so a handful of people is enough to learn the rest: the
layer is fitted in closed form by within-class whitening (training/whitening.py)
or trained by gradients like any other.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax

# Standard deviation of the Gaussian envelope in wavelengths: one octave.
_BANDWIDTH = 0.56
_HIGHEST = lax.Precision.HIGHEST


def _centres(size: int, spacing: int) -> np.ndarray:
  """Middles of consecutive blocks of `spacing` pixels."""
  return np.arange((spacing - 1) / 2, size, spacing)


def _oscillation(
  size: int, spacing: int, wavelength: float, cosine: float
) -> np.ndarray:
  """One axis of a Gabor filter, evaluated at every block: [out, size].

  A Gabor filter with a round envelope is a product of a function of y and one
  of x, so filtering is a matrix product along each axis. Beyond the border
  the picture is mirrored, which is folded into the matrix.
  """
  sigma = _BANDWIDTH * wavelength
  centres = _centres(size, spacing)
  reach = int(np.ceil(3 * sigma))
  matrix = np.zeros((len(centres), size), np.complex128)
  for row, centre in enumerate(centres):
    places = int(np.floor(centre)) + np.arange(-reach, reach + 1)
    offsets = places - centre
    envelope = np.exp(-np.square(offsets / sigma) / 2)
    wave = np.exp(2j * np.pi / wavelength * cosine * offsets)
    folded = places % (2 * size)
    folded = np.where(folded < size, folded, 2 * size - 1 - folded)
    np.add.at(matrix[row], folded, envelope / envelope.sum() * wave)
  return matrix


def _pooling(size: int, spacing: int, cell: int) -> np.ndarray:
  """Gaussian averages around the middle of each cell, float32 [cells, out]."""
  apart = _centres(size, cell)[:, None] - _centres(size, spacing)[None, :]
  weights = np.exp(-np.square(apart / (cell / 2)) / 2)
  return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def _filters(
  size: int, spacing: int, wavelengths: tuple[float, ...], cosines: np.ndarray
) -> np.ndarray:
  """All filters along one axis: complex64 [filters, out, size]."""
  stacked = [
    _oscillation(size, spacing, wavelength, cosine)
    for wavelength in wavelengths
    for cosine in cosines
  ]
  return np.stack(stacked).astype(np.complex64)


def gabor_magnitudes(
  images: jax.Array,
  *,
  wavelengths: tuple[float, ...],
  num_orientations: int,
  cell: int,
  spacing: int = 2,
) -> jax.Array:
  """Measures how strongly each patch of a face oscillates, and which way.

    m_f(p) = |(x * g_f)(p)|,  g_f(q) = exp(-|q|^2 / (2 s^2) + 2 pi i u_f.q)
  with |u_f| = 1 / wavelength and s = 0.56 wavelengths, then a Gaussian average
  over each cell. Every map f of an image is brought to mean 0 and variance 1,
  which takes contrast and the fall of light out of it.
  Batch meaning: rows are independent.

  Args:
    images: standardised faces, float [B, H, W, C]; channels are measured apart.
    wavelengths: of the filters, in pixels, each >= 2.
    num_orientations: directions of each wavelength, equally spaced over half a
      turn, >= 1.
    cell: side of the cells averaged over, in pixels, a multiple of `spacing`.
    spacing: distance between the places where filters are evaluated, in
      pixels, >= 1.

  Returns:
    float32 [B, ceil(H / cell), ceil(W / cell), C * F] with F = number of
    wavelengths times orientations.

  Raises:
    ValueError: if the images are not [B, H, W, C] or are smaller than two
      cells, or a setting is out of range.

  Degenerate input: a flat image gives zeros.
  References: Wiskott et al. 1997, Face Recognition by Elastic Bunch Graph
    Matching (Gabor magnitudes of faces); Liu and Wechsler 2002, Gabor Feature
    Based Classification Using the Enhanced Fisher Linear Discriminant Model.
  """
  if images.ndim != 4:
    raise ValueError(f"images must be [B, H, W, C], not {images.shape}.")
  if not wavelengths or min(wavelengths) < 2 or num_orientations < 1:
    raise ValueError(
      "wavelengths must be 2 pixels or more and num_orientations at least 1,"
      f" not {wavelengths} and {num_orientations}."
    )
  if spacing < 1 or cell < spacing or cell % spacing:
    raise ValueError(
      f"cell must be a multiple of spacing, not {cell} and {spacing}."
    )
  height, width = images.shape[1:3]
  if min(height, width) < 2 * cell:
    raise ValueError(
      f"cells of {cell} pixels need images of {2 * cell} pixels or more, not"
      f" {images.shape}."
    )
  angles = np.pi * np.arange(num_orientations) / num_orientations
  down = _filters(height, spacing, wavelengths, np.sin(angles))
  along = _filters(width, spacing, wavelengths, np.cos(angles))
  multiply = lambda spec, *factors: jnp.einsum(
    spec, *factors, precision=_HIGHEST
  )
  images = images.astype(jnp.float32)
  real = multiply("byxc,fpx->bcfyp", images, along.real)
  imaginary = multiply("byxc,fpx->bcfyp", images, along.imag)
  product = lambda matrix, part: multiply("fqy,bcfyp->bcfqp", matrix, part)
  energy = jnp.square(
    product(down.real, real) - product(down.imag, imaginary)
  ) + jnp.square(product(down.real, imaginary) + product(down.imag, real))
  # Not exactly the root: its gradient at 0 is infinite.
  magnitudes = jnp.sqrt(energy + 1e-8)
  maps = multiply(
    "qy,bcfyx,px->bqpcf",
    _pooling(height, spacing, cell),
    magnitudes,
    _pooling(width, spacing, cell),
  )
  maps = maps.reshape(*maps.shape[:3], -1)
  maps = maps - jnp.mean(maps, axis=(1, 2), keepdims=True)
  variance = jnp.mean(jnp.square(maps), axis=(1, 2), keepdims=True)
  return maps * lax.rsqrt(variance + 1e-6)


class Gabor(nn.Module):
  """Gabor magnitudes of the face, then one dense layer.

  The embedding is not normalised. `features` gives what the layer, called
  "projection", reads; closed-form fitting needs no more.

  Attributes:
    wavelengths: of the filters, in pixels; half octaves by default.
    num_orientations: directions of each wavelength.
    cell: side of the cells averaged over, in pixels.
    dim: size of the embedding.
  """

  wavelengths: tuple[float, ...] = (5.66, 8.0, 11.31, 16.0, 22.63)
  num_orientations: int = 6
  cell: int = 8
  dim: int = 1024

  def setup(self) -> None:
    self.projection = nn.Dense(self.dim, precision=_HIGHEST)

  def features(self, images: jax.Array) -> jax.Array:
    """Returns what the projection reads, float32 [B, F]."""
    maps = gabor_magnitudes(
      images,
      wavelengths=self.wavelengths,
      num_orientations=self.num_orientations,
      cell=self.cell,
    )
    return maps.reshape(len(maps), -1)

  def __call__(
    self,
    images: jax.Array,
    *,
    train: bool = False,
    rows: jax.Array | None = None,
  ) -> jax.Array:
    """Embeds faces; see `ArticleCNN.__call__`. There is no dropout."""
    del train, rows
    return self.projection(self.features(images))
