"""`facesiam verify`: do two photos show the same person?"""

import json
from typing import TYPE_CHECKING, Any

from absl import flags

from facesiam_jax.cli import common, photos

if TYPE_CHECKING:
  from facesiam_jax.bundle import Bundle

HELP = "Say whether two photos show the same person."
USAGE = "facesiam verify --bundle=DIR [flags] PHOTO PHOTO"


def define_flags(flag_values: flags.FlagValues) -> None:
  """Defines the verb's flags."""
  common.define_bundle(flag_values)
  photos.define_flags(flag_values)
  common.define_json(flag_values)
  common.define_prior(flag_values)


def run(flag_values: flags.FlagValues, args: list[str]) -> int:
  """Compares two photos and prints the verdict."""
  if len(args) != 2:
    raise common.UsageError(f"give two photos; {len(args)} were given.")
  prior = common.prior(flag_values)
  from facesiam_jax import bundle as bundle_lib
  from facesiam_jax.gallery import telling

  bundle = bundle_lib.load(flag_values.bundle)
  faces = photos.load(args, bundle, flag_values, strict=True)
  embeddings = bundle.embed(faces.images)
  logit = float(bundle.logits(embeddings[:1], embeddings[1:])[0])
  verdict = telling.comparison(bundle, args, logit, prior)
  if flag_values.json:
    print(json.dumps(verdict))
  else:
    _print(bundle, verdict)
  return 0


def _print(bundle: "Bundle", verdict: dict[str, Any]) -> None:
  from facesiam_jax.gallery import telling

  decision = {True: "same person", False: "different person"}
  print(decision.get(verdict["same"], "no decision"))
  if bundle.calibrated:
    ends = verdict["probability_interval"]
    told = "95 % interval {:.4f} to {:.4f}, ".format(*ends) if ends else ""
    print(
      f"probability  {verdict['probability']:.4f} "
      f"({told}prior {verdict['prior']:g})"
    )
    print(f"logit        {verdict['logit']:.4f}")
    print(f"threshold    {verdict['threshold']:.4f} (on the logit)")
    print(telling.basis_sentence(bundle))
    return
  kind = "1 - cosine" if bundle.metric == "cosine" else bundle.metric
  print(f"distance     {verdict['distance']:.4f} ({kind})")
  if verdict["threshold"] is not None:
    print(f"threshold    {verdict['threshold']:.4f} (on the distance)")
  print(verdict["note"])
