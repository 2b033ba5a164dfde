"""The training loop of one network: resumes by itself, ends with a state."""

import contextlib
import dataclasses
import math
import os
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import ml_collections
import numpy as np
import tqdm

from facesiam_jax import errors, parallel
from facesiam_jax.data import feeds
from facesiam_jax.training import (
  checkpoint,
  health,
  measuring,
  metric_writer,
  pictures,
  preemption,
  profiling,
  provenance,
  starting,
)
from facesiam_jax.training import recipe as recipe_lib
from facesiam_jax.training import split as split_lib
from facesiam_jax.training import state as state_lib
from facesiam_jax.training import step as step_lib

_MOST_STEPS_PER_CALL = 50


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
  common = math.gcd(
    config.log_every, config.num_steps, config.optimizer.freeze_steps
  )
  return max(n for n in range(1, common + 1) if not common % n and n <= wanted)


def _check_batch(recipe: recipe_lib.Recipe, num_devices: int) -> None:
  rows, group = recipe.objective.batch_rows, recipe.objective.row_group
  if rows % (num_devices * group):
    raise errors.UserError(
      f"the config's batch of {rows} images does not divide evenly by "
      f"{num_devices} devices; change config.objective.args."
    )
  if rows // num_devices % recipe.accumulate:
    raise errors.UserError(
      f"config.accumulate={recipe.accumulate} does not divide the "
      f"{rows // num_devices} images that each of {num_devices} devices has "
      "of a batch; change it or config.objective.args."
    )


@dataclasses.dataclass(frozen=True)
class _Outside:
  """What a run reports to, and what it is stopped by."""

  writer: metric_writer.MetricWriter
  saver: checkpoint.Checkpointer
  health: health.Health
  watch: preemption.Watch
  trace: profiling.Trace
  bar: Any


class _Run:
  """The moving parts of one call of `fit`, so that its steps stay short."""

  def __init__(
    self,
    config: ml_collections.ConfigDict,
    train: split_lib.Split,
    validation: split_lib.Split | None,
  ) -> None:
    self.config, self.train, self.validation = config, train, validation
    self.mesh = parallel.make_mesh()
    self.recipe = recipe_lib.make_recipe(config)
    _check_batch(self.recipe, self.mesh.size)
    self.feed = self._make_feed()
    self.recipe = dataclasses.replace(
      self.recipe, num_people=self.feed.num_people
    )
    self.chunk = resolve_steps_per_call(config, self.feed.streamed)
    self.measure = None
    if validation is not None:
      settings = recipe_lib.settings_of(config, self.recipe)
      self.measure = measuring.make_measure(
        self.recipe, settings, validation, self.mesh
      )
    self.state = recipe_lib.init_on_mesh(
      self.recipe, train.images.shape[1:], self.feed.num_people, self.mesh
    )
    self.pending: list[checkpoint.Reported] = []
    self.loss = math.nan

  def _make_feed(self) -> feeds.Feed:
    return feeds.make_feed(
      self.config.feed,
      self.train.images,
      self.train.identity_ids,
      objective=self.recipe.objective,
      draw_key=self.recipe.draw_key(),
      mesh=self.mesh,
      num_steps=self.config.num_steps,
      host_gb=self.config.dataset.memory_gb,
    )

  def start(self) -> None:
    """Starts from what the config wants."""
    drawn = {
      "params": jax.device_get(self.state.params["encoder"]),
      "batch_stats": jax.device_get(self.state.batch_stats),
    }
    wanted = starting.encoder(self.config, self.recipe, drawn, self.train)
    if wanted is not drawn:
      placed = parallel.replicate(wanted, self.mesh)
      self.state = self.state.with_encoder(**placed)

  def resume(self, saver: checkpoint.Checkpointer) -> int:
    """Takes up the newest checkpoint; returns its step, -1 without one."""
    restored = saver.restore_latest(self.state)
    if restored is None:
      self.start()
      return -1
    self.state, reported = restored
    if reported:
      self.pending.append(reported)
    return int(self.state.step)

  def make_steps(self, frozen: bool) -> Callable[..., Any]:
    """Returns the compiled steps, with the encoder frozen or not."""
    return step_lib.make_train_steps(
      self.recipe,
      self.mesh,
      self.chunk,
      streamed=self.feed.streamed,
      frozen=frozen,
      state_spec=recipe_lib.partition(self.recipe, self.state),
    )

  def reported(self) -> checkpoint.Reported:
    """Returns what the steps since the last line reported, on the host."""
    host = jax.device_get(self.pending)
    return {
      name: np.concatenate([one[name] for one in host])
      for name in (host[0] if host else {})
    }

  def evaluate(self, step: int, writer: metric_writer.MetricWriter) -> None:
    """Measures the state on validation people, where there are some."""
    if self.measure is None or self.validation is None:
      return
    values, embeddings = self.measure(self.state)
    self.loss = values["loss"]
    writer.write(step, "validation", values)
    if parallel.is_main():
      images, ids = self.validation.images, self.validation.identity_ids
      writer.write_pictures(
        step,
        pictures.histograms(embeddings, ids),
        pictures.triplets(images, embeddings, ids),
      )

  def save_start(self, out: _Outside) -> None:
    """Measures and saves the state before the first step."""
    self.evaluate(0, out.writer)
    loss = None if math.isnan(self.loss) else self.loss
    out.saver.save(0, self.state, loss)

  def at_line(self, out: _Outside, step: int, since: float) -> None:
    """Writes what was learned since the last line; measures, saves."""
    config, last = self.config, step == self.config.num_steps
    reported = self.reported()
    # Not before: steps are handed to the device, which is still at them.
    seconds = time.perf_counter() - since
    means = out.health.means(step, reported)
    self.pending = []
    self.loss = means["loss"]
    out.writer.write(step, "train", means)
    done = step - out.bar.n
    rate = done * self.recipe.objective.batch_rows / seconds
    out.writer.write_time(step, {"seconds": seconds, "images_per_second": rate})
    if last or step % config.eval_every == 0:
      self.evaluate(step, out.writer)
    if last or step % config.checkpoint_every == 0:
      out.saver.save(step, self.state, self.loss)
    out.bar.set_postfix_str(f"{rate:.0f} images/s, loss {self.loss:.4f}")
    out.bar.update(done)

  def stop(self, out: _Outside, step: int) -> None:
    """Saves, unless that is done, and ends the run."""
    if out.saver.newest_step() != step:
      out.saver.save(step, self.state, None, self.reported())
    out.saver.wait()
    out.watch.stop(step)

  def advance(self, out: _Outside) -> None:
    """Runs from the present step to the last, or until asked to stop."""
    config, step = self.config, int(self.state.step)
    frozen = step < config.optimizer.freeze_steps
    train_steps = self.make_steps(frozen)
    since = time.perf_counter()
    while step < config.num_steps:
      if frozen and step >= config.optimizer.freeze_steps:
        frozen = False
        train_steps = self.make_steps(frozen)
      self.state, metrics = train_steps(self.state, self.feed.at(step))
      self.pending.append(metrics)
      out.trace.after_call(metrics)
      step += self.chunk
      last = step == config.num_steps
      if last or step % config.log_every == 0:
        self.at_line(out, step, since)
        since = time.perf_counter()
      if not last and out.watch.stops_at(step, self.chunk):
        self.stop(out, step)


