"""The resident feed: a split that lives on the device as uint8.

Sampling, gather and augmentation then run inside the jitted step, and the
host has nothing to do between steps.
"""

import jax
import numpy as np
from flax import struct

from facesiam_jax import sampling


@struct.dataclass
class Resident:
  """A split, ready for `parallel.replicate`.

  Attributes:
    images: uint8 [N, H, W, C].
    identity_ids: person of each image, numbered 0..M-1 in the order of the
      ids that were given, int32 [N].
    index: the images grouped by identity.
  """

  images: jax.Array | np.ndarray
  identity_ids: jax.Array | np.ndarray
  index: sampling.IdentityIndex


def make_resident(images: np.ndarray, identity_ids: np.ndarray) -> Resident:
  """Builds the feed of a split from its arrays, on the host.

  Args:
    images: uint8 [N, H, W, C].
    identity_ids: integers [N].

  Returns:
    The split; its images are still on the host.

  Raises:
    ValueError: if the images are not uint8 [N, H, W, C], N differs or is 0.
  """
  images = np.asarray(images)
  if images.dtype != np.uint8 or images.ndim != 4:
    raise ValueError(
      f"images must be uint8 [N, H, W, C], got {images.dtype} {images.shape}."
    )
  if images.shape[:1] != np.shape(identity_ids):
    raise ValueError(
      f"there are {images.shape[0]} images but identity_ids has shape "
      f"{np.shape(identity_ids)}."
    )
  index = sampling.index_identities(identity_ids)
  numbers = np.unique(identity_ids, return_inverse=True)[1]
  return Resident(images, numbers.astype(np.int32), index)
