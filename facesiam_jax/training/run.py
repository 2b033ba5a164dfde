"""A whole run: train, calibrate on people not seen, write the bundle."""

import contextlib
import os
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

import jax
import ml_collections
import numpy as np

from facesiam_jax import bundle as bundle_lib
from facesiam_jax import errors, heads, parallel
from facesiam_jax.data import sets
from facesiam_jax.training import (
  calibrate,
  loop,
  measuring,
  open_set,
  preemption,
  provenance,
)
from facesiam_jax.training import config as config_lib
from facesiam_jax.training import recipe as recipe_lib
from facesiam_jax.training import split as split_lib
from facesiam_jax.training import state as state_lib
from facesiam_jax.training import workdir as workdir_lib

BUNDLE = "bundle"


def split_of(data: sets.DataSet, people: tuple[int, ...]) -> split_lib.Split:
  """Returns the images of the given people."""
  return split_lib.Split(*data.of(people))


def _score(
  config: ml_collections.ConfigDict,
  state: state_lib.TrainState,
  split: split_lib.Split,
) -> calibrate.Scores:
  recipe = recipe_lib.make_recipe(config)
  embedder = measuring.make_embedder(
    recipe, recipe_lib.settings_of(config, recipe), parallel.make_mesh()
  )
  embeddings = embedder(state, split.images)
  return calibrate.score_pairs(recipe, state, embeddings, split.identity_ids)


def _inner_config(
  config: ml_collections.ConfigDict, num_people: int
) -> ml_collections.ConfigDict:
  """Returns the config of an inner network, which has fewer people."""
  inner = config.copy_and_resolve_references()
  with inner.unlocked():
    if config.calibration.inner_steps:
      inner.num_steps = config.calibration.inner_steps
    if "num_people" in inner.objective.args:
      wanted = inner.objective.args.num_people
      inner.objective.args.num_people = min(wanted, num_people)
  return inner


def cross_fit(
  config: ml_collections.ConfigDict,
  data: sets.DataSet,
  workdir: pathlib.Path,
  watch: preemption.Watch | None = None,
) -> calibrate.Scores:
  """Scores each training person by a network trained without them.

  Args:
    config: a valid training config.
    data: its data set; validation and test people are not touched.
    workdir: the runs of the inner networks go to inner-0, inner-1, ... in it.
    watch: knows whether the run is asked to stop.

  Returns:
    Scores of all pairs within each inner group, pooled.
  """
  groups = sets.split_people(data.train, config.calibration.inner_folds)
  parts = []
  for number, group in enumerate(groups):
    rest = tuple(person for person in data.train if person not in group)
    inner = _inner_config(config, len(rest))
    held_out = split_of(data, group)
    state = loop.fit(
      inner,
      workdir / f"inner-{number}",
      split_of(data, rest),
      held_out,
      label=f"inner {number + 1}/{len(groups)}",
      watch=watch,
    )
    parts.append(_score(inner, state, held_out))
  return calibrate.pool(parts)


def _spec(
  config: ml_collections.ConfigDict,
  image_shape: tuple[int, ...],
  dim: int,
  thresholds: dict[str, Any],
  scores: calibrate.Scores,
  alignment: str,
  strangers: dict[str, Any],
  probability: dict[str, Any],
) -> dict[str, Any]:
  return {
    "encoder": config.encoder.to_dict(),
    "head": config.head.to_dict(),
    "metric": heads.create(config.head.name, **config.head.args).metric,
    "input": {
      "size": image_shape[0],
      "channels": image_shape[2],
      "framing": alignment,
    },
    "alignment": alignment,
    "standardize": config.standardize.to_dict(),
    "views": config.views.to_dict(),
    "dim": dim,
    "thresholds": thresholds,
    "default_threshold": calibrate.threshold_name(
      config.calibration.target_fmr
    ),
    "calibration": {
      **config.calibration.to_dict(),
      "num_people": len(np.unique(scores.people_a)),
      "num_genuine": int(np.sum(scores.same)),
      "num_impostor": int(np.sum(1 - scores.same)),
      "open_set": strangers,
      "probability": probability,
    },
    "config": config.to_dict(),
  }


