"""The fields of a training config, their defaults, and their checks."""

import json
from collections.abc import Iterator
from typing import Any

import ml_collections

from facesiam_jax import errors

_CALIBRATIONS = ("validation", "cross_fit")
_STARTS = ("random", "whitening")
_ON_NAN = ("stop", "skip")
_ON_COLLAPSE = ("warn", "stop")
_FEEDS = ("auto", "resident", "streaming")
_PER_CHANNEL = ("standardize.mean", "standardize.std")
_DRAWN = ("contrastive", "pair_bce", "triplet")
_PLACEHOLDER_FIELDS = ("encoder.args", "head.args", "objective.args")


def default_config() -> ml_collections.ConfigDict:
  """Returns the config that every recipe starts from.

  A recipe in configs/ calls this, changes what it wants and returns the
  result; a key that is not here cannot be set. The comments say what each
  field means.

  Returns:
    A locked ConfigDict.
  """
  c = ml_collections.ConfigDict()
  c.seed = 0
  c.image_size = 64
  # Length of the run in optimizer steps; 0 keeps the start, if it is fitted.
  c.num_steps = 400
  # Steps in one call of the compiled function; 0 = 1 on CPU, up to 50 on
  # GPU and TPU. With a streaming feed always 1.
  c.steps_per_call = 0
  # A line of metrics, a measurement on validation people, a checkpoint: every
  # so many steps. The last two are multiples of the first.
  c.log_every = 20
  c.eval_every = 100
  c.checkpoint_every = 100
  # Exponential moving average of the parameters; 0 = off.
  c.ema_decay = 0.0
  # Parts in which a device embeds its share of a batch, one after another, so
  # that a batch that does not fit can be trained on: the loss is of the whole
  # batch all the same, for one more forward pass. Only batch normalisation is
  # of each part.
  c.accumulate = 1
  # A loss or gradient that is not finite: "stop" ends the run, "skip" leaves
  # the batch out. Either way nothing is updated from it, and it is named.
  c.on_nan = "stop"
  # Embeddings that have all fallen together: "warn", or "stop" the run.
  c.on_collapse = "warn"
  # Folder of a model bundle whose encoder's weights the run starts from; ""
  # = none. Its architecture must be this config's.
  c.init_from = ""

  c.dataset = ml_collections.ConfigDict()
  # One of data/sets.py, or several prepared ones with commas between.
  c.dataset.name = "olivetti"
  c.dataset.data_dir = ""
  # Olivetti: which of its four groups of ten people is held out for the test.
  c.dataset.fold = 0
  # People kept from training, to watch it and, with calibration.kind =
  # "validation", to calibrate on. Of a data set's own validation people,
  # where it has some.
  c.dataset.num_validation = 6
  # People with fewer images, in all sets together, are not trained on.
  c.dataset.min_images = 1
  # 1 = grey, 3 = colour.
  c.dataset.channels = 1
  # Side of the square in the middle of an image that is scaled to image_size,
  # as a share of the shorter side. Olivetti has a framing of its own.
  c.dataset.crop = 1.0
  # Gigabytes of the host's memory for the faces of a prepared data set; more
  # are left on the disk and read when they are asked for.
  c.dataset.memory_gb = 4.0
  # A file that says which people and images of the data set are left out, by
  # number; `facesiam audit` writes one.
  c.dataset.exclude = ""
  # Of "synthetic": drawn people, and pictures of each.
  c.dataset.num_people = 200
  c.dataset.images_per_person = 20

  # How the faces reach the device. "resident": all training faces live there;
  # "streaming": each step's are read for it; "auto": resident where they fit
  # into memory_gb gigabytes of each device, and on their way from the disk
  # into dataset.memory_gb of the host.
  c.feed = ml_collections.ConfigDict()
  c.feed.kind = "auto"
  c.feed.memory_gb = 4.0
  # Of streaming: reader threads (0 = two for each core), worker processes
  # (0 = none), batches that wait ready.
  c.feed.threads = 0
  c.feed.workers = 0
  c.feed.prefetch = 2

  # The encoder's attributes are its args: dim, dropout; of most dtype, in which
  # it computes ("bfloat16"; parameters and losses stay float32), and remat, to
  # compute the insides of its blocks again on the way back and not keep them
  # (on CPU from JAX 0.12 on: XLA undoes it there under 0.10).
  c.encoder = ml_collections.ConfigDict()
  c.encoder.name = "article_cnn"
  c.encoder.args = ml_collections.ConfigDict()
  c.head = ml_collections.ConfigDict()
  c.head.name = "cosine_logistic"
  c.head.args = ml_collections.ConfigDict()
  c.objective = ml_collections.ConfigDict()
  c.objective.name = "supcon"
  c.objective.args = ml_collections.ConfigDict()

  # What the first step starts from. "random": the encoder's own init.
  # "whitening": its last layer fitted in closed form to the training people
  # (training/whitening.py), each image with so many augmented copies.
  c.start = ml_collections.ConfigDict()
  c.start.kind = "random"
  c.start.num_copies = 4
  c.start.shrinkage = 0.1

  c.standardize = ml_collections.ConfigDict()
  # For "fixed" numbers, or tuples of one a channel.
  c.standardize.kind = "fixed"
  c.standardize.mean = 0.5
  c.standardize.std = 0.25
  # Strengths of facesiam_jax.augment.augment; all 0 = off.
  c.augment = ml_collections.ConfigDict()
  for name in (
    *("flip", "rotation_deg", "shear_deg", "scale", "stretch", "shift"),
    *("elastic", "gain", "offset", "gradient", "gamma", "noise", "erase"),
  ):
    c.augment[name] = 0.0
  c.augment.erase_probability = 0.5
  # Strengths of facesiam_jax.augment.new_people, for P x K objectives: each
  # person of a batch deformed and shaded in a way of their own.
  c.new_people = ml_collections.ConfigDict()
  c.new_people.reshape = 0.0
  c.new_people.shade = 0.0
  # Share of the faces that get drawn glasses (facesiam_jax.glasses).
  c.glasses = 0.0

  c.optimizer = ml_collections.ConfigDict()
  c.optimizer.name = "adamw"
  c.optimizer.learning_rate = 1e-3
  # "constant"; "cosine", down to `final` times the rate at the last step; or
  # "step", times step_factor from each of step_at (shares of the run) on.
  c.optimizer.schedule = "cosine"
  c.optimizer.final = 0.0
  c.optimizer.step_at = (0.5, 0.75)
  c.optimizer.step_factor = 0.1
  # Steps in which the rate rises from 0, linearly.
  c.optimizer.warmup_steps = 0
  # Of adamw and sgd, on parameters of two axes or more: not on biases, on
  # normalisation, on PReLU's slopes.
  c.optimizer.weight_decay = 1e-4
  c.optimizer.momentum = 0.9
  # The largest norm of the gradient; 0 = any.
  c.optimizer.clip_norm = 0.0
  # Factors of the learning rate: of the head, of the objective's own
  # parameters (class centres, proxies).
  c.optimizer.head_multiplier = 1.0
  c.optimizer.objective_multiplier = 1.0
  # First steps in which the encoder stays as it is, running statistics of
  # batch normalisation included, and only the rest is trained.
  c.optimizer.freeze_steps = 0

  # Views of a face whose embeddings are averaged when it is recognised.
  c.views = ml_collections.ConfigDict()
  c.views.mirror = False
  # Fractions of the side; 0 = off.
  c.views.shift = 0.0
  c.views.scale = 0.0

  c.calibration = ml_collections.ConfigDict()
  # "validation": on the validation people. "cross_fit": the training people
  # are split into inner_folds groups, a network is trained without each, and
  # the pooled scores of people no network had seen are used.
  c.calibration.kind = "validation"
  c.calibration.inner_folds = 3
  # Steps of an inner network; 0 = num_steps.
  c.calibration.inner_steps = 0
  # Share of impostors that the default threshold may accept there; 0 takes
  # the threshold of equal error instead.
  c.calibration.target_fmr = 0.01
  return c.lock()


