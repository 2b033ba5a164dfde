"""`facesiam enroll`: people into a gallery, from a few photos each."""

import concurrent.futures
import os
import pathlib
import shlex
from typing import TYPE_CHECKING, NamedTuple

from absl import flags

from facesiam_jax import errors, files
from facesiam_jax.cli import common, photos

if TYPE_CHECKING:
  from facesiam_jax.bundle import Bundle
  from facesiam_jax.gallery.gallery import Gallery
  from facesiam_jax.gallery.records import Templates

HELP = "Add people to a gallery from a few photos each."
USAGE = """facesiam enroll --bundle=DIR --gallery=FILE [flags] PEOPLE/
       facesiam enroll --bundle=DIR --gallery=FILE --name=NAME PHOTO..."""


_TERMS = {
  "consent": "A reference to the people's consent, kept with their names.",
  "purpose": "What the people are enrolled for, kept with their names.",
  "expires": "The day, YYYY-MM-DD, from which on `facesiam gallery expire` "
  "removes them.",
}


class Photo(NamedTuple):
  """A photo to enrol.

  Attributes:
    name: whom it shows, as stored.
    path: where it lies.
    sha256: of its file; None where it cannot be read.
  """

  name: str
  path: pathlib.Path
  sha256: bytes | None


def define_flags(flag_values: flags.FlagValues) -> None:
  """Defines the verb's flags."""
  common.define_bundle(flag_values)
  common.define_gallery(flag_values)
  photos.define_flags(flag_values)
  flags.DEFINE_bool(
    "refuse_poor",
    False,
    "Leave out faces that are small, not sharp, too dark or bright, without "
    "contrast or turned away, by --min_width and the like; without it they are "
    "enrolled and told of.",
    flag_values=flag_values,
  )
  flags.DEFINE_bool(
    "allow_duplicate",
    False,
    "Also enroll who is enrolled already under another name, by their looks.",
    flag_values=flag_values,
  )
  photos.define_limits(flag_values)
  for name, what in _TERMS.items():
    flags.DEFINE_string(name, None, what, flag_values=flag_values)
  flags.DEFINE_enum(
    "storage",
    "float32",
    ["float32", "int8"],
    "How a new gallery keeps embeddings; int8 takes a quarter of the space.",
    flag_values=flag_values,
  )
  flags.DEFINE_string(
    "name",
    None,
    "Who the photos show. Without it, give a folder that holds one folder of "
    "photos a person, PEOPLE/<name>/<photo>.",
    flag_values=flag_values,
  )


def _photos_by_name(
  name: str | None, args: list[str]
) -> dict[str, list[pathlib.Path]]:
  if name is not None:
    if not args:
      raise common.UsageError(f"give at least one photo of {name!r}.")
    return {name: [pathlib.Path(arg) for arg in args]}
  if len(args) != 1 or os.path.isfile(args[0]):
    raise common.UsageError(
      "give one folder that holds a folder of photos for each person, or "
      "--name=NAME and the photos of that person."
    )
  from facesiam_jax.faces import photo

  return photo.list_people(args[0])


def _hash(path: pathlib.Path) -> bytes | None:
  """Returns the SHA-256 of a file; None where reading it will tell why not."""
  try:
    return bytes.fromhex(files.sha256(path)) if path.is_file() else None
  except OSError:
    return None


def split(
  listed: dict[str, list[pathlib.Path]], known: dict[bytes, str]
) -> tuple[list[Photo], list[Photo]]:
  """Tells new photos from those that are enrolled already.

  Args:
    listed: name -> photos.
    known: SHA-256 of a file -> the name that it is enrolled under.

  Returns:
    The photos to read, and those that are enrolled already.
  """
  flat = [(name, path) for name, paths in listed.items() for path in paths]
  with concurrent.futures.ThreadPoolExecutor() as pool:
    hashes = list(pool.map(_hash, [path for _, path in flat]))
  new: list[Photo] = []
  old: list[Photo] = []
  for (name, path), sha256 in zip(flat, hashes, strict=True):
    is_old = sha256 is not None and known.get(sha256) == name
    (old if is_old else new).append(Photo(name, path, sha256))
  return new, old


def embed(
  bundle: "Bundle", faces: photos.Faces, new: list[Photo]
) -> "dict[str, Templates]":
  """Returns name -> templates of faces; tells which photos are odd ones.

  Args:
    bundle: what embeds.
    faces: of the photos.
    new: the photos that were read.
  """
  from facesiam_jax.faces import grading
  from facesiam_jax.gallery import enrolment, records

  places: dict[str, list[int]] = {}
  for place, row in enumerate(faces.rows):
    places.setdefault(new[row].name, []).append(place)
  own = {
    name: [new[faces.rows[i]] for i in rows] for name, rows in places.items()
  }
  qualities = faces.qualities or grading.measure(faces.cuts)
  templates = enrolment.embed(
    bundle,
    {name: faces.images[rows] for name, rows in places.items()},
    labels={name: [str(p.path) for p in own[name]] for name in own},
    sources={
      name: [records.Source(p.path.name, p.sha256) for p in own[name]]
      for name in own
    },
    quality={
      name: [grading.weight(qualities[place]) for place in rows]
      for name, rows in places.items()
    },
  )
  for name, rows in templates.items():
    for place in enrolment.odd_ones(bundle, rows):
      print(
        f"{rows.labels[place]}: unlike the other photos of {name}; look "
        "whether it shows the same person"
      )
  return templates