def make_bundle(
  config: ml_collections.ConfigDict,
  workdir: pathlib.Path,
  state: state_lib.TrainState,
  scores: calibrate.Scores,
  image_shape: tuple[int, ...],
  alignment: str = bundle_lib.OWN_ALIGNMENT,
) -> bundle_lib.Bundle:
  """Fits head and thresholds to scores and writes workdir/bundle.

  Args:
    config: a valid training config.
    workdir: the run's directory.
    state: the trained network.
    scores: of people that the network, or the inner networks, had not seen.
    image_shape: (H, W, C) of a face.
    alignment: name of the way the faces are framed.

  Returns:
    The bundle.

  Raises:
    ValueError: if the network has learned nothing that can be calibrated.
  """
  recipe = recipe_lib.make_recipe(config)
  head, logits = calibrate.fit_head(recipe, state, scores)
  thresholds = calibrate.thresholds(
    logits, scores, [config.calibration.target_fmr]
  )
  variables = {
    "encoder": jax.device_get(recipe_lib.encoder_variables(state)),
    "head": head,
  }
  image = jax.ShapeDtypeStruct((1, *image_shape), np.float32)
  embedding = jax.eval_shape(
    lambda v, x: recipe.encoder.apply(v, x, train=False),
    variables["encoder"],
    image,
  )
  dim = embedding.shape[1]
  strangers = open_set.record(logits, scores, thresholds)
  probability: dict[str, Any] = {
    "method": "trained",
    "reason": "the head is as it was trained; run facesiam calibrate",
  }
  if not recipe.objective.trains_head:
    probability = calibrate.probability_record(logits, scores)
  spec = _spec(
    config,
    image_shape,
    dim,
    thresholds,
    scores,
    alignment,
    strangers,
    probability,
  )
  return bundle_lib.save(workdir / BUNDLE, spec, variables)


def _seen_sentence(name: str, seen: tuple[str, ...]) -> str:
  """Warns that an evaluation will flatter."""
  more = ", ..." if len(seen) > 3 else ""
  return (
    f"warning: {len(seen)} people of the validation or test split of {name} are"
    f" in its training split too ({', '.join(seen[:3])}{more}), so that what is"
    " measured on them says little about strangers; facesiam audit lists whom"
    " to leave out."
  )


def _load(config: ml_collections.ConfigDict) -> sets.DataSet:
  """Loads the data; process 0 first, since it may have to prepare them."""
  load = lambda: sets.load(
    config.dataset,
    image_size=config.image_size,
    lazy=config.feed.kind == "streaming",
  )
  data = load() if parallel.is_main() else None
  if data and (seen := sets.seen_in_training(data)):
    print(_seen_sentence(config.dataset.name, seen), file=sys.stderr)
  parallel.barrier("the data are there")
  return data or load()


@contextlib.contextmanager
def _held(
  workdir: str | os.PathLike[str], config: ml_collections.ConfigDict
) -> Iterator[pathlib.Path]:
  """Holds the directory for this run; process 0 for all."""
  with workdir_lib.told_when_full(workdir), contextlib.ExitStack() as stack:
    if parallel.is_main():
      folder = stack.enter_context(workdir_lib.locked(workdir))
      workdir_lib.claim(folder, config)
      provenance.write_run(folder)
    parallel.barrier("the run's directory is held")
    yield pathlib.Path(workdir)


def _finish(
  config: ml_collections.ConfigDict,
  folder: pathlib.Path,
  state: state_lib.TrainState,
  scores: calibrate.Scores,
  image_shape: tuple[int, ...],
  alignment: str,
) -> bundle_lib.Bundle:
  """Writes the bundle, process 0 for all."""
  if parallel.is_main():
    try:
      make_bundle(config, folder, state, scores, image_shape, alignment)
    except ValueError as error:
      raise errors.UserError(
        f"the network in {folder} cannot be calibrated: {error}"
      ) from error
  parallel.barrier("the bundle is written")
  return bundle_lib.load(folder / BUNDLE)


def train(
  config: ml_collections.ConfigDict,
  workdir: str | os.PathLike[str],
  *,
  profile: bool = False,
) -> bundle_lib.Bundle:
  """Trains, calibrates and writes workdir/bundle; resumes by itself.

  With several processes (`parallel.start`) each calls this alike, with one
  workdir that all of them see; process 0 writes metrics and bundle.

  Args:
    config: a training config.
    workdir: the run's directory; made if needed, held while this runs.
    profile: whether a few steps are traced, into workdir/profile.

  Returns:
    The bundle.

  Raises:
    errors.UserError: for a config that is not valid, a directory that holds
      another run or is held by one, data that is missing, a loss that is not
      finite, or a full disk.
    preemption.Preempted: on SIGTERM; what was done is saved.
  """
  config_lib.validate(config)
  recipe_lib.make_recipe(config)
  with preemption.Watch().installed() as watch:
    data = _load(config)
    with _held(workdir, config) as folder:
      validation = split_of(data, data.validation) if data.validation else None
      train_split = split_of(data, data.train)
      state = loop.fit(
        config,
        folder,
        train_split,
        validation,
        watch=watch,
        profile=profile,
      )
      if config.calibration.kind == "cross_fit":
        scores = cross_fit(config, data, folder, watch)
      else:
        assert validation is not None  # config_lib.validate
        scores = _score(config, state, validation)
      shape = train_split.images.shape[1:]
      return _finish(config, folder, state, scores, shape, data.alignment)
