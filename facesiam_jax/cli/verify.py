"""`facesiam verify`: do two photos show the same person?"""

import json

from absl import flags

from facesiam_jax.cli import common

HELP = "Say whether two photos show the same person."
USAGE = "facesiam verify --bundle=DIR [flags] PHOTO PHOTO"


def define_flags(flag_values: flags.FlagValues) -> None:
  """Defines the verb's flags."""
  common.define_bundle(flag_values)
  common.define_cropped(flag_values)
  common.define_json(flag_values)


def run(flag_values: flags.FlagValues, args: list[str]) -> int:
  """Compares two photos and prints the verdict."""
  if len(args) != 2:
    raise common.UsageError(f"give two photos; {len(args)} were given.")
  from facesiam_jax import bundle as bundle_lib

  bundle = bundle_lib.load(flag_values.bundle)
  faces = common.load_faces(args, bundle, cropped=flag_values.cropped)
  embeddings = bundle.embed(faces)
  logit = float(bundle.logits(embeddings[:1], embeddings[1:])[0])
  verdict = {
    "photos": args,
    "same": logit >= bundle.threshold,
    "probability": float(bundle_lib.probability(logit)),
    "logit": logit,
    "threshold": bundle.threshold,
  }
  if flag_values.json:
    print(json.dumps(verdict))
    return 0
  print(f"{'same' if verdict['same'] else 'different'} person")
  print(f"probability  {verdict['probability']:.4f}")
  print(f"logit        {logit:.4f}")
  print(f"threshold    {bundle.threshold:.4f} (on the logit)")
  return 0
