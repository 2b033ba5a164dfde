"""Checkpoints of a run: asynchronous, checked by hash, latest and best kept.

A checkpoint is the state and what the steps since the last line of metrics
reported, so that a run stopped between two lines writes the same lines. With
several processes each writes its own part; process 0 does the rest.

The one file that knows Orbax. Orbax restores a checkpoint with flipped bits
without a word, so a SHA-256 manifest of its files is written after each
commit and verified before a restore; a checkpoint without a manifest was
never acknowledged and is not used.
"""

import json
import logging
import os
import pathlib
import shutil
from concurrent import futures
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from facesiam_jax import errors, files, parallel
from facesiam_jax.training import closing

_KEEP_LATEST = 2
_NONE, _ALL_DAMAGED = -1, -2
_log = logging.getLogger(__name__)

Reported = dict[str, np.ndarray]


def _goodness(metrics: dict[str, float]) -> float:
  return -metrics["loss"]


def _digests(folder: pathlib.Path) -> dict[str, str]:
  return {
    str(path.relative_to(folder)): files.sha256(path)
    for path in sorted(folder.rglob("*"))
    if path.is_file()
  }


def _preservation() -> checkpoint_managers.PreservationPolicy:
  # Not best_fn with max_to_keep: that deletes the newest step when it is not
  # among the best.
  return checkpoint_managers.AnyPreservationPolicy(
    [
      checkpoint_managers.LatestN(_KEEP_LATEST),
      checkpoint_managers.BestN(
        get_metric_fn=_goodness,
        n=1,
        keep_checkpoints_without_metrics=False,
      ),
    ]
  )


