"""What `facesiam evaluate --protocol` compares: embeddings by key."""

import pathlib
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from absl import flags

from facesiam_jax import errors
from facesiam_jax.cli import photos

if TYPE_CHECKING:
  import numpy as np

  from facesiam_jax.bundle import Bundle
  from facesiam_jax.evaluation import embedding_cache, protocol_data

_SHOWN = 20


def cached(
  flag_values: flags.FlagValues,
  bundle: "Bundle",
  fingerprint: str,
  compute: Any,
) -> "embedding_cache.Embedded":
  """Returns embeddings of images by their fingerprint, as the flags say."""
  from facesiam_jax import files
  from facesiam_jax.evaluation import embedding_cache

  folder = flag_values.cache or embedding_cache.default_folder()
  model = flag_values.detector_model
  what = {
    "bundle": bundle.fingerprint,
    "data": fingerprint,
    "detector": flag_values.detector or bundle.detector,
    "model": files.sha256(model) if model else None,
    "cropped": flag_values.cropped,
    "largest": flag_values.largest,
    "mirror": flag_values.mirror,
  }
  kept = None if folder == "none" else folder
  return embedding_cache.cached(kept, what, compute)


def embed_photos(
  flag_values: flags.FlagValues,
  bundle: "Bundle",
  folder: pathlib.Path,
  paths: list[str],
) -> "tuple[embedding_cache.Embedded, str]":
  """Returns embeddings of photos, and the fingerprint of these."""
  import numpy as np

  from facesiam_jax.evaluation import embedding_cache, protocol_data

  def compute() -> embedding_cache.Embedded:
    full: list[photos.Path] = [folder / path for path in paths]
    faces = photos.load(full, bundle, flag_values, strict=False)
    reasons = [
      faces.failures[path].reason if path in faces.failures else ""
      for path in full
    ]
    return embedding_cache.Embedded(
      embedding_cache.embed(bundle, faces.images, mirror=flag_values.mirror),
      np.array(faces.rows, np.int32),
      np.array(reasons, np.str_),
    )

  fingerprint = protocol_data.files_digest(folder, paths)
  return cached(flag_values, bundle, fingerprint, compute), fingerprint


def embed_images(
  flag_values: flags.FlagValues, bundle: "Bundle", images: Any, mark: str
) -> "np.ndarray":
  """Returns embeddings of framed faces, of the fingerprint `mark`."""
  import numpy as np

  from facesiam_jax.evaluation import embedding_cache

  def compute() -> embedding_cache.Embedded:
    found = embedding_cache.embed(bundle, images, mirror=flag_values.mirror)
    rows = np.arange(len(found), dtype=np.int32)
    return embedding_cache.Embedded(found, rows, np.full(len(found), ""))

  return cached(flag_values, bundle, mark, compute).embeddings


class Given:
  """Keys of images, their rows among embeddings, and what they are of."""

  def __init__(
    self,
    rows: "dict[str, int | None]",
    embeddings: "np.ndarray",
    fingerprint: str,
    reasons: dict[str, str],
  ) -> None:
    self.rows, self.embeddings = rows, embeddings
    self.fingerprint, self.reasons = fingerprint, reasons


