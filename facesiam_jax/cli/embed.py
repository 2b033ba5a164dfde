"""`facesiam embed`: the embeddings of photos, as a file."""

import pathlib

from absl import flags

from facesiam_jax import errors
from facesiam_jax.cli import common, photos

HELP = "Write the embeddings of photos to a file."
USAGE = "facesiam embed --bundle=DIR --out=FILE.npz [flags] PHOTOS/ | PHOTO..."


def define_flags(flag_values: flags.FlagValues) -> None:
  """Defines the verb's flags."""
  common.define_bundle(flag_values)
  photos.define_flags(flag_values)
  flags.DEFINE_string(
    "out",
    None,
    "The file to write: arrays embeddings float32 [N, D], paths [N], the "
    "bundle's fingerprint, quality [N, Q] with quality_names [Q], and "
    "failed_paths and failed_reasons of photos in a folder without a usable "
    "face, for numpy.load. Required.",
    required=True,
    flag_values=flag_values,
  )


def _photos_below(folder: pathlib.Path) -> list[pathlib.Path]:
  from facesiam_jax.faces import photo

  found = sorted(
    path
    for path in folder.rglob("*")
    if path.suffix.lower() in photo.SUFFIXES
    and not path.is_dir()
    and not any(p.startswith(".") for p in path.relative_to(folder).parts)
  )
  if not found:
    raise errors.UserError(
      f"{folder} holds no image ({', '.join(photo.SUFFIXES)}); name another "
      "folder."
    )
  return found


def run(flag_values: flags.FlagValues, args: list[str]) -> int:
  """Embeds photos, and all those below folders, in sorted order."""
  if not args:
    raise common.UsageError("give a folder of photos, or photos.")
  import numpy as np

  from facesiam_jax import bundle as bundle_lib
  from facesiam_jax.faces import grading

  bundle = bundle_lib.load(flag_values.bundle)
  named = [pathlib.Path(arg) for arg in args]
  paths: list[pathlib.Path] = []
  for path in named:
    paths += _photos_below(path) if path.is_dir() else [path]
  # A photo that was named must be embedded; in a folder there may be others.
  strict = not any(path.is_dir() for path in named)
  faces = photos.load(paths, bundle, flag_values, strict=strict)
  embeddings = bundle.embed(faces.images)
  fields = grading.Quality._fields
  quality = np.array(grading.measure(faces.cuts), np.float32)
  reasons = [failure.reason for failure in faces.failures.values()]
  common.write_file(
    flag_values.out,
    lambda file: np.savez(
      file,
      embeddings=embeddings,
      paths=np.array([str(paths[row]) for row in faces.rows], np.str_),
      fingerprint=np.array(bundle.fingerprint),
      quality=quality.reshape(-1, len(fields)),
      quality_names=np.array(fields, np.str_),
      failed_paths=np.array(list(map(str, faces.failures)), np.str_),
      failed_reasons=np.array(reasons, np.str_),
    ),
  )
  photos.print_failures(faces.failures, len(paths), "embedded")
  print(f"Wrote {len(faces.rows)} embeddings to {flag_values.out}.")
  return 1 if faces.failures else 0
