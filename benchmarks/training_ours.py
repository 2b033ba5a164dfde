"""Our side of benchmarks/training.py: the step that `facesiam train` runs."""

import os
from typing import Any

import numpy as np
import training_cases as cases

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Strengths that a recipe for photos has (configs/celeba.py is stronger still):
# one warp, light, and an erased square.
_AUGMENT = {
  "flip": 0.5,
  "rotation_deg": 15.0,
  "shear_deg": 8.0,
  "scale": 0.12,
  "shift": 0.06,
  "gain": 0.2,
  "offset": 0.1,
  "gradient": 0.4,
  "erase": 0.45,
}
_FACES = 400


def _config(
  case: cases.Case, augment: bool, objective: dict[str, Any] | None
) -> Any:
  from facesiam_jax.training import config as config_lib

  config = config_lib.default_config()
  args: dict[str, Any] = {"dim": case.dim}
  if case.network == "article_cnn":
    args |= {"widths": cases.ARTICLE_WIDTHS, "dropout": case.dropout}
  if objective is None and case.group == 2:
    # Any pair may come: the draw of a run of many people.
    objective = {"name": "pair_bce", "args": {"num_pairs": case.groups}}
    objective["args"]["per_image"] = False
  elif objective is None:
    objective = {"name": "triplet", "args": {"num_triplets": case.groups}}
    objective["args"]["margin"] = cases.MARGIN
  with config.unlocked():
    config.encoder.name, config.encoder.args = case.network, args
    config.head.name = "euclidean_logistic"
    config.objective.name = objective["name"]
    config.objective.args = objective["args"]
    config.standardize.mean, config.standardize.std = cases.MEAN, cases.STD
    config.optimizer.name = "adam"
    config.optimizer.learning_rate = cases.RATE
    config.optimizer.schedule = "constant"
    if augment:
      config.augment.update(_AUGMENT)
  return config


def _check_config(case: cases.Case) -> Any:
  config = _config(case, augment=False, objective=None)
  with config.unlocked():
    # A plain weight, as the others have.
    config.head.args = {
      "monotone": False,
      "init_weight": cases.HEAD_WEIGHT,
      "init_bias": cases.HEAD_BIAS,
    }
    config.optimizer.name = "sgd"
    config.optimizer.learning_rate = case.check_rate
    config.optimizer.momentum = config.optimizer.weight_decay = 0.0
  return config


def _article_params(state: dict[str, np.ndarray]) -> dict[str, Any]:
  """Returns the parameters of a PyTorch article network."""
  params: dict[str, Any] = {}
  for number in range(len(cases.ARTICLE_WIDTHS)):
    kernel = state[f"conv{number + 1}.weight"].transpose(2, 3, 1, 0)
    params[f"Conv_{number}"] = {
      "kernel": kernel,
      "bias": state[f"conv{number + 1}.bias"],
    }
  params["Dense_0"] = {"kernel": state["fc.weight"].T, "bias": state["fc.bias"]}
  return params


def _variables(case: cases.Case, path: str) -> dict[str, Any]:
  """Returns the encoder's variables from PyTorch's, by our own importers."""
  from facesiam_jax.pretrained import insightface, torchvision

  if case.network == "article_cnn":
    with np.load(path) as state:
      return {"params": _article_params(dict(state))}
  if case.network == "mobilefacenet":
    return insightface.read(path, encoder=case.network)[1]
  return torchvision.read(path, encoder=case.network)[1]


class Side:
  """The library's train step.

  Attributes:
    case: what is trained.
  """

  def __init__(
    self,
    case: cases.Case,
    *,
    augment: bool = True,
    fixed: bool = False,
    objective: dict[str, Any] | None = None,
  ) -> None:
    """Makes the state; nothing is compiled yet.

    Args:
      case: what is trained.
      augment: whether the step augments.
      fixed: whether the batch is one and the same, as a streaming feed hands it
        in; else the step draws from 400 resident faces.
      objective: {"name", "args"}; None for the case's own.
    """
    import jax

    from facesiam_jax import parallel
    from facesiam_jax.data import resident, streaming
    from facesiam_jax.training import recipe as recipe_lib
    from facesiam_jax.training import step as step_lib

    self.case = case
    self._jax = jax
    self._mesh = parallel.make_mesh()
    config = _config(case, augment, objective)
    recipe = recipe_lib.make_recipe(config)
    shape = (case.size, case.size, case.channels)
    self._state = parallel.replicate(
      recipe_lib.init_state(recipe, shape, 40), self._mesh
    )
    if fixed:
      self._data = self._batch()
    else:
      images, ids = cases.faces(case, _FACES)
      self._data = parallel.replicate(
        resident.make_resident(images, ids), self._mesh
      )
    assert isinstance(self._data, streaming.Batch) == fixed
    self._step = step_lib.make_train_steps(
      recipe, self._mesh, 1, streamed=fixed
    )

  def _batch(self) -> Any:
    from facesiam_jax import parallel
    from facesiam_jax.data import streaming

    images, ids = cases.batch(self.case)
    return parallel.split(streaming.Batch(images, ids), len(images), self._mesh)

  def steps(self, count: int) -> None:
    """Makes steps and waits for the last."""
    for _ in range(count):
      self._state, _ = self._step(self._state, self._data)
    self._jax.block_until_ready(self._state)

  def check(self, path: str) -> dict[str, Any]:
    """Returns the losses of a few plain steps from the weights in a file.

    Args:
      path: NumPy archive of PyTorch's state dict.
    """
    from facesiam_jax import parallel
    from facesiam_jax.training import recipe as recipe_lib
    from facesiam_jax.training import step as step_lib

    recipe = recipe_lib.make_recipe(_check_config(self.case))
    shape = (self.case.size, self.case.size, self.case.channels)
    state = recipe_lib.init_state(recipe, shape, 40)
    variables = _variables(self.case, path)
    state = state.with_encoder(**{"batch_stats": {}, **variables})
    state = parallel.replicate(state, self._mesh)
    step = step_lib.make_train_steps(recipe, self._mesh, 1, streamed=True)
    batch, losses = self._batch(), []
    for _ in range(cases.CHECK_STEPS):
      state, metrics = step(state, batch)
      losses.append(float(metrics["loss"][0]))
    leaves = self._jax.tree.leaves(variables["params"])
    return {"losses": losses, "parameters": sum(x.size for x in leaves)}
