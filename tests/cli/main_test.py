"""Tests of facesiam_jax.cli.main and common: help, flags, errors, status."""

import errno
import os
import signal
import subprocess
import sys
import time
import types

import pytest
from absl import flags

import facesiam_jax
from facesiam_jax import errors
from facesiam_jax.cli import common, main, photos

_OWN = ["verify", "enroll", "identify", "gallery", "embed", "import", "export"]


def _fake_verb(monkeypatch, run, define_flags=None):
  """Makes `facesiam demo` run a function."""
  module = types.ModuleType("facesiam_jax.cli.demo")
  module.HELP = main.VERBS["demo"]
  module.run = run

  def define_nothing(flag_values):
    del flag_values

  module.define_flags = define_flags or define_nothing
  monkeypatch.setitem(sys.modules, "facesiam_jax.cli.demo", module)


def _raiser(error):
  def run(flag_values, args):
    raise error

  return run


def _error_of(capsys, status, argv):
  assert main.main(argv) == status
  out, err = capsys.readouterr()
  assert out == ""
  assert err.count("\n") == 1 and err.endswith("\n")
  return err.strip()


_MODULES_AFTER_HELP = """
import sys, time
before = set(sys.modules)
start = time.perf_counter()
from facesiam_jax.cli import main
status = main.main(sys.argv[1:])
assert status == 0
print(time.perf_counter() - start, file=sys.stderr)
heavy = {name.split(".")[0] for name in set(sys.modules) - before}
heavy -= set(sys.stdlib_module_names)
print(sorted(heavy), file=sys.stderr)
"""


@pytest.mark.parametrize(
  "argv", [["--help"], *([verb, "--help"] for verb in _OWN)], ids=" ".join
)
def test_help_imports_absl_only(argv):
  result = subprocess.run(
    [sys.executable, "-c", _MODULES_AFTER_HELP, *argv],
    capture_output=True,
    text=True,
    check=True,
  )
  seconds, modules = result.stderr.splitlines()
  assert modules == "['absl', 'facesiam_jax']"
  # Half a second is the promise; a test machine may be busy.
  assert float(seconds) < 2
  assert result.stdout.startswith("Usage: facesiam")


def test_overview_lists_every_verb(capsys):
  for argv in (["--help"], ["-h"], ["help"]):
    assert main.main(argv) == 0
    out, err = capsys.readouterr()
    assert err == ""
    for verb, text in main.VERBS.items():
      assert f"  {verb}" in out and text in out
    assert max(map(len, out.splitlines())) <= 80


def test_no_verb_at_all(capsys):
  assert main.main([]) == 2
  out, err = capsys.readouterr()
  assert out == "" and err.startswith("Usage")


def test_version(capsys):
  assert main.main(["--version"]) == 0
  assert capsys.readouterr().out == f"{facesiam_jax.__version__}\n"


@pytest.mark.parametrize("verb", _OWN)
def test_verb_help(verb, capsys):
  for argv in ([verb, "--help"], ["help", verb], [verb, "x", "-h", "--nope"]):
    assert main.main(argv) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert f"facesiam {verb}" in out and main.VERBS[verb] in out
    assert "--verbosity" in out and "--help" in out
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize("verb", list(main.VERBS))
def test_help_lines_agree_with_the_modules(verb):
  name = f"facesiam_jax.cli.{main.MODULES[verb]}"
  module = __import__(name, fromlist=["HELP"])
  assert main.VERBS[verb] == module.HELP


