"""Data sets that `facesiam prepare` knows, by name."""

import contextlib
import dataclasses
import importlib
import pathlib
import re
from typing import Any

from facesiam_jax import errors
from facesiam_jax.data import listing, place, prepared

# Name -> module with `opened(options, problems)`, and what it is.
SOURCES = {
  "celeba_identity": ("celeba", "CelebA with identities"),
  "cfp": ("cfp", "Celebrities in Frontal-Profile in the Wild"),
  "folder": ("folder", "any tree of <person>/<image>, also in a .tar or .zip"),
  "insightface_bin": ("insightface_bin", "insightface's .bin test sets"),
  "lfw": ("lfw", "Labeled Faces in the Wild"),
  "vggface2": ("vggface2", "VGGFace2"),
}
# Those whose people can be put into other splits than their own.
_SPLITTABLE = ("celeba_identity", "folder")


@dataclasses.dataclass(frozen=True)
class Options:
  """What a user may say about a data set.

  Attributes:
    manual_dir: where its files lie.
    variant: which of several versions, or a name of the user's own; "" leaves
      it to the data set.
    partition: file that says who is in which split, or None.
    num_validation: training people to make validation people, or None.
    num_test: training people to make test people, or None.
    alignment: folder: how the faces are framed, "" is "unknown";
      celeba_identity: the framing to cut them to, "" is its own.
  """

  manual_dir: pathlib.Path
  variant: str = ""
  partition: pathlib.Path | None = None
  num_validation: int | None = None
  num_test: int | None = None
  alignment: str = ""


def prepare(
  dataset: str,
  options: Options,
  *,
  data_dir: str | None = None,
  size: int | None = None,
  strict: bool = False,
) -> tuple[prepared.Prepared, listing.Problems]:
  """Prepares a data set; does nothing if it is there already.

  Args:
    dataset: a name of `SOURCES`.
    options: where its files are, and how it is split.
    data_dir: folder of tfds data sets; None means $TFDS_DATA_DIR, else
      ~/tensorflow_datasets.
    size: side to which the middle square of each image is scaled, pixels; None
      keeps the images as they are.
    strict: whatever would be left out is an error.

  Returns:
    The data set, and what was left out.

  Raises:
    UserError: for an unknown name, an option out of range or one the data set
      has no use for, files that are missing or damaged, no usable image, a
      folder that cannot be written; with strict, the first problem.
  """
  _check(dataset, options, size)
  root = place.data_root(data_dir, dataset)
  problems = listing.Problems(strict=strict)
  module = importlib.import_module(
    f"facesiam_jax.data.sources.{SOURCES[dataset][0]}"
  )
  # Loads tfds, which takes seconds: not before it is needed.
  from facesiam_jax.data import preparing

  with contextlib.ExitStack() as stack:
    variant, content = stack.enter_context(module.opened(options, problems))
    parts = [variant, str(size) if size else ""]
    suffix = "_".join(part for part in parts if part)
    name = f"{dataset}/{suffix}" if suffix else dataset
    return preparing.prepare(content, name, root, size=size), problems


def _check(dataset: str, options: Options, size: int | None) -> None:
  if dataset not in SOURCES:
    raise errors.UserError(
      f"--dataset={dataset} is not known; it can be olivetti,"
      f" {', '.join(sorted(SOURCES))}."
    )
  if size is not None and not 8 <= size <= 4096:
    raise errors.UserError(f"--size must be 8 to 4096 pixels, got {size}.")
  if not re.fullmatch("([A-Za-z0-9_][A-Za-z0-9_.-]*)?", options.variant):
    raise errors.UserError(
      f"--variant={options.variant} becomes a folder's name: use letters,"
      " digits, _, - and points."
    )
  if options.alignment and dataset not in _SPLITTABLE:
    raise errors.UserError(
      f"--alignment does not apply to {dataset}, whose framing is known: leave"
      " it away."
    )
  given: dict[str, Any] = {
    "partition": options.partition,
    "num_validation": options.num_validation,
    "num_test": options.num_test,
  }
  for flag, value in given.items():
    if value is not None and dataset not in _SPLITTABLE:
      raise errors.UserError(
        f"--{flag} does not apply to {dataset}, which has its own partition:"
        " leave it away."
      )
    if isinstance(value, int) and value < 0:
      raise errors.UserError(f"--{flag} must be at least 0, got {value}.")
