"""Bilinear resampling by loops, in float64."""

import numpy as np


def bilinear(image, y, x):
  """Value of one [H, W, C] image at a point; beyond the border, the border."""
  height, width, _ = image.shape
  y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
  total = 0.0
  for i in range(height):
    for j in range(width):
      weight = max(0.0, 1 - abs(y - i)) * max(0.0, 1 - abs(x - j))
      if weight:
        total = total + weight * np.float64(image[i, j])
  return total


def warp(images, matrices, offsets, displacement):
  """Samples every output pixel at matrix (p - offset) + displacement."""
  out = np.zeros(images.shape)
  _, height, width, _ = images.shape
  centre = np.array([(height - 1) / 2, (width - 1) / 2])
  for b in range(len(images)):
    for y in range(height):
      for x in range(width):
        place = np.array([y, x]) - centre - np.float64(offsets[b])
        place = np.float64(matrices[b]) @ place + centre + displacement[b, y, x]
        out[b, y, x] = bilinear(images[b], *place)
  return out


def forward_matrix(rotation, shear, scale, stretch):
  """Input to output coordinates (y, x): enlarge, then shear, then rotate."""
  sizes = np.diag([scale * stretch, scale / stretch])
  sheared = np.array([[1.0, 0.0], [np.tan(shear), 1.0]])
  cos, sin = np.cos(rotation), np.sin(rotation)
  turned = np.array([[cos, -sin], [sin, cos]])
  return turned @ sheared @ sizes
