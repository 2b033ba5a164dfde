"""The training loop of one network: resumes by itself, ends with a state."""

import contextlib
import dataclasses
import functools
import logging
import math
import os
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import tqdm

from facesiam_jax import encoders, errors, heads, parallel, sampling
from facesiam_jax.data import feeds
from facesiam_jax.encoders import inference
from facesiam_jax.metrics import collapse
from facesiam_jax.training import (
  checkpoint,
  metric_writer,
  objectives,
  whitening,
)
from facesiam_jax.training import optimizer as optimizer_lib
from facesiam_jax.training import state as state_lib
from facesiam_jax.training import step as step_lib

# Purposes of random keys, apart from those of a step (step.py).
_INIT, _EVAL, _OBJECTIVE = 100, 101, 102
_MOST_STEPS_PER_CALL = 50
_EMBED_BLOCK = 64


@dataclasses.dataclass(frozen=True)
class Split:
  """Images of some people.

  Attributes:
    images: uint8 [N, H, W, C]; or `data.records.RecordImages`, read when
      asked for.
    identity_ids: int32 [N].
  """

  images: Any
  identity_ids: np.ndarray


def make_recipe(config: ml_collections.ConfigDict) -> step_lib.Recipe:
  """Builds the static parts of a run from its config.

  Args:
    config: a valid training config.

  Returns:
    The recipe.

  Raises:
    errors.UserError: if a part is unknown or its arguments do not fit.
  """
  try:
    encoder = encoders.create(config.encoder.name, **config.encoder.args)
    if hasattr(encoder, "axis_name"):
      encoder = encoder.clone(axis_name=parallel.AXIS)
    return step_lib.Recipe(
      encoder=encoder,
      head=heads.create(config.head.name, **config.head.args),
      objective=objectives.create(
        config.objective.name, **config.objective.args
      ),
      optimizer=optimizer_lib.make_optimizer(
        config.optimizer, config.num_steps
      ),
      standardize=config.standardize.to_dict(),
      augment=config.augment.to_dict(),
      new_people=config.new_people.to_dict(),
      glasses=config.glasses,
      seed=config.seed,
      ema_decay=config.ema_decay,
    )
  except (ValueError, ImportError, AttributeError) as error:
    text = str(error).rstrip(".")
    raise errors.UserError(
      f"the config names a part that cannot be built: {text}."
    ) from error


def init_state(
  recipe: step_lib.Recipe, image_shape: tuple[int, int, int], num_people: int
) -> state_lib.TrainState:
  """Returns the state before the first step, a function of the seed.

  Args:
    recipe: from `make_recipe`.
    image_shape: (H, W, C) of a face.
    num_people: people to train on, for objectives that have a class a person.

  Returns:
    The state, on the default device.
  """
  key = jax.random.fold_in(jax.random.key(recipe.seed), _INIT)
  encoder_key, head_key = jax.random.split(key)
  image = jnp.zeros((1, *image_shape), jnp.float32)
  variables = jax.jit(functools.partial(recipe.encoder.init, train=False))(
    encoder_key, image
  )
  embedding = jax.eval_shape(
    lambda v: recipe.encoder.apply(v, image, train=False), variables
  )
  zeros = jnp.zeros(embedding.shape, jnp.float32)
  params = {
    "encoder": variables["params"],
    "head": recipe.head.init(head_key, zeros, zeros)["params"],
    "objective": recipe.objective.init(
      jax.random.fold_in(key, _OBJECTIVE), num_people, embedding.shape[1]
    ),
  }
  return state_lib.create(
    params,
    variables.get("batch_stats", {}),
    recipe.optimizer,
    with_ema=recipe.ema_decay > 0,
  )


def settings_of(
  config: ml_collections.ConfigDict, recipe: step_lib.Recipe
) -> inference.Settings:
  """Returns how the run's network turns faces into embeddings."""
  return inference.Settings(
    standardize=config.standardize.to_dict(),
    normalize=recipe.head.metric == "cosine",
    **config.views.to_dict(),
  )


def encoder_variables(state: state_lib.TrainState) -> dict[str, Any]:
  """Returns the encoder's variables to measure and ship."""
  variables = {"params": state.eval_params["encoder"]}
  if state.batch_stats:
    variables["batch_stats"] = state.batch_stats
  return variables


def make_embedder(
  recipe: step_lib.Recipe, settings: inference.Settings
) -> Callable[[state_lib.TrainState, np.ndarray], np.ndarray]:
  """Returns a function (state, uint8 faces [N, H, W, C]) -> [N, D]."""
  block = jax.jit(
    lambda variables, images: inference.embed(
      recipe.encoder, variables, images, settings
    )
  )

  def embedder(state: state_lib.TrainState, images: np.ndarray) -> np.ndarray:
    variables = jax.device_get(encoder_variables(state))
    parts = []
    for first in range(0, len(images), _EMBED_BLOCK):
      part = images[first : first + _EMBED_BLOCK]
      padding = ((0, _EMBED_BLOCK - len(part)), *((0, 0),) * 3)
      parts.append(block(variables, np.pad(part, padding))[: len(part)])
    return np.concatenate([np.asarray(part) for part in parts])

  return embedder


