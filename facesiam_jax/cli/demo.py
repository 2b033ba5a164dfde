"""`facesiam demo`: the whole of it on the Olivetti faces, with one command.

Trains the article's network and the recipe for people never seen, measures
both on ten people held out, repeats the article's two demonstrations, and
goes through `enroll`, `identify` and `verify` with image files.
"""

import contextlib
import io
import pathlib
import time
from typing import TYPE_CHECKING, Any

from absl import flags

from facesiam_jax import errors
from facesiam_jax.cli import common

if TYPE_CHECKING:
  from facesiam_jax.bundle import Bundle
  from facesiam_jax.evaluation.measure import Measured

HELP = "Show everything on the Olivetti faces: train, measure, recognise."
USAGE = "facesiam demo [--workdir=DIR] [--short]"

_FOLD = 0
# The person enrolled from one image, and one the networks were trained on.
_UNSEEN, _SEEN = 0, 1
_ARTICLE_THRESHOLD = 0.0  # the logit of the article's probability of 0.5
_SHORT_STEPS = 40


def define_flags(flag_values: flags.FlagValues) -> None:
  """Defines the verb's flags."""
  flags.DEFINE_string(
    "workdir",
    "runs/demo",
    "Folder for the runs, reports and pictures; a second demo there reuses "
    "what is trained.",
    flag_values=flag_values,
  )
  flags.DEFINE_bool(
    "short",
    False,
    "Train the article's network for a few steps only: shows that everything "
    "works, in a fraction of the time.",
    flag_values=flag_values,
  )


def _say(text: str) -> None:
  print(f"\n== {text}", flush=True)


def _recipe(name: str, *, short: bool) -> Any:
  """Returns a recipe's config as `facesiam train --config=NAME` reads it."""
  from ml_collections.config_flags import config_flags

  from facesiam_jax.cli import train

  parser = config_flags.ConfigFileFlagParser(name="config")
  config = parser.parse(train.find_recipe(name))
  with config.unlocked():
    config.dataset.fold = _FOLD
    if short and config.num_steps:
      config.num_steps = _SHORT_STEPS
      config.log_every = config.eval_every = config.checkpoint_every = 10
  return config


def _train_and_measure(
  name: str, workdir: pathlib.Path, *, short: bool
) -> tuple["Bundle", "Measured", pathlib.Path]:
  from facesiam_jax.evaluation import measure
  from facesiam_jax.training import run as run_lib

  config = _recipe(name, short=short)
  bundle = run_lib.train(config, workdir)
  measured = measure.measure(bundle, measure.load_data(bundle))
  page = measure.write(workdir / "report", bundle, measured, workdir=workdir)
  return bundle, measured, page


def _write_png(path: pathlib.Path, figure: Any) -> None:
  from facesiam_jax.evaluation import figures

  png = figures.png_bytes(figure)
  common.write_file(path, lambda file: file.write(png))


def _grids(
  out: pathlib.Path, label: str, bundle: "Bundle", faces: Any
) -> list[list[str]]:
  """Draws the article's grid for a person seen and one unseen; its counts."""
  from facesiam_jax import bundle as bundle_lib
  from facesiam_jax.evaluation import demonstration, face_figures

  rows = []
  thresholds = {"calibrated": bundle.threshold}
  if label == "article":
    thresholds = {"0.5": _ARTICLE_THRESHOLD, **thresholds}
  for kind, person in (("seen", _SEEN), ("unseen", _UNSEEN)):
    grid = demonstration.grid(bundle, faces, person)
    for threshold_name, threshold in thresholds.items():
      accepted = grid.logits >= threshold
      strangers = int(accepted.sum()) - int(accepted[person])
      figure = face_figures.grid_figure(
        faces.images[grid.probe],
        faces.images[grid.references],
        faces.names,
        bundle_lib.probability(grid.logits),
        threshold=float(bundle_lib.probability(threshold)),
        own=person,
        title=(
          f"{label}, a person {kind} in training, threshold {threshold_name}: "
          f"{strangers} of 39 strangers accepted"
        ),
      )
      place = threshold_name.replace(".", "")
      _write_png(out / f"grid-{label}-{kind}-{place}.png", figure)
      own = "yes" if accepted[person] else "no"
      first = "yes" if grid.logits.argmax() == person else "no"
      rows.append([label, kind, threshold_name, first, own, str(strangers)])
  return rows


