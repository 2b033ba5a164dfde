"""A bundle's network as a file for programs that have JAX and nothing of ours.

The file is what `jax.export` serialises: StableHLO with the weights inside,
and a batch dimension that is free:
  embed = jax.export.deserialize(open(file, "rb").read())
  embeddings = embed.call(faces)
with faces uint8 [B, H, W, C], embeddings float32 [B, D], B >= 1. Both ends need
the package flatbuffers, which JAX serialises with.
"""

from typing import Any

import jax
import jax.export
import jax.numpy as jnp

from facesiam_jax import errors
from facesiam_jax.bundle import Bundle

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


def stablehlo(
  bundle: Bundle, *, platforms: tuple[str, ...] = PLATFORMS
) -> bytes:
  """Serialises what `bundle.embed` computes, preprocessing included.

  Args:
    bundle: what to export.
    platforms: where the file is to run.

  Returns:
    The bytes of a file for `jax.export.deserialize`. JAX promises to read them
    for six months of its releases at least.

  Raises:
    UserError: if flatbuffers is not installed.
  """
  (size,) = jax.export.symbolic_shape("batch")
  faces = jax.ShapeDtypeStruct(
    (size, *bundle.input_size, bundle.channels), jnp.uint8
  )
  # Constants, so that the file needs no weights beside it.
  variables: Any = jax.tree.map(jnp.asarray, bundle.variables["encoder"])
  # By vmap an encoder sees one face, so that it may ask for its batch size.
  one = lambda face: bundle.embedder(variables, face[None])[0]
  function = jax.jit(jax.vmap(one))
  exported = jax.export.export(function, platforms=platforms)(faces)
  try:
    return bytes(exported.serialize())
  except ImportError as error:
    raise errors.UserError(
      "exporting needs the package flatbuffers; install it with `pip install "
      "flatbuffers`."
    ) from error