def fit(
  config: ml_collections.ConfigDict,
  workdir: str | os.PathLike[str],
  train: split_lib.Split,
  validation: split_lib.Split | None,
  *,
  label: str = "training",
  watch: preemption.Watch | None = None,
  profile: bool = False,
) -> state_lib.TrainState:
  """Trains one network, from its newest sound checkpoint if there is one.

  A run that was stopped at any moment and started again ends with the same
  bits as one that never stopped, on the same machine and number of devices.

  Args:
    config: a valid training config.
    workdir: where checkpoints and metrics go; held by this run.
    train: images to train on.
    validation: images of other people to measure on; None for no measure.
    label: what the progress bar calls the run.
    watch: knows whether the run is asked to stop; None: nothing asks.
    profile: whether a few steps are traced, into workdir/profile.

  Returns:
    The state after the last step.

  Raises:
    errors.UserError: if a part cannot be built, the loss is not finite, a
      checkpoint is damaged or the disk is full.
    preemption.Preempted: if it was asked to stop; what was done is saved.
  """
  folder, watch = pathlib.Path(workdir), watch or preemption.Watch()
  folder.mkdir(parents=True, exist_ok=True)
  run = _Run(config, train, validation)
  with (
    contextlib.closing(run.feed),
    checkpoint.Checkpointer(folder) as saver,
  ):
    kept = run.resume(saver)
    trace = profiling.Trace(folder / "profile" if profile else None)
    if parallel.is_main():
      provenance.write_overview(folder, run.state.params)
    bar = tqdm.tqdm(
      total=config.num_steps,
      initial=int(run.state.step),
      desc=f"{label} ({run.feed.summary})",
      unit="step",
      disable=not parallel.is_main(),
    )
    with bar, metric_writer.open_writer(folder, kept) as writer:
      judge = health.Health(config, run.recipe, train, folder, saver)
      out = _Outside(writer, saver, judge, watch, trace, bar)
      if kept < 0 and config.num_steps == 0:
        run.save_start(out)
      with watch.deferred(), trace:
        run.advance(out)
  return run.state