def make_measure(
  recipe: step_lib.Recipe, settings: inference.Settings, validation: Split
) -> Callable[[state_lib.TrainState], dict[str, float]]:
  """Returns a function that measures a state on the validation people.

  The examples are drawn once, from the seed, so that the curve moves with the
  network alone; there is no augmentation and no dropout.

  Args:
    recipe: from `make_recipe`.
    settings: of the embeddings; their views are not averaged here.
    validation: images of people that are not trained on.

  Returns:
    state -> {"loss", "accuracy"}.
  """
  embedder = make_embedder(
    recipe, dataclasses.replace(settings, mirror=False, shift=0.0, scale=0.0)
  )
  index = sampling.index_identities(validation.identity_ids)
  numbers = np.unique(validation.identity_ids, return_inverse=True)[1]
  key = jax.random.fold_in(jax.random.key(recipe.seed), _EVAL)
  rows = np.asarray(recipe.objective.draw_eval(index, key))
  ids = jnp.asarray(numbers[rows], jnp.int32)

  @jax.jit
  def judge(params: Any, embeddings: jax.Array) -> tuple[jax.Array, jax.Array]:
    batch = objectives.Embedded(
      own=embeddings,
      own_ids=ids,
      own_rows=jnp.arange(len(rows)),
      columns=embeddings,
      column_ids=ids,
      params=params["objective"],
    )
    head = step_lib.apply_head(recipe, params)
    terms = recipe.objective.eval_terms(head, batch)
    total = jnp.maximum(jnp.sum(terms.weights), 1.0)
    loss = jnp.sum(terms.values * terms.weights) / total
    return loss, jnp.mean(terms.correct)

  def measure(state: state_lib.TrainState) -> dict[str, float]:
    embeddings = embedder(state, validation.images)[rows]
    params = jax.device_get(state.eval_params)
    loss, accuracy = judge(params, embeddings)
    return {"loss": float(loss), "accuracy": float(accuracy)}

  return measure


def resolve_steps_per_call(
  config: ml_collections.ConfigDict, streamed: bool = False
) -> int:
  """Returns how many steps one call makes: a divisor of every interval.

  Args:
    config: a valid training config; `steps_per_call` = 0 leaves the choice
      to the platform: 1 on CPU, where a call costs nothing, up to 50 elsewhere.
    streamed: whether each step has a batch of its own, and so a call.

  Returns:
    The number of steps, >= 1.
  """
  if streamed:
    return 1
  wanted = config.steps_per_call
  if not wanted:
    wanted = 1 if jax.default_backend() == "cpu" else _MOST_STEPS_PER_CALL
  common = math.gcd(config.log_every, config.num_steps)
  return max(n for n in range(1, common + 1) if not common % n and n <= wanted)