def _leaves(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
  for key in sorted(config):
    value = config[key]
    if isinstance(value, ml_collections.ConfigDict) and len(value):
      yield from _leaves(value, f"{prefix}{key}.")
    else:
      yield f"{prefix}{key}", value


def to_json(config: ml_collections.ConfigDict) -> str:
  """Returns the config as JSON with sorted keys."""
  return json.dumps(json.loads(config.to_json()), indent=2, sort_keys=True)


def differences(
  config: ml_collections.ConfigDict, other: ml_collections.ConfigDict
) -> list[str]:
  """Returns the dotted names of fields that differ, sorted."""
  # Through JSON, which knows no tuples, so that a config read back from a
  # file equals the one that was written.
  mine, theirs = (
    dict(_leaves(ml_collections.ConfigDict(json.loads(to_json(c)))))
    for c in (config, other)
  )
  return sorted(
    name
    for name in mine.keys() | theirs.keys()
    if name not in mine or name not in theirs or mine[name] != theirs[name]
  )


def _check_fields(config: ml_collections.ConfigDict) -> None:
  """Raises UserError if a field is unknown, missing or of another type."""
  expected = dict(_leaves(default_config()))
  for name, value in _leaves(config):
    if name.startswith(_PLACEHOLDER_FIELDS):
      continue
    if name not in expected:
      raise errors.UserError(
        f"the config has an unknown field {name!r}; the fields are those of "
        "facesiam_jax.training.config.default_config()."
      )
    if name in _PER_CHANNEL and isinstance(value, list | tuple):
      sound = len(value) == config.dataset.channels
      sound &= all(isinstance(number, float) for number in value)
      _require(sound, name, value, "a number, or one float for each channel")
      continue
    wanted = type(expected[name])
    if type(value) is not wanted and not (wanted is float and value == 0):
      raise errors.UserError(
        f"config.{name} must be of type {wanted.__name__}, got {value!r}."
      )
  present = {name for name, _ in _leaves(config)}
  for name in sorted(expected.keys() - present):
    if not name.startswith(_PLACEHOLDER_FIELDS):
      raise errors.UserError(
        f"the config lacks the field {name!r}; start from "
        "facesiam_jax.training.config.default_config()."
      )


def _require(condition: bool, name: str, value: Any, wanted: str) -> None:
  if not condition:
    raise errors.UserError(f"config.{name} must be {wanted}, got {value!r}.")


def _validate_start(c: ml_collections.ConfigDict) -> None:
  """Checks what the run starts from, and its length."""
  start = c.start
  _require(start.kind in _STARTS, "start.kind", start.kind, f"in {_STARTS}")
  _require(
    start.num_copies >= 0, "start.num_copies", start.num_copies, "at least 0"
  )
  _require(
    start.shrinkage > 0, "start.shrinkage", start.shrinkage, "more than 0"
  )
  whitened = start.kind == "whitening"
  fewest = 0 if whitened else 1
  _require(
    c.num_steps >= fewest, "num_steps", c.num_steps, f"at least {fewest}"
  )
  _require(
    not (whitened and (c.new_people.reshape or c.new_people.shade)),
    "new_people",
    c.new_people.to_dict(),
    'all 0 with start.kind = "whitening", which fits the people as they are',
  )


def _validate_dataset(c: ml_collections.ConfigDict) -> None:
  """Checks in what form faces are read."""
  _require(c.channels in (1, 3), "dataset.channels", c.channels, "1 or 3")
  _require(0 < c.crop <= 1, "dataset.crop", c.crop, "in (0, 1]")
  _require(c.memory_gb > 0, "dataset.memory_gb", c.memory_gb, "more than 0")
  _require(c.min_images >= 1, "dataset.min_images", c.min_images, "at least 1")


def _validate_feed(c: ml_collections.ConfigDict) -> None:
  """Checks how the faces reach the device."""
  feed = c.feed
  _require(feed.kind in _FEEDS, "feed.kind", feed.kind, f"in {_FEEDS}")
  _require(feed.memory_gb > 0, "feed.memory_gb", feed.memory_gb, "more than 0")
  for name, least in (("threads", 0), ("workers", 0), ("prefetch", 1)):
    _require(
      feed[name] >= least, f"feed.{name}", feed[name], f"at least {least}"
    )


def _validate_optimizer(c: ml_collections.ConfigDict, num_steps: int) -> None:
  """Checks the optimizer's numbers; its names are checked where it is made."""
  for name in (
    *("learning_rate", "weight_decay", "warmup_steps", "clip_norm"),
    *("head_multiplier", "objective_multiplier", "freeze_steps"),
  ):
    _require(c[name] >= 0, f"optimizer.{name}", c[name], "at least 0")
  for name in ("momentum", "final", "step_factor"):
    _require(0 <= c[name] <= 1, f"optimizer.{name}", c[name], "in [0, 1]")
  _require(
    list(c.step_at) == sorted(set(c.step_at))
    and all(0 < share < 1 for share in c.step_at),
    "optimizer.step_at",
    c.step_at,
    "rising shares of the run, in (0, 1)",
  )
  _require(
    c.freeze_steps <= num_steps,
    "optimizer.freeze_steps",
    c.freeze_steps,
    f"at most num_steps ({num_steps})",
  )


def validate(config: ml_collections.ConfigDict) -> None:
  """Checks a config before anything is read or written.

  Args:
    config: from a recipe, with the command line's changes.

  Raises:
    errors.UserError: for an unknown or missing field, a wrong type or a value
      out of range, naming the field and what it must be.
  """
  _check_fields(config)
  c = config
  _validate_start(c)
  _validate_feed(c)
  _require(c.image_size >= 16, "image_size", c.image_size, "at least 16")
  _require(
    c.steps_per_call >= 0, "steps_per_call", c.steps_per_call, "at least 0"
  )
  _require(c.log_every >= 1, "log_every", c.log_every, "at least 1")
  for name in ("eval_every", "checkpoint_every"):
    _require(
      c[name] >= 1 and c[name] % c.log_every == 0,
      name,
      c[name],
      f"a positive multiple of log_every ({c.log_every})",
    )
  _require(
    c.dataset.num_validation == 0 or c.checkpoint_every % c.eval_every == 0,
    "checkpoint_every",
    c.checkpoint_every,
    f"a multiple of eval_every ({c.eval_every}), so that each checkpoint has "
    "its validation loss",
  )
  _require(0 <= c.ema_decay < 1, "ema_decay", c.ema_decay, "in [0, 1)")
  _require(c.accumulate >= 1, "accumulate", c.accumulate, "at least 1")
  _require(c.on_nan in _ON_NAN, "on_nan", c.on_nan, f"in {_ON_NAN}")
  _require(
    c.on_collapse in _ON_COLLAPSE,
    "on_collapse",
    c.on_collapse,
    f"in {_ON_COLLAPSE}",
  )
  _validate_optimizer(c.optimizer, c.num_steps)
  _validate_dataset(c.dataset)
  kind = c.calibration.kind
  _require(
    kind in _CALIBRATIONS,
    "calibration.kind",
    kind,
    f"one of {_CALIBRATIONS}",
  )
  _require(
    c.calibration.inner_folds >= 2,
    "calibration.inner_folds",
    c.calibration.inner_folds,
    "at least 2",
  )
  _require(
    0 <= c.calibration.target_fmr < 1,
    "calibration.target_fmr",
    c.calibration.target_fmr,
    "in [0, 1)",
  )
  _require(0 <= c.glasses <= 1, "glasses", c.glasses, "in 0..1")
  drawn = c.objective.name in _DRAWN
  _require(
    not (drawn and (c.new_people.reshape or c.new_people.shade)),
    "new_people",
    c.new_people.to_dict(),
    f"all 0 with objective {c.objective.name!r}, whose examples share people",
  )
  needs_people = kind == "validation" and c.dataset.num_validation < 2
  _require(
    not needs_people,
    "dataset.num_validation",
    c.dataset.num_validation,
    'at least 2 with calibration.kind = "validation"',
  )
