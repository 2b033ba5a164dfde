"""Dispatches `facesiam VERB [flags]` to one module a verb.

absl has no sub-commands: each verb defines its flags on a FlagValues of its
own, and this module prints help and errors. Exit status: 0 when all that was
asked was done, 1 when it could not be, 2 for a wrong command line, 130 when
interrupted. Nothing but absl is imported until a verb runs.
"""

import difflib
import errno
import gc
import importlib
import os
import re
import sys
import textwrap
import traceback
import warnings
from collections.abc import Sequence
from typing import Any, TextIO

from absl import flags

import facesiam_jax
from facesiam_jax import errors
from facesiam_jax.cli import common

# Told here so that the overview imports no verb; a test compares it with the
# modules' own HELP.
VERBS = {
  "demo": "Show everything on the Olivetti faces: train, measure, recognise.",
  "prepare": "Write a data set to disk in the form that training reads.",
  "train": "Train a recogniser and write its model bundle.",
  "plan": "Say what a recipe would cost on a TPU pod, by compiling for it.",
  "evaluate": "Measure a recogniser on people it has never seen.",
  "report": "Lay measured runs side by side, with tests of their differences.",
  "calibrate": "Measure a bundle's error rates on people it has not seen.",
  "verify": "Say whether two photos show the same person.",
  "enroll": "Add people to a gallery from a few photos each.",
  "identify": "Say who of a gallery a photo shows.",
  "gallery": "List, remove, export or check the people of a gallery.",
  "serve": "Answer for a gallery by HTTP, with a web page.",
  "embed": "Write the embeddings of photos to a file.",
  "audit": "Find what two data sets share, and images under a wrong name.",
  "encoders": "List the encoders: input, cost, licence of known weights.",
  "import": "Make a model bundle of weights that others have trained.",
  "export": "Write a model bundle's network for programs without this one.",
}
# A verb's module has its name, unless that is a keyword of Python.
MODULES = {verb: verb for verb in VERBS} | {"import": "import_weights"}
_HELP_FLAGS = frozenset({"-h", "-help", "--help", "--helpshort", "--helpfull"})
_WIDTH = 79
_TRAINING = frozenset({"train", "demo"})
# New objects between two of Python's searches for garbage.
_OBJECTS = 10_000


def _overview() -> str:
  lines = [
    "Usage: facesiam VERB [flags] [arguments]",
    "",
    "Siamese face recognition: train, measure, recognise.",
    "",
    *(f"  {verb:<10}{text}" for verb, text in VERBS.items()),
    "",
    "`facesiam VERB --help` lists the flags of a verb.",
  ]
  return "\n".join(lines)


def _flag_help(flag: flags.Flag) -> str:
  value = "" if flag.boolean else "=VALUE"
  text = " ".join((flag.help or "").split())
  if flag.default not in (None, "", False):
    text += f" Default: {flag.default_as_str}."
  body = textwrap.fill(
    text, _WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6
  )
  return f"  --{flag.name}{value}\n{body}"


def _verb_help(verb: str, module: Any, flag_values: flags.FlagValues) -> str:
  unique = {flag_values[name].name: flag_values[name] for name in flag_values}
  # What every verb has comes last.
  common = ("help", "verbosity")
  names = sorted(unique, key=lambda name: (name in common, name))
  usage = getattr(module, "USAGE", f"facesiam {verb} [flags]")
  described = [_flag_help(unique[name]) for name in names]
  return "\n".join([f"Usage: {usage}", "", module.HELP, "", *described])


def _did_you_mean(word: str, known: Sequence[str], prefix: str = "") -> str:
  close = difflib.get_close_matches(word, known, n=1)
  return f"did you mean {prefix}{close[0]}?" if close else ""


def _one_line(error: BaseException) -> str:
  # str() of a KeyError is the repr of its message.
  plain = isinstance(error, KeyError) and error.args
  text = str(error.args[0] if plain else error)
  return " ".join(text.split()) or type(error).__name__


def _flag_sentence(
  error: Exception, verb: str, flag_values: flags.FlagValues
) -> str:
  """Returns what is wrong with the flags, and the mend."""
  listing = f"`facesiam {verb} --help` lists the flags."
  if isinstance(error, flags.UnrecognizedFlagError):
    name = error.flagname
    mend = _did_you_mean(name, list(flag_values), "--") or listing
    return f"there is no flag --{name}; {mend}"
  field = re.search(r'Did you mean "(\S+?)" instead of "(\S+?)"', str(error))
  if field:
    right, wrong = field.groups()
    return f"--config has no field {wrong}; did you mean {right}?"
  if isinstance(error, (AttributeError, KeyError)):
    return f"--config has no field {str(error).strip(chr(39) + chr(34))}."
  missing = re.search(r"--(\S+) must have a value other than None", str(error))
  if missing:
    return f"--{missing.group(1)} is required; {listing}"
  return _one_line(error)