class _Run:
  """The moving parts of one call of `fit`, so that its steps stay short."""

  def __init__(
    self,
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    train: Split,
    validation: Split | None,
  ) -> None:
    self.config, self.workdir = config, workdir
    self.mesh = parallel.make_mesh()
    self.recipe = make_recipe(config)
    self._check_batch()
    self.feed = self._make_feed(train)
    self.chunk = resolve_steps_per_call(config, self.feed.streamed)
    self.train_steps = step_lib.make_train_steps(
      self.recipe, self.mesh, self.chunk, streamed=self.feed.streamed
    )
    self.measure = None
    if validation is not None:
      settings = settings_of(config, self.recipe)
      self.measure = make_measure(self.recipe, settings, validation)
    self.train = train
    state = init_state(
      self.recipe, train.images.shape[1:], self.feed.num_people
    )
    self.state = parallel.replicate(state, self.mesh)
    self.pending: list[dict[str, jax.Array]] = []
    self.loss = math.nan
    self.warned = False

  def _check_batch(self) -> None:
    objective, devices = self.recipe.objective, self.mesh.size
    if objective.batch_rows % (devices * objective.row_group):
      raise errors.UserError(
        f"the config's batch of {objective.batch_rows} images does not divide "
        f"evenly by {devices} devices; change config.objective.args."
      )

  def _make_feed(self, train: Split) -> feeds.Feed:
    return feeds.make_feed(
      self.config.feed,
      train.images,
      train.identity_ids,
      objective=self.recipe.objective,
      draw_key=self.recipe.draw_key(),
      mesh=self.mesh,
      num_steps=self.config.num_steps,
      host_gb=self.config.dataset.memory_gb,
    )

  def start(self) -> None:
    """Fits the encoder's last layer in closed form, where the config says."""
    start = self.config.start
    if start.kind != whitening.KIND:
      return
    params = whitening.fit_projection(
      self.recipe,
      jax.device_get(self.state.params),
      self.train.images,
      self.train.identity_ids,
      num_copies=start.num_copies,
      shrinkage=start.shrinkage,
      memory_gb=self.config.dataset.memory_gb,
    )
    state = state_lib.create(
      params,
      jax.device_get(self.state.batch_stats),
      self.recipe.optimizer,
      with_ema=self.recipe.ema_decay > 0,
    )
    self.state = parallel.replicate(state, self.mesh)

  def log(self, step: int, writer: metric_writer.MetricWriter) -> None:
    """Writes the means since the last line; stops the run if not finite."""
    host = jax.device_get(self.pending)
    self.pending = []
    means = {
      name: float(
        np.mean(np.concatenate([m[name] for m in host]), dtype=np.float64)
      )
      for name in host[0]
    }
    for name, value in means.items():
      if not math.isfinite(value):
        raise errors.UserError(
          f"the {name} became {value} between steps {step} and "
          f"{step - len(host) * self.chunk}; the last good checkpoint is kept "
          f"in {self.workdir / 'checkpoints'}; lower "
          "config.optimizer.learning_rate or set config.optimizer.clip_norm."
        )
    self.loss = means["loss"]
    writer.write(step, "train", means)
    if not self.warned and collapse.is_collapsed(means["spread"]):
      self.warned = True
      logging.getLogger(__name__).warning(
        "all embeddings are nearly the same at step %d (spread %.4f): training "
        "has collapsed; lower config.optimizer.learning_rate, or choose an "
        "objective without hardest negatives.",
        step,
        means["spread"],
      )

  def evaluate(self, step: int, writer: metric_writer.MetricWriter) -> None:
    """Measures the state on validation people, where there are some."""
    if self.measure is not None:
      values = self.measure(self.state)
      self.loss = values["loss"]
      writer.write(step, "validation", values)

  def save_start(
    self,
    writer: metric_writer.MetricWriter,
    saver: checkpoint.Checkpointer,
  ) -> None:
    """Measures and saves the state before the first step."""
    self.evaluate(0, writer)
    saver.save(0, self.state, None if math.isnan(self.loss) else self.loss)

  def advance(
    self,
    writer: metric_writer.MetricWriter,
    saver: checkpoint.Checkpointer,
    bar: Any,
  ) -> None:
    """Runs from the present step to the last."""
    config, step = self.config, int(self.state.step)
    rows = self.recipe.objective.batch_rows
    since = time.perf_counter()
    while step < config.num_steps:
      self.state, metrics = self.train_steps(self.state, self.feed.at(step))
      self.pending.append(metrics)
      step += self.chunk
      last = step == config.num_steps
      if not (last or step % config.log_every == 0):
        continue
      num_steps = len(self.pending) * self.chunk
      self.log(step, writer)
      seconds = time.perf_counter() - since
      rate = num_steps * rows / seconds
      writer.write_time(step, {"seconds": seconds, "images_per_second": rate})
      if last or step % config.eval_every == 0:
        self.evaluate(step, writer)
      if last or step % config.checkpoint_every == 0:
        saver.save(step, self.state, self.loss)
      bar.set_postfix_str(f"{rate:.0f} images/s, loss {self.loss:.4f}")
      bar.update(num_steps)
      since = time.perf_counter()


def fit(
  config: ml_collections.ConfigDict,
  workdir: str | os.PathLike[str],
  train: Split,
  validation: Split | None,
  *,
  label: str = "training",
) -> state_lib.TrainState:
  """Trains one network, from its newest sound checkpoint if there is one.

  A run that was stopped at any moment and started again ends with the same
  bits as one that never stopped, on the same machine and number of devices.

  Args:
    config: a valid training config.
    workdir: where checkpoints and metrics go; held by this process.
    train: images to train on.
    validation: images of other people to measure on; None for no measure.
    label: what the progress bar calls the run.

  Returns:
    The state after the last step.

  Raises:
    errors.UserError: if a part cannot be built, the loss is not finite, a
      checkpoint is damaged or the disk is full.
  """
  folder = pathlib.Path(workdir)
  folder.mkdir(parents=True, exist_ok=True)
  run = _Run(config, folder, train, validation)
  with (
    contextlib.closing(run.feed),
    checkpoint.Checkpointer(folder) as saver,
  ):
    restored = saver.restore_latest(run.state)
    if restored is None:
      run.start()
    else:
      run.state = restored
    step = int(run.state.step)
    kept = -1 if restored is None else step
    bar = tqdm.tqdm(
      total=config.num_steps,
      initial=step,
      desc=f"{label} ({run.feed.summary})",
      unit="step",
    )
    with bar, metric_writer.MetricWriter(folder, kept) as writer:
      if restored is None and config.num_steps == 0:
        run.save_start(writer, saver)
      run.advance(writer, saver, bar)
  return run.state