@pytest.mark.parametrize(
  "argv, words",
  [
    (["verfy"], "facesiam: error: there is no verb 'verfy'; did you mean veri"),
    (["xyz"], "--help"),
    (["verify", "--bundel=x"], "no flag --bundel; did you mean --bundle?"),
    (["verify", "--xyzzy=x"], "`facesiam verify --help`"),
    (["verify", "a", "b"], "--bundle is required"),
    (["gallery", "list"], "--gallery is required"),
    (["embed", "--bundle=x", "p"], "--out is required"),
    (["import", "--bundle=x"], "--from is required"),
    (["import", "--from=dlib"], "--bundle is required"),
    (
      ["import", "--from=keras", "--bundle=x"],
      "dlib|facenet_pytorch|insight",
    ),
    (["import", "--from=dlib", "--bundle=x", "y"], "takes flags only, got 'y'"),
    (["export", "--bundle=x"], "--out is required"),
    (["export", "--bundle=x", "--out=y", "--format=onnx"], "stablehlo"),
    (["export", "--bundle=x", "--out=y", "z"], "takes flags only, got 'z'"),
    (["verify", "--bundle"], "Missing value for flag --bundle"),
    (["verify", "--bundle=x", "a"], "two photos; 1 were given"),
    (["identify", "--bundle=x", "--gallery=g", "--k=0", "p"], "--k"),
    (["identify", "--bundle=x", "--gallery=g", "--k=a", "p"], "--k=a"),
    (["identify", "--bundle=x", "--gallery=g"], "at least one photo"),
    (
      ["identify", "--bundle=x", "--gallery=g", "--picture=p.png", "a", "b"],
      "one photo",
    ),
    (["enroll", "--bundle=x", "--gallery=g"], "one folder"),
    (["enroll", "--bundle=x", "--gallery=g", "--name=Ada"], "photo of 'Ada'"),
    (["gallery", "--gallery=g", "delete"], "list, remove NAME"),
    (["gallery", "--gallery=g", "remove"], "list, remove NAME"),
    (["embed", "--bundle=x", "--out=o"], "photos"),
  ],
  ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_command_lines(argv, words, capsys):
  assert words in _error_of(capsys, 2, argv)


@pytest.mark.parametrize(
  "error, words",
  [
    (errors.UserError("a.jpg is\n bad; mend it."), ": a.jpg is bad; mend it."),
    (OSError(errno.ENOSPC, "x", "/a/b"), "no space left on /a/b; free some"),
    (OSError(errno.ENOSPC, "x"), "no space left on the device"),
    (
      PermissionError(errno.EACCES, "Permission denied", "/f"),
      "/f: Permission",
    ),
    (ZeroDivisionError("why"), "ZeroDivisionError: why (--verbosity=1 shows"),
    (KeyError("name"), "KeyError: name ("),
    (ValueError(), "ValueError: ValueError ("),
  ],
  ids=lambda value: type(value).__name__,
)
def test_errors_of_a_verb(error, words, monkeypatch, capsys):
  _fake_verb(monkeypatch, _raiser(error))
  sentence = _error_of(capsys, 1, ["demo"])
  assert sentence.startswith("facesiam demo: error: ") and words in sentence
  assert main.main(["demo", "--verbosity=1"]) == 1
  out, err = capsys.readouterr()
  assert "Traceback" in err and err.splitlines()[-1].startswith("facesiam demo")


def test_usage_error_of_a_verb(monkeypatch, capsys):
  _fake_verb(monkeypatch, _raiser(common.UsageError("give a photo.")))
  assert _error_of(capsys, 2, ["demo"]).endswith("error: give a photo.")


@pytest.mark.parametrize(
  "error, status",
  [
    (KeyError("did you mean lr?"), 2),
    (FileNotFoundError("nope.py"), 2),
    (errors.UserError("no config nope.py."), 1),
  ],
)
def test_errors_while_flags_are_read(error, status, monkeypatch, capsys):
  class Parser(flags.ArgumentParser):
    def parse(self, argument):
      raise error

  def define_flags(flag_values):
    flags.DEFINE(Parser(), "config", None, "x", flag_values=flag_values)

  _fake_verb(monkeypatch, _raiser(AssertionError()), define_flags)
  sentence = _error_of(capsys, status, ["demo", "--config=nope.py"])
  assert error.args[0] in sentence and "verbosity" not in sentence


def test_a_mistake_of_ours_in_the_flags_is_no_wrong_usage(monkeypatch, capsys):
  def define_flags(flag_values):
    raise AttributeError("no such thing")

  _fake_verb(monkeypatch, _raiser(AssertionError()), define_flags)
  assert "AttributeError: no such thing" in _error_of(capsys, 1, ["demo"])


def test_interrupt_and_exit_status(monkeypatch, capsys):
  _fake_verb(monkeypatch, _raiser(KeyboardInterrupt()))
  assert "interrupted" in _error_of(capsys, 130, ["demo"])
  _fake_verb(monkeypatch, lambda flag_values, args: 7)
  assert main.main(["demo"]) == 7


def test_verb_sees_flags_words_and_command_line(monkeypatch):
  seen = {}

  def define_flags(flag_values):
    common.define_bundle(flag_values)
    photos.define_flags(flag_values)

  def run(flag_values, args):
    seen.update(
      bundle=flag_values.bundle, cropped=flag_values.cropped, args=args
    )
    seen.update(argv=list(sys.argv), parsed=flags.FLAGS.is_parsed())
    return 0

  before = list(sys.argv)
  _fake_verb(monkeypatch, run, define_flags)
  argv = ["demo", "a", "--bundle=B", "b", "--cropped", "--", "--c"]
  assert main.main(argv) == 0
  assert seen == {
    "bundle": "B",
    "cropped": True,
    "args": ["a", "b", "--c"],
    "argv": ["facesiam demo", *argv[1:]],
    "parsed": True,
  }
  assert sys.argv == before


@pytest.mark.parametrize(
  "policy, environment, expected",
  [
    ("always [madvise] never\n", {"A": "1"}, "glibc.malloc.hugetlb=1"),
    ("[always] madvise never\n", {}, None),
    ("always madvise [never]\n", {}, None),
    ("always [madvise] never\n", {"GLIBC_TUNABLES": "x=1"}, None),
    (None, {}, None),
  ],
)
def test_huge_pages_are_asked_for(tmp_path, policy, environment, expected):
  file = tmp_path / "enabled"
  if policy is not None:
    file.write_text(policy)
  found = common.huge_pages_environment(environment, file)
  if expected is None:
    assert found is None
  else:
    assert found == {**environment, "GLIBC_TUNABLES": expected}


_TELLER = """
import os, sys, types
from facesiam_jax.cli import common, main
module = types.ModuleType(sys.argv[1])
module.define_flags = lambda flag_values: None
def run(flag_values, args):
  wanted = common.huge_pages_environment(
    {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"}
  )
  print(os.getpid(), os.environ.get("GLIBC_TUNABLES"), wanted is not None, args)
  return 3
module.run = run
sys.modules[f"facesiam_jax.cli.{sys.argv[1]}"] = module
main.entry()
"""


@pytest.mark.parametrize("verb", ["train", "verify"])
def test_training_restarts_as_the_same_process(verb):
  environment = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"}
  process = subprocess.Popen(
    [sys.executable, "-c", _TELLER, verb, "a b"],
    stdout=subprocess.PIPE,
    text=True,
    env=environment,
  )
  said, _ = process.communicate()
  # Whether this Linux gives huge pages for the asking.
  on_request = " True " in said
  tunables = "glibc.malloc.hugetlb=1" if on_request else None
  expected = tunables if verb == "train" else None
  assert said.split(" ", 2)[:2] == [str(process.pid), str(expected)]
  assert said.endswith("['a b']\n")
  assert process.returncode == 3


def _start(argv, **options):
  return subprocess.Popen(
    [sys.executable, "-m", "facesiam_jax.cli.main", *argv],
    text=True,
    stderr=subprocess.PIPE,
    **options,
  )


def test_broken_pipe_is_quiet():
  read, write = os.pipe()
  os.close(read)
  process = _start(["verify", "--help"], stdout=write)
  os.close(write)
  _, err = process.communicate()
  assert process.returncode == 1 and err == ""


_SLEEPER = """
import signal, sys, time, types
# A shell's background job inherits an ignored SIGINT.
signal.signal(signal.SIGINT, signal.default_int_handler)
from facesiam_jax.cli import main
module = types.ModuleType("demo")
module.define_flags = lambda flag_values: None
def run(flag_values, args):
  print("ready", flush=True)
  time.sleep(60)
module.run = run
sys.modules["facesiam_jax.cli.demo"] = module
sys.argv = ["facesiam", "demo"]
main.entry()
"""


def test_control_c():
  with subprocess.Popen(
    [sys.executable, "-c", _SLEEPER],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  ) as process:
    try:
      assert process.stdout.readline() == "ready\n"
      time.sleep(0.05)
      process.send_signal(signal.SIGINT)
      _, err = process.communicate(timeout=30)
    finally:
      process.kill()
  assert process.returncode == 130
  assert err == "facesiam demo: error: interrupted.\n"


def test_table():
  rows = [["a.jpg", "0.5", "-"], ["", "-12.25", "yes"]]
  assert common.table(["photo", "logit", "ok"], rows).splitlines() == [
    "photo   logit  ok",
    "a.jpg     0.5  -",
    "       -12.25  yes",
  ]
  assert common.table(["one", "two"], []) == "one  two"


def test_write_file_is_all_or_nothing(tmp_path):
  path = tmp_path / "out.bin"
  common.write_file(path, lambda file: file.write(b"old"))

  def fail(file):
    file.write(b"new")
    raise OSError(errno.ENOSPC, "no space")

  with pytest.raises(OSError, match="no space"):
    common.write_file(path, fail)
  assert path.read_bytes() == b"old"
  assert list(tmp_path.iterdir()) == [path]
  with pytest.raises(errors.UserError, match="is a folder"):
    common.write_file(tmp_path, fail)
  with pytest.raises(errors.UserError, match="make its folder .*none"):
    common.write_file(tmp_path / "none" / "out.bin", fail)