class Checkpointer(closing.Closing):
  """Saves and restores the state of the run in a directory.

  Attributes:
    folder: where the checkpoints are, one directory a step.
  """

  def __init__(self, workdir: str | os.PathLike[str]) -> None:
    self.folder = pathlib.Path(workdir).absolute() / "checkpoints"
    self._manifests = pathlib.Path(workdir).absolute() / "manifests"
    if parallel.is_main():
      self.folder.mkdir(parents=True, exist_ok=True)
      self._manifests.mkdir(exist_ok=True)
      self._drop_unacknowledged()
    parallel.barrier("checkpoints are sound")
    self._manager = ocp.CheckpointManager(
      self.folder,
      options=ocp.CheckpointManagerOptions(
        # Without best_fn the metrics would not be written, and a resumed run
        # would not know which of the old checkpoints is the best.
        best_fn=_goodness,
        preservation_policy=_preservation(),
        enable_async_checkpointing=True,
        cleanup_tmp_directories=True,
      ),
    )
    self._sealer = futures.ThreadPoolExecutor(1, "checkpoint-manifest")
    self._sealing: futures.Future[None] | None = None

  def _manifest(self, step: int) -> pathlib.Path:
    return self._manifests / f"{step}.json"

  def _drop_unacknowledged(self) -> None:
    """Removes steps whose manifest a kill prevented, so they can be saved."""
    for path in self.folder.iterdir():
      if path.name.isdigit() and not self._manifest(int(path.name)).exists():
        _log.warning(
          "checkpoint %s has no manifest, so it may be incomplete; it is "
          "removed and the one before it used.",
          path,
        )
        shutil.rmtree(path)

  def _seal(self, step: int) -> None:
    self._manager.wait_until_finished()
    if not parallel.is_main():
      return
    digests = _digests(self.folder / str(step))
    files.write(
      self._manifest(step), json.dumps(digests, indent=1, sort_keys=True)
    )
    kept = set(self._manager.all_steps())
    for path in self._manifests.glob("*.json"):
      if int(path.stem) not in kept:
        path.unlink()

  def save(
    self,
    step: int,
    state: Any,
    loss: float | None,
    reported: Reported | None = None,
  ) -> None:
    """Starts saving a state; returns when the arrays may be changed.

    Args:
      step: number of finished steps.
      state: a pytree of arrays.
      loss: validation loss, by which the best checkpoint is chosen; None
        where it was not measured.
      reported: what the steps since the last line of metrics reported, by
        name, float32 [n]; None for a save at a line.

    Raises:
      errors.UserError: if this or the save before it ran out of disk space.
    """
    self.wait()
    try:
      self._manager.save(
        step,
        args=ocp.args.Composite(
          state=ocp.args.StandardSave(state),
          # Through JSON a float32 comes back as it was.
          reported=ocp.args.JsonSave(
            {k: np.asarray(v).tolist() for k, v in (reported or {}).items()}
          ),
        ),
        metrics=None if loss is None else {"loss": loss},
        force=True,
      )
    except Exception as error:
      raise self._translated(error) from error
    self._sealing = self._sealer.submit(self._seal, step)

  def wait(self) -> None:
    """Waits until the save under way is complete and its manifest written."""
    sealing, self._sealing = self._sealing, None
    if sealing is None:
      return
    try:
      sealing.result()
    except Exception as error:
      raise self._translated(error) from error

  def newest_step(self) -> int | None:
    """Returns the step of the newest complete checkpoint, if there is one."""
    self.wait()
    return self._manager.latest_step()

  def _translated(self, error: Exception) -> Exception:
    text = str(error).lower()
    if "no space left" in text or "resource_exhausted" in text:
      return errors.UserError(
        f"no space left for the checkpoint in {self.folder}; free some and "
        "run the same command again, it resumes from the last complete one."
      )
    return error

  def _damage(self, step: int) -> str:
    """Says what is wrong with a checkpoint; "" if it is sound."""
    try:
      text = self._manifest(step).read_text(encoding="utf-8")
      recorded = json.loads(text)
    except ValueError:
      return f"{self._manifest(step)} cannot be read"
    found = _digests(self.folder / str(step))
    if missing := sorted(recorded.keys() - found.keys()):
      return f"{missing[0]} is missing"
    if added := sorted(found.keys() - recorded.keys()):
      return f"the manifest knows no {added[0]}"
    differing = [
      name for name in sorted(found) if found[name] != recorded[name]
    ]
    if differing:
      return f"the SHA-256 of {differing[0]} differs from the manifest"
    return ""

  def _newest_sound(self) -> int:
    """Returns the step to restore, _NONE or _ALL_DAMAGED; on process 0."""
    steps = sorted(self._manager.all_steps(), reverse=True)
    for step in steps:
      damage = self._damage(step)
      if not damage:
        return step
      _log.warning(
        "checkpoint %s is damaged (%s); using the one before it.",
        self.folder / str(step),
        damage,
      )
    return _ALL_DAMAGED if steps else _NONE

  def restore_latest(self, template: Any) -> tuple[Any, Reported] | None:
    """Returns the newest sound checkpoint, or None if there is none at all.

    A damaged checkpoint is reported, removed and the one before it taken.

    Args:
      template: a state of the same structure, shapes and shardings.

    Returns:
      (state, reported): the state, placed as the template, and what `save`
      was given with it.

    Raises:
      errors.UserError: if there are checkpoints and all are damaged, or they
        do not fit the template.
    """
    found = self._newest_sound() if parallel.is_main() else _NONE
    step = parallel.from_main(found)
    if step == _NONE:
      return None
    if step == _ALL_DAMAGED:
      raise errors.UserError(
        f"every checkpoint in {self.folder} is damaged; restore the files or "
        "give another --workdir."
      )
    return self._restore(step, template)

  def _restore(self, step: int, template: Any) -> tuple[Any, Reported]:
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, template)
    try:
      saved = self._manager.restore(
        step,
        args=ocp.args.Composite(
          state=ocp.args.StandardRestore(abstract),
          reported=ocp.args.JsonRestore(),
        ),
      )
    except (ValueError, KeyError) as error:
      raise errors.UserError(
        f"the checkpoint {self.folder / str(step)} does not fit this config's "
        "network; give another --workdir."
      ) from error
    self._forget_after(step)
    reported = {k: np.asarray(v, np.float32) for k, v in saved.reported.items()}
    return saved.state, reported

  def _forget_after(self, step: int) -> None:
    """Removes damaged checkpoints after `step`, to be saved anew."""
    for later in [s for s in self._manager.all_steps() if s > step]:
      if parallel.is_main():
        self._manifest(later).unlink(missing_ok=True)
      self._manager.delete(later)

  def close(self) -> None:
    """Finishes what is under way and releases all threads.

    Raises:
      errors.UserError: if the save under way ran out of disk space.
    """
    try:
      self.wait()
    finally:
      self._sealer.shutdown()
      try:
        # Raises what the last save raised, once more.
        self._manager.close()
      except Exception as error:
        raise self._translated(error) from error