def _enrolments(
  label: str, bundle: "Bundle", faces: Any, people: tuple[int, ...]
) -> list[list[str]]:
  """Enrols unseen people with one image each; one row a threshold."""
  from facesiam_jax.evaluation import demonstration

  rows = []
  thresholds = {"calibrated": bundle.threshold}
  if label == "article":
    thresholds = {"0.5": _ARTICLE_THRESHOLD, **thresholds}
  for name, threshold in thresholds.items():
    for scope, chosen in ((faces.names[_UNSEEN], (_UNSEEN,)), ("all", people)):
      totals = [
        demonstration.enrol_one(
          bundle, faces, person, threshold=threshold
        ).totals()
        for person in chosen
      ]
      probes = sum(t["probes"] for t in totals)
      first, accepted = (
        sum(t[key] for t in totals) / probes for key in ("first", "accepted")
      )
      strangers = sum(t["strangers"] for t in totals) / len(totals)
      rows.append(
        [label, name, scope, f"{probes:.0f}", f"{first:.0%}", f"{accepted:.0%}",
         f"{strangers:.2f}"]
      )  # fmt: skip
  return rows


def _probes(bundle: "Bundle", faces: Any) -> list[list[str]]:
  """Each other image of the person enrolled with one; one row a probe."""
  from facesiam_jax.evaluation import demonstration

  shown = demonstration.enrol_one(
    bundle, faces, _UNSEEN, threshold=bundle.threshold
  )
  yes_no = {True: "yes", False: "no"}
  return [
    [
      f"{faces.names[_UNSEEN]}/{faces.image_numbers[probe.row] + 1:02d}",
      yes_no[probe.first],
      yes_no[probe.accepted],
      str(probe.strangers),
    ]
    for probe in shown.probes
  ]


def _export_people(out: pathlib.Path, faces: Any) -> pathlib.Path:
  """Writes PEOPLE/<name>/<number>.png, as a user's own photos would lie."""
  from PIL import Image

  for image, person, number in zip(
    faces.images, faces.identity_ids, faces.image_numbers, strict=True
  ):
    folder = out / faces.names[person]
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image[..., 0]).save(folder / f"{number + 1:02d}.png")
  return out


def _verb(*args: str) -> str:
  """Runs a verb of this program; returns what it printed."""
  from facesiam_jax.cli import main

  print(f"$ facesiam {' '.join(args)}", flush=True)
  captured = io.StringIO()
  with contextlib.redirect_stdout(captured):
    status = main.main(list(args))
  if status:
    raise errors.UserError(
      f"`facesiam {' '.join(args)}` failed with status {status}; see above."
    )
  return captured.getvalue()


def _use(
  out: pathlib.Path, bundle_dir: pathlib.Path, faces: Any
) -> pathlib.Path:
  """Enrols everybody with one image file, identifies another, verifies."""
  people = _export_people(out / "people", faces)
  gallery = out / "gallery.db"
  for leftover in out.glob("gallery.db*"):
    leftover.unlink()
  where = (f"--bundle={bundle_dir}", f"--gallery={gallery}", "--cropped")
  for name in faces.names:
    folder = out / "first-image" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "01.png").write_bytes((people / name / "01.png").read_bytes())
  _verb("enroll", *where, str(out / "first-image"))
  name = faces.names[_UNSEEN]
  probe = people / name / "02.png"
  picture = out / "identified.png"
  print(_verb("identify", *where, f"--picture={picture}", str(probe)))
  print(
    _verb(
      "verify", f"--bundle={bundle_dir}", "--cropped",
      str(people / name / "01.png"), str(probe),
    )
  )  # fmt: skip
  return picture


