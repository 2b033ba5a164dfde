"""`facesiam gallery reenroll`: the same people by another bundle."""

import pathlib
from typing import TYPE_CHECKING

from absl import flags

from facesiam_jax.cli import common, enroll, photos

if TYPE_CHECKING:
  from facesiam_jax.gallery.store import Store


def run(flag_values: flags.FlagValues, store: "Store", folder: str) -> int:
  """Moves a gallery to --bundle, all of it or nothing.

  Args:
    flag_values: of `facesiam gallery`.
    store: the open gallery.
    folder: PEOPLE/<name>/<photo> of the people who are enrolled.

  Returns:
    The exit status: 1 if somebody could not follow.
  """
  if flag_values.bundle is None:
    raise common.UsageError("reenroll needs --bundle, the one to move to.")
  from facesiam_jax import bundle as bundle_lib
  from facesiam_jax.faces import photo
  from facesiam_jax.gallery import erasing, records

  bundle = bundle_lib.load(flag_values.bundle)
  enrolled = store.people()
  listed: dict[str, list[pathlib.Path]] = {}
  strangers = []
  for name, paths in photo.list_people(folder).items():
    clean = records.clean_name(name)
    if clean in enrolled:
      listed.setdefault(clean, []).extend(paths)
    else:
      strangers.append(name)
  for name in strangers:
    print(f"{name}: not enrolled in {store.path}, left out")
  new, _ = enroll.split(listed, {})
  faces = photos.load(
    [one.path for one in new], bundle, flag_values, strict=False
  )
  behind = erasing.move(
    store,
    enroll.embed(bundle, faces, new),
    fingerprint=bundle.fingerprint,
    dim=bundle.dim,
    metric=bundle.metric,
    drop=flag_values.drop,
  )
  photos.print_failures(faces.failures, len(new), "enrolled")
  return _tell(flag_values, store, behind)


def _tell(
  flag_values: flags.FlagValues, store: "Store", behind: list[str]
) -> int:
  what = "removed" if flag_values.drop else "cannot follow"
  for name in behind:
    print(f"{name}: no usable photo, {what}")
  if behind and not flag_values.drop:
    print(
      f"{store.path} is as it was: {len(behind)} of {len(store.people())} "
      "people cannot follow; give photos of them, or --drop removes them."
    )
    return 1
  people = store.people()
  print(
    f"{store.path} now serves {flag_values.bundle}: {sum(people.values())} "
    f"photos of {len(people)} people."
  )
  return 0
