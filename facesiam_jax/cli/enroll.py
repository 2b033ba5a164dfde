"""`facesiam enroll`: people into a gallery, from a few photos each."""

import os
import pathlib

from absl import flags

from facesiam_jax.cli import common

HELP = "Add people to a gallery from a few photos each."
USAGE = """facesiam enroll --bundle=DIR --gallery=FILE [flags] PEOPLE/
       facesiam enroll --bundle=DIR --gallery=FILE --name=NAME PHOTO..."""


def define_flags(flag_values: flags.FlagValues) -> None:
  """Defines the verb's flags."""
  common.define_bundle(flag_values)
  common.define_gallery(flag_values)
  common.define_cropped(flag_values)
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


def run(flag_values: flags.FlagValues, args: list[str]) -> int:
  """Enrols everybody named, or nobody."""
  photos = _photos_by_name(flag_values.name, args)
  from facesiam_jax import bundle as bundle_lib
  from facesiam_jax.gallery import gallery as gallery_lib
  from facesiam_jax.gallery import records

  for name in photos:
    records.clean_name(name)
  bundle = bundle_lib.load(flag_values.bundle)
  path = flag_values.gallery
  if os.path.exists(path):
    # Refused before the photos are read; made only after they are.
    gallery_lib.Gallery.open(path, bundle).close()
  flat = [path for paths in photos.values() for path in paths]
  faces = common.load_faces(flat, bundle, cropped=flag_values.cropped)
  people, start = {}, 0
  for name, paths in photos.items():
    people[name] = faces[start : start + len(paths)]
    start += len(paths)
  labels = {name: list(map(str, paths)) for name, paths in photos.items()}
  with gallery_lib.Gallery.open(path, bundle, create=True) as gallery:
    added = gallery.enroll_people(people, labels=labels)
    enrolled = gallery.people()
  for label in added.duplicates:
    print(f"{label}: enrolled already, left out")
  print(
    f"Enrolled {added.templates} photos of {len(photos)} people; {path} now "
    f"holds {sum(enrolled.values())} photos of {len(enrolled)} people."
  )
  return 0
