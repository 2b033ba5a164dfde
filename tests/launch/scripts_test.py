"""The job scripts, run with stand-ins for SLURM, gcloud and facesiam."""

import os
import pathlib
import shlex
import signal
import subprocess
import time

import pytest

LAUNCH = pathlib.Path(__file__).parents[2] / "launch"


@pytest.fixture
def place(tmp_path, monkeypatch):
  """A folder of programs that are found first and log how they are called."""
  monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
  monkeypatch.setenv("LOG", str(tmp_path / "log"))
  monkeypatch.setenv("PID_FILE", str(tmp_path / "pid"))
  (tmp_path / "log").touch()
  return tmp_path


def _program(place, name, body=""):
  path = place / name
  # One write a call, so that two at a time do not mix.
  path.write_text(
    '#!/usr/bin/env bash\nprintf "%s\\n" "' + name + ' $*" >> "$LOG"\n' + body
  )
  path.chmod(0o755)


def _run(*words, **environment):
  return subprocess.run(
    ["bash", *map(str, words)],
    env={**os.environ, **environment},
    capture_output=True,
    text=True,
    timeout=60,
  )


def _log(place):
  return (place / "log").read_text().splitlines()


def _slurm(place, status, *words):
  _program(place, "srun", f"exit {status}")
  _program(place, "scontrol")
  return _run(LAUNCH / "slurm.sh", *words, SLURM_JOB_ID="7")


@pytest.mark.parametrize("status", [0, 1, 137])
def test_slurm_passes_the_status_on(place, status):
  done = _slurm(place, status, "train", "--config=a b")
  assert done.returncode == status, done.stderr
  assert _log(place) == [
    "srun --kill-on-bad-exit=1 --label facesiam train --distributed "
    "--config=a b"
  ]


def test_slurm_puts_a_preempted_job_back(place):
  assert _slurm(place, 75, "train").returncode == 75
  assert _log(place)[1:] == ["scontrol requeue 7"]


def test_slurm_script_outlives_sigterm_and_its_children_do_not(place):
  _program(place, "srun", 'trap "exit 75" TERM\nsleep 60 & wait')
  _program(place, "scontrol")
  environment = {**os.environ, "SLURM_JOB_ID": "7"}
  with subprocess.Popen(
    ["bash", LAUNCH / "slurm.sh", "train"],
    env=environment,
    start_new_session=True,
  ) as script:
    while not _log(place):
      time.sleep(0.05)
    time.sleep(0.3)
    os.killpg(script.pid, signal.SIGTERM)
    assert script.wait(timeout=50) == 75
  assert _log(place)[1:] == ["scontrol requeue 7"]


def _gcloud(place):
  """A gcloud that runs the command here, as on a slice of one host."""
  _program(
    place,
    "gcloud",
    "for word; do [[ $word == --command=* ]] && "
    'exec bash -c "${word#*=}"; done',
  )


def test_tpu_goes_on_after_75(place):
  _gcloud(place)
  body = '[[ $(grep -c ^facesiam "$LOG") -lt 3 ]] && exit 75\nexit 4'
  _program(place, "facesiam", body)
  done = _run(
    LAUNCH / "tpu_pod.sh", "train", "--config=a b", "--x=$HOME;'",
    TPU_NAME="slice", ZONE="zone",
  )  # fmt: skip
  assert done.returncode == 4, done.stderr
  called = _log(place)
  assert called[0].startswith(
    "gcloud compute tpus tpu-vm ssh slice --zone=zone --worker=all --command="
  )
  ran = [line for line in called if line.startswith("facesiam")]
  assert ran == ["facesiam train --distributed --config=a b --x=$HOME;'"] * 3


@pytest.mark.parametrize(
  "body, ended",
  [
    ('trap "echo saved >> $LOG; exit 75" TERM\nsleep 60 & wait', 75),
    ('trap "" TERM\nwhile :; do sleep 0.1; done', 128 + signal.SIGKILL),
  ],
)
def test_tpu_stop_ends_it_for_good(place, body, ended):
  _gcloud(place)
  _program(place, "facesiam", body)
  environment = {**os.environ, "TPU_NAME": "slice", "ZONE": "zone"}
  with subprocess.Popen(
    ["bash", LAUNCH / "tpu_pod.sh", "train"],
    env=environment,
    stderr=subprocess.DEVNULL,
  ) as script:
    while not (place / "pid").exists():
      time.sleep(0.05)
    time.sleep(0.5)
    stop = _run(
      LAUNCH / "tpu_pod.sh", "stop", TPU_NAME="slice", ZONE="zone", GRACE="1"
    )
    assert stop.returncode == 0, stop.stderr
    assert script.wait(timeout=50) == ended
  assert (
    sum(line == "facesiam train --distributed" for line in _log(place)) == 1
  )
  assert ("saved" in _log(place)) == (ended == 75)


@pytest.mark.parametrize("script", ["slurm.sh", "tpu_pod.sh"])
def test_scripts_say_what_is_missing(place, script):
  assert _run(LAUNCH / script).returncode == 2
  told = _run(LAUNCH / script, "train", SLURM_JOB_ID="", TPU_NAME="")
  assert told.returncode != 0
  assert "start this with sbatch" in told.stderr or "TPU_NAME=" in told.stderr


def test_compiled_programs_are_kept_where_the_user_says(place):
  _program(place, "srun", 'echo "$JAX_COMPILATION_CACHE_DIR" >> "$LOG"')
  _run(
    LAUNCH / "slurm.sh", "train", SLURM_JOB_ID="7",
    JAX_COMPILATION_CACHE_DIR="/shared/cache",
  )  # fmt: skip
  assert _log(place)[-1] == "/shared/cache"


def _steps():
  """(word, rest) of every instruction of the Dockerfile."""
  text = (LAUNCH / "Dockerfile").read_text()
  lines = [x for x in text.splitlines() if not x.startswith("#")]
  joined = "\n".join(lines).replace("\\\n", " ").splitlines()
  return [tuple(line.split(None, 1)) for line in joined if line.strip()]


def test_dockerfile():
  steps = _steps()
  known = set(
    "FROM ARG ENV WORKDIR COPY RUN USER STOPSIGNAL ENTRYPOINT CMD".split()
  )
  assert {word for word, _ in steps} <= known
  assert steps[0][0] == "FROM"
  version = steps[0][1].partition(":")[2]
  assert version.startswith(("3.11", "3.12", "3.13"))
  ends = dict(steps)
  # The words, not a shell, so that signals arrive.
  assert ends["ENTRYPOINT"] == '["facesiam"]'
  assert ends["USER"] != "root"
  for word, rest in steps:
    if word == "COPY":
      *sources, _ = shlex.split(rest)
      for source in sources:
        assert (LAUNCH.parent / source).exists(), source
    if word == "RUN":
      script = subprocess.run(["bash", "-n", "-c", rest], capture_output=True)
      assert script.returncode == 0, rest
