"""`facesiam export`: a bundle's network for programs without this one."""

from absl import flags

from facesiam_jax.cli import common

HELP = "Write a model bundle's network for programs without this one."
USAGE = "facesiam export --bundle=DIR --out=FILE [--format=stablehlo]"


def define_flags(flag_values: flags.FlagValues) -> None:
  """Defines the verb's flags."""
  common.define_bundle(flag_values)
  flags.DEFINE_enum(
    "format",
    "stablehlo",
    ["stablehlo"],
    "stablehlo: for jax.export.deserialize, which needs JAX alone.",
    flag_values=flag_values,
  )
  flags.DEFINE_string(
    "out",
    None,
    "The file to write: uint8 faces in, any number of them, embeddings out. "
    "Required.",
    required=True,
    flag_values=flag_values,
  )


def run(flag_values: flags.FlagValues, args: list[str]) -> int:
  """Exports the network and says how to call it."""
  if args:
    raise common.UsageError(f"export takes flags only, got {args[0]!r}.")
  from facesiam_jax import bundle as bundle_lib
  from facesiam_jax import export

  bundle = bundle_lib.load(flag_values.bundle)
  data = export.stablehlo(bundle)
  common.write_file(flag_values.out, lambda file: file.write(data))
  height, width = bundle.input_size
  print(
    f"Wrote {flag_values.out}, {len(data):,} bytes: uint8 [B, {height}, "
    f"{width}, {bundle.channels}] to float32 [B, {bundle.dim}], for "
    f"{', '.join(export.PLATFORMS)}."
  )
  return 0
