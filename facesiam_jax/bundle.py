"""A model bundle: everything that recognising a face needs, in one folder.

bundle.json holds the encoder's name and arguments, the preprocessing, the
head, the thresholds and the training config; weights-*.npz the arrays. The
fingerprint covers what decides an embedding, so that two bundles with one
fingerprint fill interchangeable galleries.

Versions: 2 is written; 1 and 2 are read. Version 2 adds "alignment" (how faces
are aligned), "calibrated" (whether the thresholds were measured) and
"encoder_weights" (the fingerprint's part of the weights: without the head, so
that calibrating keeps a gallery). A bundle of version 1 is aligned as ours and
calibrated, and its fingerprint covers the head too. "detector" (what finds
faces) came later; without it the alignment's default is meant. The number grew,
although the keys have defaults, because a reader of version 1 would print a
probability for a bundle that has none.
"""

import dataclasses
import functools
import hashlib
import json
import math
import os
import pathlib
import zipfile
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np

import facesiam_jax
from facesiam_jax import encoders, errors, files, heads
from facesiam_jax.encoders import inference
from facesiam_jax.faces import detectors

VERSION = 2
# The framing of `facesiam_jax.faces.framing`.
OWN_ALIGNMENT = "olivetti"
_READABLE = (1, 2)
_DEFAULTS = {"alignment": OWN_ALIGNMENT, "calibrated": True}
# Templates by the names that earlier bundles, and all fingerprints, have.
_EARLIER = {"dlib150": "dlib_150", "arcface112": "arcface_112"}
_SPEC = "bundle.json"


def probability(logit: Any, prior: float = 0.5) -> np.ndarray:
  """Returns the probability of "same person" at a prior, float64, any shape."""
  logit = np.asarray(logit, np.float64) + math.log(prior / (1 - prior))
  return 1.0 / (1.0 + np.exp(-np.clip(logit, -700, 700)))


