"""`facesiam evaluate --protocol=NAME`: measure by a published protocol."""

import json
import pathlib
from typing import TYPE_CHECKING, Any

from absl import flags

from facesiam_jax import errors
from facesiam_jax.cli import common, protocol_inputs

if TYPE_CHECKING:
  from facesiam_jax.bundle import Bundle
  from facesiam_jax.evaluation import protocol_data

PAIRS = ("view1", "view2", "ff", "fp", "pairs")
PEOPLE = ("all_pairs", "triplets", "one_shot", "closed_set", "open_set")
# Those that search people: a photo without a face is a search missed.
_SEARCHES = ("one_shot", "closed_set", "open_set")


def define_flags(flag_values: flags.FlagValues) -> None:
  """Defines --protocol and the flags that go with it."""
  flags.DEFINE_enum(
    "protocol", None, [*PAIRS, *PEOPLE],
    "Measure by a protocol and write metrics.json alone: listed pairs (view1 "
    "and view2 of LFW, ff and fp of CFP, pairs of a .bin set or of --pairs) or "
    "people (all_pairs, triplets, one_shot, closed_set, open_set).",
    flag_values=flag_values,
  )  # fmt: skip
  for name, text in (
    ("pairs", "File of pairs: LFW's format, or a .csv with a,b,same."),
    ("train_pairs", "view1: the pairs that choose the threshold."),
    ("templates", "A .csv template,photo[,medium]; --pairs then names "
     "templates, each the mean of its photos."),
    ("embeddings", "File of `facesiam embed`, in place of photos."),
    ("cache", "Folder that keeps embeddings, or none; else in the user's "
     "cache folder."),
  ):  # fmt: skip
    flags.DEFINE_string(name, None, text, flag_values=flag_values)
  for name, text in (
    ("allow_missing", "Count pairs whose photos are missing as errors."),
    ("allow_leak", "Measure people who were trained on, and say so."),
    ("mirror", "Average each embedding with that of the mirrored face."),
  ):
    flags.DEFINE_bool(name, False, text, flag_values=flag_values)
  for name, usual, text in (
    ("ways", 10, "one_shot: people in a draw."),
    ("photos", 1, "open_set: photos that make an enrolled template."),
  ):
    flags.DEFINE_integer(
      name, usual, text, lower_bound=1, flag_values=flag_values
    )


def refuse_flags(flag_values: flags.FlagValues) -> None:
  """Refuses flags that only --protocol knows, where it is not given.

  Raises:
    UsageError: for the first one given.
  """
  for name in (
    *("pairs", "train_pairs", "templates", "embeddings", "cache"),
    *("allow_missing", "ways", "photos"),
  ):
    if not flag_values[name].using_default_value:
      raise common.UsageError(f"--{name} needs --protocol=NAME.")


def _check(flag_values: flags.FlagValues, args: list[str]) -> None:
  """Refuses flags that do not go together."""
  given = [bool(args), bool(flag_values.dataset), bool(flag_values.embeddings)]
  if sum(given) != 1 or len(args) > 1:
    raise common.UsageError(
      "--protocol needs one of: a folder of photos, --dataset, --embeddings."
    )
  if flag_values.workdir or not flag_values.out:
    raise common.UsageError("--protocol needs --out, and --bundle, no workdir.")
  if not flag_values.bundle and not flag_values.embeddings:
    raise common.UsageError("--protocol needs --bundle or --embeddings.")
  if flag_values.embeddings and flag_values.mirror:
    raise common.UsageError("--mirror is for images, not for --embeddings.")
  listed = flag_values.protocol in PAIRS
  for name in ("pairs", "train_pairs", "templates", "allow_missing"):
    if flag_values[name].value and not listed:
      raise common.UsageError(f"--{name} is for {', '.join(PAIRS)}.")
  if flag_values.pairs and flag_values.dataset:
    raise common.UsageError("--pairs is for photos or --embeddings.")
  if flag_values.pairs and flag_values.protocol == "view1":
    if not flag_values.train_pairs:
      raise common.UsageError("--protocol=view1 --pairs needs --train_pairs.")