def _leave_out_known(
  gallery: "Gallery", templates: "dict[str, Templates]", *, strict: bool
) -> int:
  """Takes out who is enrolled under another name; how many they are."""
  from facesiam_jax.gallery import enrolment

  known = enrolment.known_as(
    lambda rows: gallery.identify(embeddings=rows, k=1), templates
  )
  for name, other in known.items():
    told = (
      f"{name}: already enrolled as {other.name}, by {other.photos} of "
      f"{other.of} photos"
    )
    if strict:
      raise errors.UserError(
        f"{told}; give --name={shlex.quote(other.name)}, or --allow_duplicate."
      )
    print(f"{told}, left out (--allow_duplicate enrolls them)")
    del templates[name]
  return len(known)


def _read(
  flag_values: flags.FlagValues, bundle: "Bundle", new: list[Photo]
) -> photos.Faces:
  # A photo that was named must be enrolled; in a folder there may be others.
  strict = flag_values.name is not None
  paths = [photo.path for photo in new]
  faces = photos.load(paths, bundle, flag_values, strict=strict)
  if not paths:
    return faces
  refuse = flag_values.refuse_poor
  limits = photos.limits(flag_values)
  return photos.grade(faces, paths, refuse=refuse, strict=strict, limits=limits)


def _add(
  flag_values: flags.FlagValues,
  bundle: "Bundle",
  templates: "dict[str, Templates]",
  old: list[Photo],
) -> tuple[int, str]:
  """Enrols; how many people were left out, and what is committed."""
  from facesiam_jax.gallery import gallery as gallery_lib
  from facesiam_jax.gallery import records

  terms = records.Terms(*(flag_values[name].value for name in _TERMS))
  path = flag_values.gallery
  key_file = flag_values.key_file
  is_new_key = key_file is not None and not os.path.exists(key_file)
  with gallery_lib.Gallery.open(
    path, bundle, create=True, storage=flag_values.storage, key_file=key_file
  ) as gallery:
    if is_new_key:
      print(
        f"{key_file} is the new key of {path}: without it nobody can read the "
        "gallery; keep a copy in another place"
      )
    left_out = 0
    if not flag_values.allow_duplicate:
      strict = flag_values.name is not None
      left_out = _leave_out_known(gallery, templates, strict=strict)
    added = gallery.store.add(templates, terms)
    for name in sorted({photo.name for photo in old}):
      gallery.store.set_terms(name, terms)
    enrolled = gallery.people()
  for label in [*(str(photo.path) for photo in old), *added.duplicates]:
    print(f"{label}: enrolled already, left out")
  return left_out, (
    f"Enrolled {added.templates} photos of {len(templates)} people; {path} now "
    f"holds {sum(enrolled.values())} photos of {len(enrolled)} people."
  )


def run(flag_values: flags.FlagValues, args: list[str]) -> int:
  """Enrols everybody of whom a photo has a usable face; tells of the others."""
  given = _photos_by_name(flag_values.name, args)
  from facesiam_jax import bundle as bundle_lib
  from facesiam_jax.gallery import gallery as gallery_lib
  from facesiam_jax.gallery import records

  listed: dict[str, list[pathlib.Path]] = {}
  for name, paths in given.items():
    listed.setdefault(records.clean_name(name), []).extend(paths)
  records.clean_terms(
    records.Terms(*(flag_values[name].value for name in _TERMS))
  )
  bundle = bundle_lib.load(flag_values.bundle)
  known: dict[bytes, str] = {}
  if os.path.exists(flag_values.gallery):
    # Refused before the photos are read; made only after they are.
    with gallery_lib.Gallery.open(
      flag_values.gallery, bundle, key_file=flag_values.key_file
    ) as gallery:
      known = gallery.store.files()
  new, old = split(listed, known)
  faces = _read(flag_values, bundle, new)
  templates = embed(bundle, faces, new)
  usable = {*templates, *(photo.name for photo in old)}
  left_out, done = _add(flag_values, bundle, templates, old)
  photos.print_failures(faces.failures, len(new) + len(old), "enrolled")
  for name in listed:
    if name not in usable:
      print(f"{name}: no photo with a usable face, nobody enrolled")
  print(done)
  return 1 if faces.failures or left_out else 0
