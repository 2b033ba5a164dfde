"""Judging what the steps report: not finite, skipped, collapsed.

The step itself makes no update from a batch whose loss or gradient is not
finite. Here, on the host and between two lines of metrics, the run is stopped,
or goes on, as the config says, and the batch is named.
"""

import json
import logging
import pathlib

import jax.numpy as jnp
import ml_collections
import numpy as np

from facesiam_jax import errors, files, parallel, sampling
from facesiam_jax.metrics import collapse
from facesiam_jax.training import checkpoint
from facesiam_jax.training import recipe as recipe_lib
from facesiam_jax.training import split as split_lib

_NAMED = 8


class Health:
  """Judges the steps between two lines of metrics."""

  def __init__(
    self,
    config: ml_collections.ConfigDict,
    recipe: recipe_lib.Recipe,
    train: split_lib.Split,
    workdir: pathlib.Path,
    saver: checkpoint.Checkpointer,
  ) -> None:
    self._config, self._recipe = config, recipe
    self._train, self._workdir, self._saver = train, workdir, saver
    self._warned = False

  def _last_good(self) -> str:
    """Names the checkpoint that a run goes on from."""
    newest = self._saver.newest_step()
    if newest is None:
      return "there is no checkpoint yet"
    folder = self._saver.folder / str(newest)
    return f"the last good checkpoint is {folder}"

  def _name_batch(self, step: int) -> str:
    """Writes which images a step took to a file, and names some.

    The draw is a function of the seed and the step: nothing has to be kept
    of any step to make it again.
    """
    ids = np.asarray(self._train.identity_ids)
    rows = self._recipe.objective.draw(
      sampling.index_identities(ids),
      self._recipe.draw_key(),
      jnp.int32(step - 1),
    )
    own = np.asarray(rows)
    path = self._workdir / f"bad-batch-{step}.json"
    batch = {
      "step": step,
      "images": own.tolist(),
      "identity_ids": ids[own].tolist(),
    }
    if parallel.is_main():
      files.write(path, json.dumps(batch) + "\n")
    some = ", ".join(map(str, own[:_NAMED]))
    return f"its batch is in {path}: training images {some}, ..."

  def _explain(self, step: int, values: dict[str, float]) -> str:
    what = " and ".join(
      f"the {name} became {value}"
      for name, value in values.items()
      if not np.isfinite(value)
    )
    return f"{what} in step {step}; {self._name_batch(step)}"

  def means(
    self, step: int, reported: dict[str, np.ndarray]
  ) -> dict[str, float]:
    """Returns the means of the steps since the last line, those skipped apart.

    Args:
      step: number of finished steps.
      reported: of each name the values of the steps up to it, float32 [n].

    Returns:
      Means over the sound steps, and with on_nan = "skip" the number of
      "skipped" ones.

    Raises:
      errors.UserError: if a step was not sound and the config says to stop,
        or none was sound; or if all embeddings have fallen together and the
        config says to stop.
    """
    sound = np.isfinite(reported["loss"]) & np.isfinite(reported["grad_norm"])
    first = step - len(sound) + 1
    bad = [int(i) for i in np.flatnonzero(~sound)]
    skipping = self._config.on_nan == "skip"
    for i in bad:
      told = self._explain(
        first + i, {name: float(reported[name][i]) for name in reported}
      )
      if not skipping or not sound.any():
        raise errors.UserError(
          f"{told}; {self._last_good()}; lower config.optimizer.learning_rate, "
          "set config.optimizer.clip_norm, or leave such batches out with "
          'config.on_nan="skip" in another --workdir.'
        )
      logging.getLogger(__name__).warning("%s; it was skipped.", told)
    means = {
      name: float(np.mean(values[sound], dtype=np.float64))
      for name, values in reported.items()
    }
    self._judge_spread(step, means["spread"])
    return {**means, "skipped": float(len(bad))} if skipping else means

  def _judge_spread(self, step: int, spread: float) -> None:
    if not collapse.is_collapsed(spread):
      return
    told = (
      f"all embeddings are nearly the same at step {step} (spread "
      f"{spread:.4f}): training has collapsed"
    )
    mend = (
      "lower config.optimizer.learning_rate, or choose an objective without "
      "hardest negatives."
    )
    if self._config.on_collapse == "stop":
      raise errors.UserError(
        f"{told}; {self._name_batch(step)}; {self._last_good()}; {mend}"
      )
    if not self._warned:
      self._warned = True
      logging.getLogger(__name__).warning("%s; %s", told, mend)