def _listed(
  flag_values: flags.FlagValues, args: list[str]
) -> "protocol_data.Listed":
  from facesiam_jax.evaluation import protocol_data

  if not flag_values.pairs:
    if not args:
      raise common.UsageError("--embeddings of pairs needs --pairs=FILE.")
    return protocol_data.in_layout(flag_values.protocol, pathlib.Path(args[0]))
  files = [flag_values.pairs]
  files += [flag_values.train_pairs] if flag_values.train_pairs else []
  read = [protocol_data.read_pairs(pathlib.Path(file)) for file in files]
  return protocol_data.listed(*read)


def _measure_pairs(
  flag_values: flags.FlagValues, bundle: "Bundle | None", args: list[str]
) -> dict[str, Any]:
  """Measures listed pairs; see `comparing.compare`."""
  from facesiam_jax.evaluation import comparing, pair_protocols

  score = comparing.scorer(bundle)
  if flag_values.dataset:
    assert bundle is not None
    listed, given, leak = _of_prepared(flag_values, bundle)
  else:
    listed = _listed(flag_values, args)
    leak = _leak(flag_values, bundle, listed)
    given = protocol_inputs.for_pairs(flag_values, bundle, args, listed)
  missing = [key for key in listed.keys if key not in given.rows]
  protocol_inputs.refuse_missing(flag_values, missing)
  of = lambda pairs, people: comparing.compare(
    pairs, given.rows, given.embeddings, score, people
  )
  test = of(listed.pairs, listed.people)
  if listed.development is not None:
    result = pair_protocols.view_1(of(listed.development, None), test)
  else:
    result = pair_protocols.report(test, threshold=score.threshold)
  facts = {
    "missing": missing,
    "without_face": given.reasons,
    "leak": leak,
    "collapsed": comparing.collapsed(given.embeddings),
  }
  return {**result, **facts, "data_fingerprint": given.fingerprint}


def _leak(
  flag_values: flags.FlagValues,
  bundle: "Bundle | None",
  listed: "protocol_data.Listed",
) -> dict[str, Any]:
  from facesiam_jax.evaluation import leaks

  people = None
  if listed.people:
    tested = {*listed.pairs.first, *listed.pairs.second}
    people = sorted({listed.people[key] for key in tested})
  return leaks.check(bundle, people, allow=flag_values.allow_leak)


def _of_prepared(
  flag_values: flags.FlagValues, bundle: "Bundle"
) -> "tuple[protocol_data.Listed, protocol_inputs.Given, dict[str, Any]]":
  from facesiam_jax.evaluation import protocol_data

  data = protocol_data.of_prepared(
    flag_values.dataset,
    flag_values.protocol,
    bundle,
    any_alignment=flag_values.cropped,
  )
  leak = _leak(flag_values, bundle, data.listed)
  mark = data.fingerprint + flag_values.protocol
  found = protocol_inputs.embed_images(flag_values, bundle, data.images, mark)
  rows: dict[str, int | None] = {key: n for n, key in enumerate(data.keys)}
  given = protocol_inputs.Given(rows, found, data.fingerprint, {})
  return data.listed, given, leak


def _measure_people(
  flag_values: flags.FlagValues, bundle: "Bundle | None", args: list[str]
) -> dict[str, Any]:
  """Measures people: a folder for each, a data set's, or embeddings."""
  import numpy as np

  from facesiam_jax.evaluation import comparing, people_protocols

  found = protocol_inputs.of_people(flag_values, bundle, args)
  result = comparing.measure_people(
    flag_values.protocol,
    found.embeddings,
    np.unique(np.array(found.who), return_inverse=True)[1],
    comparing.scorer(bundle),
    ways=flag_values.ways,
    photos=flag_values.photos,
  )
  if found.reasons and flag_values.protocol in _SEARCHES:
    result = people_protocols.with_failures(result, len(found.reasons))
  facts = {
    "without_face": found.reasons,
    "leak": found.leak,
    "collapsed": comparing.collapsed(found.embeddings),
  }
  return {**result, **facts, "data_fingerprint": found.fingerprint}


