"""What the first step starts from: a bundle's weights, a fit in closed form."""

import json
import logging
from typing import Any

import jax
import ml_collections
import numpy as np

from facesiam_jax import bundle as bundle_lib
from facesiam_jax import errors
from facesiam_jax.training import recipe as recipe_lib
from facesiam_jax.training import split as split_lib
from facesiam_jax.training import whitening


def _named_shapes(tree: Any) -> dict[str, tuple[int, ...]]:
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {
    "/".join(str(key.key) for key in path): np.shape(leaf)
    for path, leaf in leaves
  }


def _check_same_architecture(
  path: str, given: Any, wanted: Any, names: tuple[str, str]
) -> None:
  given, wanted = _named_shapes(given), _named_shapes(wanted)
  for name in sorted(given.keys() | wanted.keys()):
    if given.get(name) != wanted.get(name):
      raise errors.UserError(
        f"config.init_from={path} holds an encoder {names[0]!r} that is not "
        f"this config's {names[1]!r} ({name} has the shape "
        f"{given.get(name, 'of nothing')} there and "
        f"{wanted.get(name, 'of nothing')} here); give the bundle's encoder "
        "and arguments, or another bundle."
      )


def _from_bundle(
  config: ml_collections.ConfigDict, variables: dict[str, Any]
) -> dict[str, Any]:
  """Returns the bundle's encoder: parameters and running statistics."""
  path = config.init_from
  bundle = bundle_lib.load(path)
  given = {"batch_stats": {}, **bundle.variables["encoder"]}
  names = (bundle.spec["encoder"]["name"], config.encoder.name)
  _check_same_architecture(path, given, variables, names)
  # Through JSON, which knows no tuples, as the bundle's did.
  if bundle.spec["standardize"] != json.loads(config.standardize.to_json()):
    logging.getLogger(__name__).warning(
      "the encoder of %s was trained on faces standardized by %s, and this "
      "config's are by %s.",
      path,
      bundle.spec["standardize"],
      config.standardize.to_dict(),
    )
  return given


def encoder(
  config: ml_collections.ConfigDict,
  recipe: recipe_lib.Recipe,
  variables: dict[str, Any],
  train: split_lib.Split,
) -> dict[str, Any]:
  """Returns the encoder that the first step starts from.

  Args:
    config: a valid training config; its `init_from` and `start`.
    recipe: from `recipe.make_recipe`.
    variables: {"params", "batch_stats"} as they were drawn, on the host.
    train: images to train on.

  Returns:
    The variables: as given, or the bundle's, their last layer fitted to the
    training people where the config says so.

  Raises:
    errors.UserError: if the bundle cannot be read or is of another
      architecture, or the encoder cannot be fitted.
  """
  start = config.start
  if config.init_from:
    variables = _from_bundle(config, variables)
  if start.kind != whitening.KIND:
    return variables
  fitted = whitening.fit_projection(
    recipe,
    {"encoder": variables["params"]},
    train.images,
    train.identity_ids,
    num_copies=start.num_copies,
    shrinkage=start.shrinkage,
    memory_gb=config.dataset.memory_gb,
  )
  return {**variables, "params": fitted["encoder"]}
