"""Tests of the local launcher with real processes."""

import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

import pytest

from launch import local

ROOT = pathlib.Path(__file__).parents[2]

# Children of a line or two: quick to start, since they import next to nothing.
_SLEEP = "import time; time.sleep(120)"
_SAVES = """
import signal, sys, time
def save(*_):
  print("saved", flush=True)
  sys.exit(75)
signal.signal(signal.SIGTERM, save)
print("ready", flush=True)
time.sleep(120)
"""
_STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(120)
"""


def _python(code):
  return [sys.executable, "-S", "-c", code]


def _run(*codes, grace_s=60.0):
  return local.run([_python(code) for code in codes], grace_s=grace_s)


def test_all_well(capfdbinary):
  assert _run("print('one')", "import sys; print('two', file=sys.stderr)") == 0
  said = capfdbinary.readouterr()
  assert said.out == b"[0] one\n"
  assert said.err == b"[1] two\n"


def test_lines_stay_whole_and_carriage_returns_stay(capfdbinary):
  code = """
import sys, time
for part in ("a", "b\\nc", "d\\r1%\\r2%", "\\r\\nno end"):
  sys.stdout.write(part)
  sys.stdout.flush()
  time.sleep(0.05)
"""
  assert _run(code) == 0
  said = capfdbinary.readouterr().out
  assert said.splitlines(keepends=True) == [
    b"[0] ab\n", b"[0] cd\r", b"[0] 1%\r", b"[0] 2%\r\n", b"[0] no end\n"
  ]  # fmt: skip


def test_much_output_is_not_lost(capfdbinary):
  code = "for i in range(60000): print(i)"
  assert _run(code, code) == 0
  lines = capfdbinary.readouterr().out.splitlines()
  for number in (b"[0] ", b"[1] "):
    own = [line[4:] for line in lines if line.startswith(number)]
    assert own == [b"%d" % i for i in range(60000)]


def test_one_that_fails_ends_the_others(capfd):
  begun = time.monotonic()
  assert _run("raise SystemExit(3)", _SLEEP, _SLEEP) == 3
  assert time.monotonic() - begun < 60
  assert (
    "process 0 ended with status 3; ending the other 2"
    in capfd.readouterr().err
  )


def test_one_that_is_killed_ends_the_others(capfd):
  code = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
  assert _run(_SAVES, code) == 128 + signal.SIGKILL
  said = capfd.readouterr()
  assert "process 1 was killed by SIGKILL; ending the other 1" in said.err


def test_a_signal_to_one_that_has_just_ended_is_no_harm():
  launch = local._Launch(1.0)
  launch.start([_python("raise SystemExit(75)")])
  (child,) = launch.children
  os.waitid(os.P_PID, child.process.pid, os.WEXITED | os.WNOWAIT)
  child.signal(signal.SIGTERM)
  assert child.has_ended() and child.status == 75
  launch.close()


def test_one_that_does_not_end_is_killed(capfd):
  wait = "import time; time.sleep(1); raise SystemExit(4)"
  assert _run(_STUBBORN, wait, grace_s=0.3) == 4
  assert "process 0 did not end in time; killing" in capfd.readouterr().err


@pytest.mark.parametrize(
  "statuses, expected",
  [([0, 0], 0), ([75, 75], 75), ([0, 75], 75), ([75, 3], 3), ([137, 75], 137)],
)
def test_status_of_the_whole(statuses, expected):
  assert local._result(statuses) == expected


def test_what_a_process_started_ends_with_it(tmp_path):
  place = tmp_path / "pid"
  code = f"""
import pathlib, subprocess, sys
child = subprocess.Popen([sys.executable, "-S", "-c", {_SLEEP!r}])
pathlib.Path({str(place)!r}).write_text(str(child.pid))
raise SystemExit(5)
"""
  assert _run(code) == 5
  _await(lambda: not _is_alive(int(place.read_text())))


def test_a_command_that_is_not_there_leaves_none_running(tmp_path):
  place = tmp_path / "pid"
  code = f"""