def _fingerprint(spec: dict[str, Any]) -> str:
  names = ("encoder", "input", "standardize", "views", "metric")
  decisive = {name: spec[name] for name in names}
  decisive["weights"] = spec.get("encoder_weights", spec["weights"])
  # Left out where it is ours, so that version 1's fingerprints stay.
  if spec["alignment"] != OWN_ALIGNMENT:
    earlier = {new: old for old, new in _EARLIER.items()}
    decisive["alignment"] = earlier.get(spec["alignment"], spec["alignment"])
  text = json.dumps(decisive, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()


@dataclasses.dataclass(frozen=True)
class Bundle:
  """A trained recogniser: faces in, embeddings, logits and decisions out.

  Attributes:
    spec: the contents of bundle.json.
    variables: {"encoder": Flax variables, "head": Flax variables}.
  """

  spec: dict[str, Any]
  variables: dict[str, Any]

  @functools.cached_property
  def fingerprint(self) -> str:
    """SHA-256, hex, of what decides an embedding."""
    return _fingerprint(self.spec)

  @property
  def input_size(self) -> tuple[int, int]:
    """Height and width of the faces `embed` takes, pixels."""
    return (self.spec["input"]["size"],) * 2

  @property
  def channels(self) -> int:
    """1 for grey faces, 3 for colour (RGB)."""
    return self.spec["input"]["channels"]

  @property
  def alignment(self) -> str:
    """Name of the template that faces are aligned to."""
    return self.spec["alignment"]

  @property
  def detector(self) -> str | None:
    """What finds faces for it; None where they must be cropped already.

    The one that it was calibrated with, else the default of its alignment. No
    part of the fingerprint: it decides which face is embedded, not how.
    """
    return self.spec.get("detector") or detectors.DEFAULTS.get(self.alignment)

  @property
  def framing(self) -> dict[str, Any]:
    """How its faces are cut out: arguments for `faces.photo.load_face`."""
    return {
      "size": self.input_size[0],
      "channels": self.channels,
      "alignment": self.alignment,
      "detector": self.detector,
    }

  @property
  def calibrated(self) -> bool:
    """Whether logits mean probabilities and thresholds have error rates."""
    return self.spec["calibrated"]

  @property
  def metric(self) -> str:
    """ "cosine" or "euclidean": how embeddings are compared."""
    return self.spec["metric"]

  @property
  def dim(self) -> int:
    """Length D of an embedding."""
    return self.spec["dim"]

  @property
  def thresholds(self) -> dict[str, dict[str, Any]]:
    """All thresholds by name, each with "logit", "fmr", "fnmr".

    Uncalibrated: "published" alone, with "distance" and no error rates; or
    nothing, where none is published.
    """
    return self.spec["thresholds"]

  @property
  def calibration(self) -> dict[str, Any]:
    """What is known of the people it was calibrated with; may be empty."""
    return self.spec.get("calibration", {})

  @property
  def threshold(self) -> float:
    """The logit from which on two faces are judged the same person.

    Infinite where no threshold is known: nobody is then judged the same.
    """
    name = self.spec["default_threshold"]
    return self.thresholds[name]["logit"] if name else math.inf

  @property
  def published_distance(self) -> float | None:
    """The published threshold as a distance; see `distances`."""
    return self.thresholds.get("published", {}).get("distance")

  @functools.cached_property
  def _head(self) -> Any:
    return heads.create(**_named(self.spec["head"]))

  @functools.cached_property
  def embedder(self) -> Any:
    """(encoder variables, uint8 [B, H, W, C]) -> float32 [B, D], not jitted."""
    encoder = encoders.create(**_named(self.spec["encoder"]))
    settings = inference.Settings(
      standardize=self.spec["standardize"],
      normalize=self.metric == "cosine",
      **self.spec["views"],
    )
    return lambda variables, images: inference.embed(
      encoder, variables, images, settings
    )

  @functools.cached_property
  def apply(self) -> Any:
    """`embedder`, jitted; inside a jit of your own call `embedder`."""
    options = encoders.compiler_options()
    return jax.jit(self.embedder, compiler_options=options)

  def embed(self, images: Any) -> np.ndarray:
    """Embeds faces.

    Args:
      images: uint8 [N, H, W] or [N, H, W, C] of the bundle's input size.

    Returns:
      float32 [N, D]; unit rows where the metric is "cosine".

    Raises:
      ValueError: if the images are of another dtype or size.
    """
    images = np.asarray(images)
    if images.ndim == 3:
      images = images[..., None]
    wanted = (*self.input_size, self.channels)
    if images.dtype != np.uint8 or images.shape[1:] != wanted:
      raise ValueError(
        f"images must be uint8 [N, {wanted[0]}, {wanted[1]}, {wanted[2]}], "
        f"got {images.dtype} {images.shape}."
      )
    blocks = [np.zeros((0, self.dim), np.float32)]
    size = inference.block_size()
    for first in range(0, len(images), size):
      block = images[first : first + size]
      padding = ((0, size - len(block)), (0, 0), (0, 0), (0, 0))
      embedded = self.apply(self.variables["encoder"], np.pad(block, padding))
      blocks.append(np.asarray(embedded)[: len(block)])
    return np.concatenate(blocks)

  @functools.cached_property
  def head(self) -> Any:
    """(float32 [P, D], [P, D]) -> logits [P], for use inside jit."""
    return lambda a, b: self._head.apply(self.variables["head"], a, b)

  @functools.cached_property
  def _compiled_head(self) -> Any:
    return jax.jit(self.head)

  def logits(self, a: Any, b: Any) -> np.ndarray:
    """Compares embeddings row by row.

    Args:
      a: embeddings, float [N, D].
      b: embeddings, float [N, D].

    Returns:
      Logits of "same person", float32 [N].

    Raises:
      ValueError: if the shapes differ.
    """
    return np.asarray(self._compiled_head(jnp.asarray(a), jnp.asarray(b)))

  def logits_matrix(self, a: Any, b: Any) -> np.ndarray:
    """Compares all embeddings of a with all of b.

    Args:
      a: embeddings, float [A, D].
      b: embeddings, float [B, D].

    Returns:
      Logits of "same person", float32 [A, B].
    """
    a, b = jnp.asarray(a, jnp.float32), jnp.asarray(b, jnp.float32)
    # Row against row by direct difference or product, so that an entry does
    # not depend on the size of the matrix around it.
    row = lambda x: self.head(jnp.broadcast_to(x, b.shape), b)
    if not a.shape[0]:
      return np.zeros((0, b.shape[0]), np.float32)
    return np.asarray(jax.lax.map(row, a))

  def logits_from_scores(self, scores: Any) -> np.ndarray:
    """Turns the scores of a gallery search into logits.

    Args:
      scores: cosines, or negative squared distances where the metric is
        "euclidean", float [...].

    Returns:
      Logits of "same person", float32 [...].
    """
    scores = jnp.asarray(scores, jnp.float32)
    if self.metric == "euclidean":
      scores = jnp.sqrt(jnp.maximum(-scores, 0.0))
    return np.asarray(
      self._head.apply(self.variables["head"], scores, method="from_scores")
    )

  def distances(self, logits: Any) -> np.ndarray:
    """Turns the logits of an uncalibrated bundle back into distances.

    Args:
      logits: of this bundle's head, float [...].

    Returns:
      Euclidean distances, or 1 - cosine where the metric is "cosine", float32
      [...], >= 0.

    Raises:
      ValueError: if the bundle is calibrated: its logit is then no distance.
    """
    if self.calibrated:
      raise ValueError("a calibrated bundle's logits are no distances.")
    # The head of an import falls by 1 for each unit of distance.
    score_of_equals = jnp.float32(0.0 if self.metric == "euclidean" else 1.0)
    highest = self._head.apply(
      self.variables["head"], score_of_equals, method="from_scores"
    )
    distances = np.asarray(highest) - np.asarray(logits, np.float32)
    return np.maximum(distances, 0.0)


def _named(entry: dict[str, Any]) -> dict[str, Any]:
  return {"name": entry["name"], **entry["args"]}


def save(
  path: str | os.PathLike[str], spec: dict[str, Any], variables: dict[str, Any]
) -> Bundle:
  """Writes a bundle; an older one in its place stays whole until the end.

  Args:
    path: folder to make or to replace the bundle of.
    spec: encoder, head, metric, input, standardize, views, dim, thresholds,
      default_threshold, calibration, config; alignment and calibrated where
      they are not ours and True; detector where it is not the alignment's
      default.
    variables: {"encoder": Flax variables, "head": Flax variables}.

  Returns:
    The bundle as it was written.

  Raises:
    OSError: if it cannot be written; what was there then stays.
  """
  folder = pathlib.Path(path)
  folder.mkdir(parents=True, exist_ok=True)
  flat = flax.traverse_util.flatten_dict(variables, sep="/")
  arrays = {name: np.asarray(value) for name, value in flat.items()}
  content = files.sha256_of_arrays(arrays)
  weights = folder / f"weights-{content[:16]}.npz"
  with files.replacing(weights) as file:
    np.savez(file, **arrays)  # type: ignore[arg-type]
  spec = {
    **_DEFAULTS,
    "detector": detectors.DEFAULTS.get(spec.get("alignment", OWN_ALIGNMENT)),
    **spec,
    "version": VERSION,
    "weights": content,
    "encoder_weights": files.sha256_of_arrays(
      {k: v for k, v in arrays.items() if k.startswith("encoder/")}
    ),
    "facesiam_jax": facesiam_jax.__version__,
  }
  # The bundle changes at this one rename: bundle.json names its weights.
  files.write(folder / _SPEC, json.dumps(spec, indent=2, sort_keys=True) + "\n")
  for old in folder.glob("weights-*.npz"):
    if old != weights:
      old.unlink()
  return Bundle(spec, variables)


def _read_spec(folder: pathlib.Path) -> dict[str, Any]:
  path = folder / _SPEC
  try:
    spec = json.loads(path.read_text(encoding="utf-8"))
  except (FileNotFoundError, NotADirectoryError) as error:
    raise errors.UserError(
      f"--bundle={folder} is not a model bundle ({_SPEC} is missing); give "
      "the folder that `facesiam train` or `facesiam import` wrote."
    ) from error
  except (json.JSONDecodeError, UnicodeDecodeError) as error:
    raise errors.UserError(
      f"{path} is damaged; copy the bundle anew or train it again."
    ) from error
  version = spec.get("version") if isinstance(spec, dict) else None
  if version not in _READABLE:
    raise errors.UserError(
      f"{path} is of bundle version {version!r} and this facesiam_jax reads "
      f"versions up to {VERSION}; install the facesiam_jax that wrote it, or "
      "train or import it again."
    )
  spec = {**_DEFAULTS, **spec}
  alignment = spec["alignment"]
  return spec | {"alignment": _EARLIER.get(alignment, alignment)}


def load(path: str | os.PathLike[str]) -> Bundle:
  """Reads a bundle and checks that it is sound.

  Args:
    path: the folder `save` or `facesiam train` wrote.

  Returns:
    The bundle.

  Raises:
    errors.UserError: if there is none, it is of an unknown version, or its
      weights are missing or damaged.
  """
  folder = pathlib.Path(path)
  spec = _read_spec(folder)
  weights = folder / f"weights-{spec['weights'][:16]}.npz"
  try:
    with np.load(weights, allow_pickle=False) as file:
      arrays = {name: file[name] for name in file.files}
  except FileNotFoundError as error:
    raise errors.UserError(
      f"{weights} is missing; copy the bundle anew, the whole folder."
    ) from error
  except (ValueError, EOFError, zipfile.BadZipFile, OSError) as error:
    raise errors.UserError(
      f"{weights} is damaged; copy the bundle anew or train it again."
    ) from error
  if files.sha256_of_arrays(arrays) != spec["weights"]:
    raise errors.UserError(
      f"{weights} is damaged (its SHA-256 is not the recorded one); copy the "
      "bundle anew or train it again."
    )
  variables = flax.traverse_util.unflatten_dict(arrays, sep="/")
  return Bundle(spec, {"encoder": {}, "head": {}, **variables})
