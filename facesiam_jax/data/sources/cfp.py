"""Celebrities in Frontal-Profile in the Wild, as it is published.

`Data/Images/001/frontal/01.jpg` to `10.jpg`, `.../profile/01.jpg` to `04.jpg`,
`Data/list_name.txt`, and in `Protocol/` the lists `Pair_list_F.txt` and
`Pair_list_P.txt` and the folds `Split/FF/01/same.txt`, ... of the protocols FF
(frontal with frontal) and FP (frontal with profile). In a folder, .tar or .zip.

References: Sengupta et al. 2016, Frontal to Profile Face Verification in the
Wild.
"""

import contextlib
import re
from collections.abc import Iterator

from facesiam_jax import errors
from facesiam_jax.data import catalogue, listing, pairs, trees
from facesiam_jax.data.sources import images

PROTOCOLS = {"FF": ("F", "F"), "FP": ("F", "P")}
# A profile image's number is this much more than in its folder.
PROFILE = 100

_IMAGE = re.compile(
  r"(?P<top>.*/|)Data/Images/(?P<who>[0-9]{1,6})/(?P<view>frontal|profile)/"
  r"(?P<number>[0-9]{1,4})\.\w+"
)


def read(tree: trees.Tree, problems: listing.Problems) -> listing.Listing:
  """Lists CFP's images and protocols; all people are test people.

  Args:
    tree: holds Data and, for the protocols, Protocol.
    problems: where what is left out is counted.

  Returns:
    The listing; identity is the folder's number, the number of a profile image
    is `PROFILE` more than its file's. `facts["missing"]` has the protocols
    whose lists are not there.

  Raises:
    UserError: if there is no image, or a list is not as published.
  """
  found = {}
  for file in images.in_tree(tree, problems):
    match = _IMAGE.fullmatch(file)
    if match:
      found[file] = match
    else:
      problems.add("images that are not Data/Images/001/frontal/01.jpg", file)
  if not found:
    raise errors.UserError(
      f"{tree.path} holds no image named as CFP's Data/Images/001/frontal/"
      "01.jpg: give the folder cfp-dataset."
    )
  top = next(iter(found.values()))["top"]
  names = _names(tree, top)
  items = [_item(file, match, names) for file, match in found.items()]
  keys = {
    f"{match['who']}/{match['view']}/{match['number']}": file
    for file, match in found.items()
  }
  protocols = {}
  for protocol in PROTOCOLS:
    listed = _protocol(tree, top, protocol)
    if listed:
      protocols[protocol] = listed._replace(
        first=[keys.get(key, key) for key in listed.first],
        second=[keys.get(key, key) for key in listed.second],
      )
  return listing.Listing(
    tree,
    items,
    problems,
    partitions=("test",),
    protocols=protocols,
    alignment="cfp",
    facts={"missing": [p for p in PROTOCOLS if p not in protocols]},
  )


def _item(file: str, match: re.Match[str], names: list[str]) -> listing.Item:
  who = int(match["who"])
  number = int(match["number"]) + PROFILE * (match["view"] == "profile")
  name = names[who - 1] if 0 < who <= len(names) else match["who"]
  return listing.Item(file, "test", who, name, number)


def _names(tree: trees.Tree, top: str) -> list[str]:
  """Returns people's names by number; numbers where there is no list."""
  file = f"{top}Data/list_name.txt"
  if file not in tree.files:
    return []
  return [line.strip() for line in _text(tree, file).split("\n")]


def _protocol(
  tree: trees.Tree, top: str, protocol: str
) -> pairs.KeyPairs | None:
  """Returns the pairs of FF or FP; None where their lists are not there."""
  place = f"{top}Protocol/Split/{protocol}/"
  lists = [f"{top}Protocol/Pair_list_{x}.txt" for x in PROTOCOLS[protocol]]
  folds = sorted(
    {
      f.rsplit("/", 1)[0]
      for f in tree.files
      if f.startswith(place) and f.endswith(("/same.txt", "/diff.txt"))
    }
  )
  wanted = [f"{fold}/{kind}.txt" for fold in folds for kind in ("same", "diff")]
  if not folds or any(file not in tree.files for file in lists):
    return None
  try:
    texts = [_text(tree, file) for file in wanted]
    return pairs.cfp_protocol(
      list(zip(texts[::2], texts[1::2], strict=True)),
      *(_text(tree, file) for file in lists),
    )
  except pairs.BadProtocol as error:
    raise errors.UserError(
      f"{tree.path}: the protocol {protocol} is not as CFP publishes it,"
      f" {error}: download it again."
    ) from error


def _text(tree: trees.Tree, file: str) -> str:
  try:
    return tree.read(file).decode("utf-8-sig")
  except (KeyError, trees.Unreadable, UnicodeDecodeError) as error:
    raise errors.UserError(
      f"{tree.path}: {file} is missing, damaged or no text: download CFP again."
    ) from error


@contextlib.contextmanager
def opened(
  options: catalogue.Options, problems: listing.Problems
) -> Iterator[tuple[str, listing.Listing]]:
  """Opens CFP; yields the data set's variant and its listing."""
  with trees.open_tree(options.manual_dir) as tree:
    yield options.variant, read(tree, problems)
