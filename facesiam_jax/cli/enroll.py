"""`facesiam enroll`: people into a gallery, from a few photos each."""

import os
import pathlib

from absl import flags

from facesiam_jax.cli import common, photos

HELP = "Add people to a gallery from a few photos each."
USAGE = """facesiam enroll --bundle=DIR --gallery=FILE [flags] PEOPLE/
       facesiam enroll --bundle=DIR --gallery=FILE --name=NAME PHOTO..."""


def define_flags(flag_values: flags.FlagValues) -> None:
  """Defines the verb's flags."""
  common.define_bundle(flag_values)
  common.define_gallery(flag_values)
  photos.define_flags(flag_values)
  flags.DEFINE_bool(
    "refuse_poor",
    False,
    "Leave out faces that are small, not sharp, too dark or bright, without "
    "contrast or turned away; without it they are enrolled and told of.",
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


def run(flag_values: flags.FlagValues, args: list[str]) -> int:
  """Enrols everybody of whom a photo has a usable face; tells of the others."""
  listed = _photos_by_name(flag_values.name, args)
  from facesiam_jax import bundle as bundle_lib
  from facesiam_jax.gallery import gallery as gallery_lib
  from facesiam_jax.gallery import records

  for name in listed:
    records.clean_name(name)
  bundle = bundle_lib.load(flag_values.bundle)
  path = flag_values.gallery
  if os.path.exists(path):
    # Refused before the photos are read; made only after they are.
    gallery_lib.Gallery.open(path, bundle).close()
  flat = [(name, path) for name, paths in listed.items() for path in paths]
  paths = [path for _, path in flat]
  # A photo that was named must be enrolled; in a folder there may be others.
  strict = flag_values.name is not None
  faces = photos.load(paths, bundle, flag_values, strict=strict)
  refuse = flag_values.refuse_poor
  faces = photos.grade(faces, paths, refuse=refuse, strict=strict)
  rows: dict[str, list[int]] = {}
  for place, row in enumerate(faces.rows):
    rows.setdefault(flat[row][0], []).append(place)
  people = {name: faces.images[places] for name, places in rows.items()}
  labels = {
    name: [str(paths[faces.rows[place]]) for place in places]
    for name, places in rows.items()
  }
  with gallery_lib.Gallery.open(path, bundle, create=True) as gallery:
    added = gallery.enroll_people(people, labels=labels)
    enrolled = gallery.people()
  for label in added.duplicates:
    print(f"{label}: enrolled already, left out")
  photos.print_failures(faces.failures, len(flat), "enrolled")
  for name in listed:
    if name not in people:
      print(f"{name}: no photo with a usable face, nobody enrolled")
  print(
    f"Enrolled {added.templates} photos of {len(people)} people; {path} now "
    f"holds {sum(enrolled.values())} photos of {len(enrolled)} people."
  )
  return 1 if faces.failures else 0
