"""Convolution and pooling by loops, in float64."""

import numpy as np


def conv(images, kernel, strides, pads):
  """Cross-correlates [B, H, W, C] with [kh, kw, C, O] window by window."""
  images, kernel = np.float64(images), np.float64(kernel)
  (top, bottom), (left, right) = pads
  batch, height, width, channels = images.shape
  grown = np.zeros(
    (batch, height + top + bottom, width + left + right, channels)
  )
  grown[:, top : top + height, left : left + width] = images
  kh, kw, _, features = kernel.shape
  rows = (grown.shape[1] - kh) // strides[0] + 1
  columns = (grown.shape[2] - kw) // strides[1] + 1
  out = np.zeros((batch, rows, columns, features))
  for b in range(batch):
    for y in range(rows):
      for x in range(columns):
        y0, x0 = y * strides[0], x * strides[1]
        patch = grown[b, y0 : y0 + kh, x0 : x0 + kw]
        for o in range(features):
          out[b, y, x, o] = np.sum(patch * kernel[..., o])
  return out


def conv_gradients(images, kernel, strides, pads, cotangent):
  """Spreads each output's cotangent back over its window and its kernel."""
  images, kernel = np.float64(images), np.float64(kernel)
  (top, bottom), (left, right) = pads
  batch, height, width, channels = images.shape
  shape = (batch, height + top + bottom, width + left + right, channels)
  grown, spread = np.zeros(shape), np.zeros(shape)
  grown[:, top : top + height, left : left + width] = images
  kernel_gradient = np.zeros(kernel.shape)
  kh, kw, _, _ = kernel.shape
  for b, y, x, o in np.ndindex(cotangent.shape):
    y0, x0 = y * strides[0], x * strides[1]
    window = (b, slice(y0, y0 + kh), slice(x0, x0 + kw))
    spread[window] += cotangent[b, y, x, o] * kernel[..., o]
    kernel_gradient[..., o] += cotangent[b, y, x, o] * grown[window]
  return spread[:, top : top + height, left : left + width], kernel_gradient


def max_pool_gradient(images, cotangent):
  """Gives each cotangent to the first maximum of its 2x2 block."""
  gradient = np.zeros(images.shape)
  for b, y, x, c in np.ndindex(cotangent.shape):
    best = None
    for i in (0, 1):
      for j in (0, 1):
        place = (b, 2 * y + i, 2 * x + j, c)
        if best is None or images[place] > images[best]:
          best = place
    gradient[best] += cotangent[b, y, x, c]
  return gradient
