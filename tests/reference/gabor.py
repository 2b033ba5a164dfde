"""Gabor magnitudes by direct convolution in float64."""

import math

import numpy as np


def _mirrored(place, size):
  """Row or column of a picture that is mirrored at its borders."""
  place %= 2 * size
  return place if place < size else 2 * size - 1 - place


def _response(image, centre_y, centre_x, wavelength, angle):
  sigma = 0.56 * wavelength
  reach = math.ceil(3 * sigma)
  height, width = image.shape
  total = weight_y_sum = weight_x_sum = 0.0
  for offset in range(-reach, reach + 1):
    y = math.floor(centre_y) + offset - centre_y
    x = math.floor(centre_x) + offset - centre_x
    weight_y_sum += math.exp(-(y**2) / (2 * sigma**2))
    weight_x_sum += math.exp(-(x**2) / (2 * sigma**2))
  for row in range(-reach, reach + 1):
    for column in range(-reach, reach + 1):
      y = math.floor(centre_y) + row
      x = math.floor(centre_x) + column
      dy, dx = y - centre_y, x - centre_x
      envelope = math.exp(-(dy**2 + dx**2) / (2 * sigma**2))
      along = dx * math.cos(angle) + dy * math.sin(angle)
      wave = np.exp(2j * math.pi * along / wavelength)
      pixel = image[_mirrored(y, height), _mirrored(x, width)]
      total += pixel * envelope * wave
  return abs(total / (weight_y_sum * weight_x_sum))


def _centres(size, spacing):
  return [
    start + (spacing - 1) / 2 for start in range(0, size, spacing)
    if start + (spacing - 1) / 2 < size
  ]  # fmt: skip


def gabor_magnitudes(image, wavelengths, num_orientations, cell, spacing):
  """Maps [cells_y, cells_x, filters] of one grey image [H, W]."""
  rows, columns = (_centres(size, spacing) for size in image.shape)
  cell_rows, cell_columns = (_centres(size, cell) for size in image.shape)
  maps = []
  for wavelength in wavelengths:
    for turn in range(num_orientations):
      angle = math.pi * turn / num_orientations
      pooled = np.zeros((len(cell_rows), len(cell_columns)))
      dense = [
        [_response(image, y, x, wavelength, angle) for x in columns]
        for y in rows
      ]
      for i, cell_y in enumerate(cell_rows):
        for j, cell_x in enumerate(cell_columns):
          total = weights = 0.0
          for a, y in enumerate(rows):
            for b, x in enumerate(columns):
              apart = (y - cell_y) ** 2 + (x - cell_x) ** 2
              weight = math.exp(-apart / (2 * (cell / 2) ** 2))
              total += weight * dense[a][b]
              weights += weight
          pooled[i, j] = total / weights
      maps.append((pooled - pooled.mean()) / math.sqrt(pooled.var() + 1e-6))
  return np.stack(maps, axis=-1)