def _new_flags(module: Any) -> flags.FlagValues:
  flag_values = flags.FlagValues()
  # Flags may come after photos and names too.
  flag_values.set_gnu_getopt(True)
  flags.DEFINE_bool("help", False, "Show this help.", flag_values=flag_values)
  flags.DEFINE_integer(
    "verbosity",
    0,
    "1 shows the traceback of an error and what the libraries log.",
    flag_values=flag_values,
  )
  module.define_flags(flag_values)
  return flag_values


def _wants_help(args: Sequence[str]) -> bool:
  before = args[: args.index("--")] if "--" in args else args
  return any(arg in _HELP_FLAGS for arg in before)


def _complain(verb: str, sentence: str) -> None:
  program = f"facesiam {verb}".strip()
  print(f"{program}: error: {sentence}", file=sys.stderr)


def _run_sentence(error: Exception) -> str:
  """Returns what kept a verb from doing its work."""
  if isinstance(error, errors.UserError):
    return _one_line(error)
  if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
    place = error.filename or "the device that was being written to"
    return f"no space left on {place}; free some and run the command again."
  if isinstance(error, OSError) and error.filename and error.strerror:
    return f"{error.filename}: {error.strerror}."
  return (
    f"{type(error).__name__}: {_one_line(error)} (--verbosity=1 shows the "
    "traceback)"
  )


def _close_quietly(stream: TextIO) -> None:
  """Points a broken pipe elsewhere, so that exiting does not complain."""
  try:
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
  except (OSError, ValueError):
    # A stream without a file descriptor has no pipe to break.
    pass


def _run_verb(
  verb: str, module: Any, flag_values: flags.FlagValues, args: list[str]
) -> int:
  common.quiet(flag_values["verbosity"].value)
  common.keep_compiled()
  # Libraries that read absl's own flags refuse to before they are parsed.
  if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()
  status = module.run(flag_values, args)
  sys.stdout.flush()
  return status


def _parse(
  verb: str, flag_values: flags.FlagValues, args: list[str]
) -> list[str]:
  """Parses flags and returns the other words; what is wrong is wrong usage."""
  try:
    return flag_values([f"facesiam {verb}", *args])[1:]
  except errors.UserError:
    raise
  # A config file and its overrides are read here, which can fail in any way.
  except Exception as error:
    sentence = _flag_sentence(error, verb, flag_values)
    raise common.UsageError(sentence) from error


def _dispatch(verb: str, args: list[str]) -> int:
  flag_values = flags.FlagValues()
  try:
    module = importlib.import_module(f"facesiam_jax.cli.{MODULES[verb]}")
    flag_values = _new_flags(module)
    if _wants_help(args):
      print(_verb_help(verb, module, flag_values), flush=True)
      return 0
    return _run_verb(verb, module, flag_values, _parse(verb, flag_values, args))
  except KeyboardInterrupt:
    _complain(verb, "interrupted.")
    return 130
  except BrokenPipeError:
    _close_quietly(sys.stdout)
    return 1
  except Exception as error:
    if "verbosity" in flag_values and flag_values["verbosity"].value > 0:
      traceback.print_exc()
    if isinstance(error, flags.Error):
      _complain(verb, _one_line(error))
      return 2
    _complain(verb, _run_sentence(error))
    return 1


def main(argv: Sequence[str] | None = None) -> int:
  """Runs a command line.

  Args:
    argv: the words after `facesiam`; None takes those of the process.

  Returns:
    The exit status.
  """
  args = list(sys.argv[1:] if argv is None else argv)
  if args and args[0] == "help":
    args = [*args[1:2], "--help"]
  if not args or args[0] in _HELP_FLAGS:
    print(_overview(), file=sys.stdout if args else sys.stderr)
    return 0 if args else 2
  if args[0] == "--version":
    print(facesiam_jax.__version__)
    return 0
  verb, *args = args
  if verb not in VERBS:
    mend = _did_you_mean(verb, list(VERBS))
    _complain("", f"there is no verb {verb!r}; {mend or 'try --help.'}")
    return 2
  before = sys.argv
  # ml_collections reads the overrides of a config (--config.KEY=VALUE) here.
  sys.argv = [f"facesiam {verb}", *args]
  try:
    return _dispatch(verb, args)
  finally:
    sys.argv = before


def entry() -> None:
  """The console script: runs the process's command line and exits."""
  # JAX makes 140,000 objects that stay: to look through them for garbage, as
  # often as Python does and on exit, takes a fifth of a short command's time.
  gc.set_threshold(_OBJECTS)
  if not sys.warnoptions and "--verbosity=1" not in sys.argv:
    warnings.simplefilter("ignore")
  if sys.argv[1:2] and sys.argv[1] in _TRAINING:
    common.restart_with_huge_pages()
  status = main()
  gc.freeze()
  sys.exit(status)


if __name__ == "__main__":
  entry()