def run(flag_values: flags.FlagValues, args: list[str]) -> int:
  """Measures by a protocol, prints the figures and writes metrics.json."""
  _check(flag_values, args)
  from facesiam_jax import bundle as bundle_lib
  from facesiam_jax.evaluation import comparing
  from facesiam_jax.training import provenance

  bundle = bundle_lib.load(flag_values.bundle) if flag_values.bundle else None
  listed = flag_values.protocol in PAIRS
  try:
    measure = _measure_pairs if listed else _measure_people
    result = measure(flag_values, bundle, args)
  except ValueError as error:
    raise errors.UserError(
      f"--protocol={flag_values.protocol}: {error}."
    ) from error
  options = {
    name: flag_values[name].value
    for name in (
      *("mirror", "photos", "ways", "pairs", "train_pairs", "templates"),
      *("dataset", "embeddings", "cropped", "largest", "detector"),
      *("allow_missing", "allow_leak"),
    )
  }
  options["folder"] = args[0] if args else None
  options["bundle_views"] = bundle.spec["views"] if bundle else None
  result |= {
    "protocol": flag_values.protocol,
    "score": comparing.scorer(bundle).name,
    "options": options,
    "bundle_fingerprint": bundle.fingerprint if bundle else None,
    "run": provenance.facts(),
  }
  out = pathlib.Path(flag_values.out)
  out.mkdir(parents=True, exist_ok=True)
  text = json.dumps(result, indent=1, sort_keys=True, allow_nan=False) + "\n"
  path = out / "metrics.json"
  common.write_file(path, lambda file: file.write(text.encode()))
  _print(result)
  print(f"metrics  {path}")
  return 0


def _print(result: dict[str, Any]) -> None:
  """Prints every rate with its interval; each marked where people leak."""
  leak = result["leak"]
  mark = f"{len(leak['people'])} people trained on" if leak["people"] else ""
  rows = []
  folds = result.get("folds")
  if folds:
    text = f"{folds['accuracy']:.2%} +- {folds['standard_error']:.2%}"
    rows.append(["accuracy over folds", text, _ends(folds["interval"]), mark])
  parts = [("", result)]
  parts += [
    (f", {one['size']} enrolled", one) for one in result.get("sizes", ())
  ]
  for suffix, one in parts:
    for name, value in one.items():
      if isinstance(value, float) and not name.endswith(("threshold", "near")):
        ends = (one.get("interval") or {}).get(name)
        rate = (
          f"{value:.4g}" if name.endswith(("mean", "sd")) else f"{value:.2%}"
        )
        rows.append([name + suffix, rate, _ends(ends), mark])
  head = ["", "value", "95 % interval", ""]
  print(common.table(head, rows))
  counted = {
    k: n for k, n in result["counts"].items() if isinstance(n, int | float)
  } or {
    name: result[f"num_{name}"]
    for name in ("people", "images", "genuine", "impostor")
  }
  print("on " + ", ".join(f"{n:g} {name}" for name, n in counted.items()))
  if result["collapsed"]:
    print(f"note: {common.COLLAPSED}")
  binning = result.get("binning")
  if binning:
    print(
      f"note: intervals of {binning['resamples']} resamples of people, scores "
      f"in {binning['bins']:,} bins: ends may be off by up to "
      f"{binning['error']:.2%} of the pairs."
    )
  for reason in (
    *(result.get("interval_reason"), result.get("interval_caution")),
    leak["reason"],
  ):
    if reason:
      print(f"note: {reason}")


def _ends(interval: Any) -> str:
  return f"{interval[0]:.2%} .. {interval[1]:.2%}" if interval else ""