import os, pathlib, time
pathlib.Path({str(place)!r}).write_text(str(os.getpid()))
time.sleep(120)
"""
  with pytest.raises(FileNotFoundError):
    local.run([_python(code), [str(tmp_path / "nothing")]], grace_s=1)
  if place.exists():
    _await(lambda: not _is_alive(int(place.read_text())))


def _is_alive(pid):
  try:
    state = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2]
  except FileNotFoundError:
    return False
  return state.split()[0] != "Z"


def _await(condition, timeout_s=60):
  until = time.monotonic() + timeout_s
  while not condition():
    assert time.monotonic() < until, "waited in vain"
    time.sleep(0.05)


def _launcher(*codes, grace_s=60.0):
  """A launcher in a process of its own, which signals can be sent to."""
  commands = [_python(code) for code in codes]
  code = (
    "import sys; from launch import local; "
    f"sys.exit(local.run({commands!r}, grace_s={grace_s}))"
  )
  return subprocess.Popen(
    [sys.executable, "-c", code],
    cwd=ROOT,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def _await_lines(launcher, *lines):
  assert sorted(launcher.stdout.readline() for _ in lines) == sorted(lines)


def test_sigterm_is_passed_on_and_75_passes_through():
  with _launcher(_SAVES, _SAVES) as launcher:
    _await_lines(launcher, "[0] ready\n", "[1] ready\n")
    launcher.send_signal(signal.SIGTERM)
    out, err = launcher.communicate(timeout=60)
  assert launcher.returncode == 75
  assert sorted(out.splitlines()) == ["[0] saved", "[1] saved"]
  assert "got SIGTERM; passing it on to all" in err


def test_sigint_is_passed_on():
  code = """
import sys, time
print("ready", flush=True)
try:
  time.sleep(120)
except KeyboardInterrupt:
  sys.exit(130)
"""
  with _launcher(code) as launcher:
    _await_lines(launcher, "[0] ready\n")
    launcher.send_signal(signal.SIGINT)
    launcher.communicate(timeout=60)
  assert launcher.returncode == 130


def test_a_second_signal_kills_at_once():
  with _launcher(_STUBBORN) as launcher:
    _await_lines(launcher, "[0] ready\n")
    launcher.send_signal(signal.SIGTERM)
    assert "passing it on" in launcher.stderr.readline()
    launcher.send_signal(signal.SIGTERM)
    _, err = launcher.communicate(timeout=50)
  assert launcher.returncode == 128 + signal.SIGKILL
  assert "killing all now" in err


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can tell them")
def test_processes_die_with_a_killed_launcher():
  code = "import os, time; print(os.getpid(), flush=True); time.sleep(120)"
  with _launcher(code) as launcher:
    pid = int(launcher.stdout.readline().removeprefix("[0] "))
    launcher.kill()
    _await(lambda: not _is_alive(pid))


def test_a_reserved_port_is_for_one_who_shares_it_only():
  held, port = local.reserve_port()
  with held:
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
      other.bind(("127.0.0.1", port))
    with socket.socket() as server:
      server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
      server.bind(("127.0.0.1", port))
      server.listen()
      socket.create_connection(("127.0.0.1", port), timeout=10).close()


def test_two_processes_of_two_devices_add_up(monkeypatch, capfd):
  # The launcher's own flags, to a stand-in for facesiam.
  def worker(command):
    assert command[1:4] == ["-m", "facesiam_jax.cli.main", "train"]
    return [sys.executable, str(ROOT / "tests/launch/psum_worker.py"),
            *command[4:]]  # fmt: skip

  run = local.run
  monkeypatch.setattr(
    local,
    "run",
    lambda commands, **how: run([worker(c) for c in commands], **how),
  )
  environment = {"XLA_FLAGS": "", "JAX_DISABLE_MOST_OPTIMIZATIONS": "0"}
  for name, value in environment.items():
    monkeypatch.setitem(os.environ, name, value)
  assert local.main(["--processes=2", "--devices=2", "--", "train"]) == 0
  # Gloo speaks beside them, word by word from several threads.
  said = re.findall(
    r"^\[(\d)\].*4 devices, sum 6", capfd.readouterr().out, re.M
  )
  assert sorted(said) == ["0", "1"]


@pytest.mark.parametrize(
  "argv, sentence",
  [
    (["--processes=0", "--", "train"], "must be at least 1, got 0"),
    (["--devices=x", "--", "train"], "invalid int value: 'x'"),
    ([], "required: VERB"),
  ],
)
def test_wrong_command_line(argv, sentence, capsys):
  with pytest.raises(SystemExit) as caught:
    local.main(argv)
  assert caught.value.code == 2
  assert sentence in capsys.readouterr().err
