"""Pooling and depthwise convolution by loops, in float64."""

import numpy as np


def _windows(images, window, stride, padding, fill):
  """Yields (b, y, x) of the result and the window of pixels it reads."""
  images = np.float64(images)
  sides = ((0, 0), (padding, padding), (padding, padding), (0, 0))
  grown = np.pad(images, sides, constant_values=fill)
  batch, height, width, _ = grown.shape
  for b in range(batch):
    for y, y0 in enumerate(range(0, height - window[0] + 1, stride)):
      for x, x0 in enumerate(range(0, width - window[1] + 1, stride)):
        yield (b, y, x), (y0, x0), grown[b, y0:, x0:][: window[0], : window[1]]


def _empty(images, window, stride, padding):
  batch, height, width, channels = images.shape
  h = (height + 2 * padding - window[0]) // stride + 1
  w = (width + 2 * padding - window[1]) // stride + 1
  return np.zeros((batch, h, w, channels))


def max_pool(images, window, stride, padding):
  out = _empty(images, window, stride, padding)
  for place, _, pixels in _windows(images, window, stride, padding, -np.inf):
    out[place] = pixels.max(axis=(0, 1))
  return out


def max_pool_gradient(images, cotangent, window, stride, padding):
  """The first maximum in reading order takes all."""
  gradient = np.zeros(images.shape)
  for place, (y0, x0), pixels in _windows(
    images, window, stride, padding, -np.inf
  ):
    for c in range(images.shape[-1]):
      i, j = divmod(int(np.argmax(pixels[..., c])), window[1])
      target = (place[0], y0 + i - padding, x0 + j - padding, c)
      gradient[target] += cotangent[(*place, c)]
  return gradient


def avg_pool(images, window, stride):
  out = _empty(images, window, stride, 0)
  for place, _, pixels in _windows(images, window, stride, 0, 0):
    out[place] = pixels.mean(axis=(0, 1))
  return out


def depthwise(images, kernel, stride, padding):
  out = _empty(images, kernel.shape[:2], stride, padding)
  kernel = np.float64(kernel)[:, :, 0]
  for place, _, pixels in _windows(
    images, kernel.shape[:2], stride, padding, 0
  ):
    out[place] = (pixels * kernel).sum(axis=(0, 1))
  return out


def depthwise_gradients(images, kernel, cotangent, stride, padding):
  """Gradients with respect to the images and the kernel."""
  for_kernel = np.zeros(kernel.shape)
  batch, height, width, channels = images.shape
  spread = np.zeros(
    (batch, height + 2 * padding, width + 2 * padding, channels)
  )
  kh, kw = kernel.shape[:2]
  for place, (y0, x0), pixels in _windows(images, (kh, kw), stride, padding, 0):
    for_kernel[:, :, 0] += pixels * cotangent[place]
    spread[place[0], y0 : y0 + kh, x0 : x0 + kw] += (
      np.float64(kernel)[:, :, 0] * cotangent[place]
    )
  inside = slice(padding, padding + height), slice(padding, padding + width)
  return spread[:, *inside], for_kernel