def of_file(flag_values: flags.FlagValues, bundle: "Bundle | None") -> Given:
  """Reads a file of `facesiam embed`."""
  import zipfile

  import numpy as np

  from facesiam_jax import files
  from facesiam_jax.data import pair_files

  path = flag_values.embeddings
  try:
    # NumPy leaves a file open that it cannot read.
    with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
      embeddings, paths = file["embeddings"], file["paths"].tolist()
      failed = file["failed_paths"].tolist()
      reasons = file["failed_reasons"].tolist()
      made_by = str(file["fingerprint"])
  except (KeyError, ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
    raise errors.UserError(
      f"--embeddings={path} is missing, damaged or no file of `facesiam embed`."
    ) from error
  if bundle is not None and bundle.fingerprint != made_by:
    raise errors.UserError(
      f"--embeddings={path} was made by another bundle than --bundle."
    )
  everything = [name.replace("\\", "/") for name in (*paths, *failed)]
  rows: dict[str, int | None] = {
    key: place if place < len(paths) else None
    for key, place in pair_files.index_files(everything).items()
  }
  # Pairs may count from any folder above: the last parts of a path do.
  for place, name in enumerate(everything):
    parts = name.split("/")
    row = place if place < len(paths) else None
    for first in range(1, len(parts)):
      rows.setdefault("/".join(parts[first:]), row)
  told = dict(zip(failed, reasons, strict=True))
  return Given(rows, embeddings, files.sha256(path), told)


def of_folder(
  flag_values: flags.FlagValues,
  bundle: "Bundle",
  folder: pathlib.Path,
  wanted: list[str],
) -> Given:
  """Embeds the photos of a folder that are wanted, by key."""
  from facesiam_jax.data import pair_files
  from facesiam_jax.evaluation import protocol_data

  below = protocol_data.photos_below(folder)
  index = pair_files.index_files(below)
  used = sorted({index[key] for key in wanted if key in index})
  if not used:
    raise errors.UserError(
      f"{folder} holds none of the {len(wanted)} photos that the pairs name, "
      f"such as {wanted[0]}: give the folder that their names count from."
    )
  paths = [below[place] for place in used]
  found, mark = embed_photos(flag_values, bundle, folder, paths)
  row_of = {used[int(place)]: n for n, place in enumerate(found.rows)}
  rows = {key: row_of.get(index[key]) for key in wanted if key in index}
  reasons = {
    path: reason
    for path, reason in zip(paths, found.reasons.tolist(), strict=True)
    if reason
  }
  return Given(rows, found.embeddings, mark, reasons)


def refuse_missing(flag_values: flags.FlagValues, missing: list[str]) -> None:
  """Lists keys that are not there, and stops unless they may be missing."""
  for key in missing:
    print(f"missing: {key}", file=sys.stderr)
  if missing and not flag_values.allow_missing:
    shown = ", ".join(missing[:_SHOWN]) + (", ..." * (len(missing) > _SHOWN))
    raise errors.UserError(
      f"the pairs name {len(missing)} images that are not there ({shown}): put "
      "them there, or count their pairs as errors with --allow_missing."
    )


def for_pairs(
  flag_values: flags.FlagValues,
  bundle: "Bundle | None",
  args: list[str],
  listed: "protocol_data.Listed",
) -> Given:
  """Returns embeddings by the keys of pairs, of templates where some are."""
  from facesiam_jax.evaluation import comparing, protocol_data

  wanted = listed.keys
  templates: dict[str, list[tuple[str, str]]] = {}
  if flag_values.templates:
    path = pathlib.Path(flag_values.templates)
    templates = protocol_data.read_templates(path)
    wanted = sorted({key for many in templates.values() for key, _ in many})
  if flag_values.embeddings:
    given = of_file(flag_values, bundle)
  else:
    assert bundle is not None
    given = of_folder(flag_values, bundle, pathlib.Path(args[0]), wanted)
  if not templates:
    return given
  refuse_missing(flag_values, [key for key in wanted if key not in given.rows])
  unit = comparing.scorer(bundle).unit
  rows, embeddings = comparing.pooled(
    templates, given.rows, given.embeddings, unit=unit
  )
  return Given(rows, embeddings, given.fingerprint, given.reasons)


class People(NamedTuple):
  """Embeddings of people.

  Attributes:
    embeddings: float32 [N, D].
    who: the person of each, length N.
    fingerprint: of the images.
    reasons: photo to why it has no embedding.
    leak: from `leaks.check`.
  """

  embeddings: "np.ndarray"
  who: list[str]
  fingerprint: str
  reasons: dict[str, str]
  leak: dict[str, Any]


def of_people(
  flag_values: flags.FlagValues, bundle: "Bundle | None", args: list[str]
) -> People:
  """Returns the people of --embeddings, of --dataset or of a folder."""
  from facesiam_jax.evaluation import leaks

  if flag_values.embeddings:
    return _people_of_file(flag_values, bundle)
  assert bundle is not None
  if flag_values.dataset:
    return _people_of_dataset(flag_values, bundle)
  from facesiam_jax.faces import photo

  folder = pathlib.Path(args[0])
  people = photo.list_people(folder)
  leak = leaks.check(bundle, list(people), allow=flag_values.allow_leak)
  paths = [
    path.relative_to(folder).as_posix()
    for several in people.values()
    for path in several
  ]
  found, mark = embed_photos(flag_values, bundle, folder, paths)
  who = [paths[row].split("/")[0] for row in found.rows]
  told = zip(paths, found.reasons.tolist(), strict=True)
  reasons = {path: reason for path, reason in told if reason}
  return People(found.embeddings, who, mark, reasons, leak)


def _people_of_file(
  flag_values: flags.FlagValues, bundle: "Bundle | None"
) -> People:
  import numpy as np

  from facesiam_jax.evaluation import leaks

  given = of_file(flag_values, bundle)
  with np.load(flag_values.embeddings, allow_pickle=False) as file:
    who = [pathlib.PurePath(p).parent.name for p in file["paths"].tolist()]
  leak = leaks.check(bundle, who, allow=flag_values.allow_leak)
  return People(given.embeddings, who, given.fingerprint, given.reasons, leak)


def _people_of_dataset(
  flag_values: flags.FlagValues, bundle: "Bundle"
) -> People:
  import numpy as np

  from facesiam_jax import files
  from facesiam_jax.evaluation import leaks, measure

  data = measure.load_data(
    bundle, flag_values.dataset, any_alignment=flag_values.cropped
  )
  images, ids = data.of(data.test)
  who = [str(data.faces.names[person]) for person in ids]
  leak = leaks.check(bundle, who, allow=flag_values.allow_leak)
  mark = files.sha256_of_arrays({"images": np.asarray(images)})
  found = embed_images(flag_values, bundle, images, mark)
  return People(found, who, mark, {}, leak)