def _course(workdir: pathlib.Path, config: dict[str, Any]) -> str:
  """Says how the article network's validation loss went."""
  from facesiam_jax.evaluation import run_curves

  curves = run_curves.training_curves(workdir) or {}
  steps, losses = curves["validation_loss"]
  step, value = run_curves.lowest(steps, losses)
  epoch = 100 * step / config["num_steps"]
  last = sum(losses[-5:]) / len(losses[-5:])
  return (
    "the article's validation loss (people not trained on) is lowest near "
    f"epoch {epoch:.0f}, {value:.3f}, and {last:.3f} at epoch 100"
  )


def _table(results: dict[str, dict[str, Any]]) -> str:
  keys = ("eer", "auc", "tar_at_far_0.01", "one_shot_accuracy", "fmr", "fnmr")
  header = ["", "EER", "AUC", "TAR@FAR 1%", "one-shot", "FMR*", "FNMR*"]
  rows = [
    [name, *("-" if r[k] is None else f"{100 * r[k]:.1f}" for k in keys)]
    for name, r in results.items()
  ]
  return common.table(header, rows)


def _results(
  article: "Measured", recipe: "Measured"
) -> dict[str, dict[str, Any]]:
  from facesiam_jax.evaluation import protocols

  baselines = {
    name.lower(): protocols.verification_report(
      similarity, recipe.identity_ids, None
    )
    for name, similarity in recipe.baselines.items()
  }
  return {
    **baselines,
    "the article's network": article.result,
    "this project's recipe": recipe.result,
  }


def run(flag_values: flags.FlagValues, args: list[str]) -> int:
  """Runs the demo and prints its tables."""
  if args:
    raise common.UsageError(f"demo takes flags only, got {args[0]!r}.")
  from facesiam_jax.evaluation import measure

  begun = time.monotonic()
  out, short = pathlib.Path(flag_values.workdir), flag_values.short
  _say("1 of 4: the article's network, sigma(w d + b), 100 epochs")
  article_bundle, article, _ = _train_and_measure(
    "olivetti_article", out / "article", short=short
  )
  _say("2 of 4: this project's recipe, with its threshold cross-fitted")
  bundle, measured, page = _train_and_measure(
    "olivetti", out / "recipe", short=short
  )
  data = measure.load_data(bundle)
  _say("3 of 4: the article's demonstrations")
  grids = [
    *_grids(out, "article", article_bundle, data.faces),
    *_grids(out, "recipe", bundle, data.faces),
  ]
  enrolments = [
    *_enrolments("article", article_bundle, data.faces, data.test),
    *_enrolments("recipe", bundle, data.faces, data.test),
  ]
  _say("4 of 4: photos on disk: enroll, identify, verify")
  picture = _use(out, out / "recipe" / "bundle", data.faces)
  _say("One probe against one random image of each of the 40 people")
  print(
    common.table(
      ["network", "probe", "threshold", "right first", "right accepted",
       "strangers"],
      grids,
    )
  )  # fmt: skip
  _say("A person never seen, enrolled with ONE image next to the 39 others")
  print(
    common.table(
      ["network", "threshold", "person", "probes", "right first", "accepted",
       "strangers a probe"],
      enrolments,
    )
  )  # fmt: skip
  _say(
    f"The same, probe by probe: this project's recipe, "
    f"{data.faces.names[_UNSEEN]}, calibrated threshold"
  )
  print(
    common.table(
      ["probe", "right first", "right accepted", "strangers accepted"],
      _probes(bundle, data.faces),
    )
  )
  print(_course(out / "article", article_bundle.spec["config"]))
  _say(f"Ten people never seen in training (fold {_FOLD}), %")
  print(_table(_results(article, measured)))
  print("* at the bundle's calibrated threshold")
  print(f"\nreport   {page}\npicture  {picture}")
  print(f"{time.monotonic() - begun:.0f} s")
  return 0
