"""Where a face lies in the 64x64 pictures that the networks are trained on.

The framing is that of the Olivetti faces which scikit-learn serves: an upright
square with both pupils on one row, half its width apart, so that ears, hair and
background are mostly cut off. It was recovered from published print-outs of
those pictures, because the file itself needs the internet. The 36 corner values
of the first picture are reproduced from AT&T image s1/1, with no change of
brightness or contrast, with a root mean square error of 0.33 grey levels
(rounding alone gives 0.29), by a square of 73.2 pixels at (8.4, 31.4) turned by
1.6 degrees: that puts the pupils at columns 16 and 48 and row 17.

So scikit-learn's pictures are aligned by the eyes, image by image, and no fixed
box gives them all (the mean box misses the same 36 values by 9.7 levels, the
eyes found by `detect.find_eyes` by 2.8). Its eye positions are not public: the
pictures made here are framed alike, but are not the same pixels.
"""

import cv2
import numpy as np
from numpy.typing import ArrayLike

# Pupils in the framed picture as fractions (x, y) of its side, the picture's
# own left first: columns 16 and 48 and row 17 of 64.
EYES = ((0.25, 17 / 64), (0.75, 17 / 64))

# Mean pupils over the 400 AT&T images, in pixels of the 92x112 image with the
# outer corner of the first pixel at (0, 0).
MEAN_EYES = ((28.3, 51.7), (62.4, 52.2))

# Width of the Gaussian before the cubic interpolation, in output pixels: the
# value that reproduces scikit-learn's picture of s1/1.
_BLUR = 0.45


def align(image: np.ndarray, eyes: ArrayLike, *, size: int = 64) -> np.ndarray:
  """Cuts the framed face out of one image, given its two eyes.

  A similarity transform (shift, scale, turn) puts the eyes at `EYES`. The image
  is smoothed in proportion to the reduction first, so nothing aliases. What
  lies beyond the border repeats the border's pixels.

  Args:
    image: grey image, uint8 [H, W].
    eyes: pupils (x, y) in pixels, the image's left one first, float [2, 2];
      (0, 0) is the outer corner of the first pixel.
    size: side of the result in pixels.

  Returns:
    The framed face, uint8 [size, size].

  Raises:
    ValueError: if `image` is not uint8 [H, W], or if the eyes coincide or are
      not finite.
  """
  image = np.asarray(image)
  if image.ndim != 2 or image.dtype != np.uint8 or 0 in image.shape:
    raise ValueError(
      f"image must be uint8 [H, W], got {image.dtype} {image.shape}."
    )
  to_image = _frame_to_image(np.asarray(eyes, np.float64))
  pixels = (np.arange(size) + 0.5) / size
  frame = pixels[None, :] + 1j * pixels[:, None]
  points = to_image[0] * frame + to_image[1]
  # Only the neighbourhood of the face is smoothed: photos can be large.
  margin = 4 + 2 * abs(to_image[0]) / size
  image, corner = _cut_out(image, points, margin)
  points -= corner + (0.5 + 0.5j)
  smooth = cv2.GaussianBlur(
    image.astype(np.float32),
    (0, 0),
    sigmaX=float(_BLUR * abs(to_image[0]) / size),
    borderType=cv2.BORDER_REPLICATE,
  )
  framed = cv2.remap(
    smooth,
    points.real.astype(np.float32),
    points.imag.astype(np.float32),
    cv2.INTER_CUBIC,
    borderMode=cv2.BORDER_REPLICATE,
  )
  return np.clip(np.rint(framed), 0, 255).astype(np.uint8)


def crop_to_framing(
  images: np.ndarray, *, eyes: ArrayLike | None = None, size: int = 64
) -> np.ndarray:
  """Cuts the framed faces out of AT&T images.

  Args:
    images: grey images, uint8 [..., 112, 92].
    eyes: the pupils of each image as in `align`, float [..., 2, 2]; None cuts
      the same box out of every image, the one that frames `MEAN_EYES`.
    size: side of the result in pixels.

  Returns:
    Framed faces, uint8 [..., size, size].

  Raises:
    ValueError: if the images are not uint8 [..., 112, 92].
  """
  images = np.asarray(images)
  if images.dtype != np.uint8 or images.shape[-2:] != (112, 92):
    raise ValueError(
      f"images must be uint8 [..., 112, 92], got {images.dtype} {images.shape}."
    )
  batch = images.shape[:-2]
  eyes = np.broadcast_to(MEAN_EYES if eyes is None else eyes, (*batch, 2, 2))
  flat = images.reshape(-1, 112, 92)
  framed = np.zeros((len(flat), size, size), np.uint8)
  for i, pair in enumerate(eyes.reshape(-1, 2, 2)):
    framed[i] = align(flat[i], pair, size=size)
  return framed.reshape(*batch, size, size)


def _frame_to_image(eyes: np.ndarray) -> tuple[complex, complex]:
  """Returns (a, b) with image point = a * frame point + b, as complex numbers.

  Multiplying by a complex number turns and scales, so two pairs of points
  determine the similarity transform.
  """
  if eyes.shape != (2, 2) or not np.isfinite(eyes).all():
    raise ValueError(f"eyes must be finite, float [2, 2], got {eyes!r}.")
  left, right = (complex(x, y) for x, y in eyes)
  if abs(right - left) < 1e-3:
    raise ValueError(f"The two eyes coincide: {eyes.tolist()}.")
  frame_left, frame_right = (complex(x, y) for x, y in EYES)
  scale = (right - left) / (frame_right - frame_left)
  return scale, left - scale * frame_left


def _cut_out(
  image: np.ndarray, points: np.ndarray, margin: float
) -> tuple[np.ndarray, complex]:
  """Returns the part of the image around the points and its corner."""
  height, width = image.shape
  left = int(np.clip(points.real.min() - margin, 0, width - 1))
  top = int(np.clip(points.imag.min() - margin, 0, height - 1))
  right = int(np.clip(points.real.max() + margin, left + 1, width))
  bottom = int(np.clip(points.imag.max() + margin, top + 1, height))
  return image[top:bottom, left:right], complex(left, top)
