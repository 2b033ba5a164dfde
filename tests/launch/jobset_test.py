"""jobset.yaml against the field names and rules of Kubernetes and JobSet."""

import pathlib
import re

import pytest
import yaml

from launch import local

_PATH = pathlib.Path(__file__).parents[2] / "launch" / "jobset.yaml"

# What may stand where, after jobset.x-k8s.io/v1alpha2, batch/v1 and core/v1: a
# dict for an object, a list of one for a list, a type for a value.
_NAMED = {"name": str, "value": str}
_CONTAINER = {
  "name": str,
  "image": str,
  "args": [str],
  "env": [_NAMED],
  "ports": [{"containerPort": int}],
  "resources": {"limits": {"nvidia.com/gpu": int, "google.com/tpu": int}},
  "volumeMounts": [{"name": str, "mountPath": str}],
}
_POD = {
  "restartPolicy": str,
  "terminationGracePeriodSeconds": int,
  "nodeSelector": {
    "cloud.google.com/gke-accelerator": str,
    "cloud.google.com/gke-tpu-accelerator": str,
    "cloud.google.com/gke-tpu-topology": str,
  },
  "tolerations": [{"key": str, "operator": str, "effect": str}],
  "containers": [_CONTAINER],
  "volumes": [
    {
      "name": str,
      "emptyDir": {"medium": str},
      "persistentVolumeClaim": {"claimName": str},
    }
  ],
}
_JOB = {
  "completionMode": str,
  "parallelism": int,
  "completions": int,
  "backoffLimit": int,
  "podFailurePolicy": {
    "rules": [
      {
        "action": str,
        "onExitCodes": {"containerName": str, "operator": str, "values": [int]},
        "onPodConditions": [{"type": str, "status": str}],
      }
    ]
  },
  "template": {"spec": _POD},
}
_JOBSET = {
  "apiVersion": str,
  "kind": str,
  "metadata": {
    "name": str,
    "annotations": {"alpha.jobset.sigs.k8s.io/exclusive-topology": str},
  },
  "spec": {
    "failurePolicy": {
      "maxRestarts": int,
      "rules": [{"name": str, "action": str, "onJobFailureReasons": [str]}],
    },
    "replicatedJobs": [
      {"name": str, "replicas": int, "template": {"spec": _JOB}}
    ],
  },
}


def _check(value, shape, where):
  if isinstance(shape, dict):
    assert isinstance(value, dict), where
    assert value.keys() <= shape.keys(), (where, value.keys() - shape.keys())
    for name, part in value.items():
      _check(part, shape[name], f"{where}.{name}")
  elif isinstance(shape, list):
    assert isinstance(value, list) and value, where
    for part in value:
      _check(part, shape[0], where)
  else:
    assert type(value) is shape, (where, value)


def _jobsets():
  return list(yaml.safe_load_all(_PATH.read_text()))


@pytest.fixture(params=[0, 1], ids=["gpu", "tpu"])
def jobset(request):
  """One of the two documents."""
  return _jobsets()[request.param]


def _parts(jobset):
  (replicated,) = jobset["spec"]["replicatedJobs"]
  job = replicated["template"]["spec"]
  pod = job["template"]["spec"]
  (container,) = pod["containers"]
  return replicated, job, pod, container


def test_fields_are_known(jobset):
  assert len(_jobsets()) == 2
  assert jobset["apiVersion"] == "jobset.x-k8s.io/v1alpha2"
  assert jobset["kind"] == "JobSet"
  _check(jobset, _JOBSET, jobset["metadata"]["name"])


def test_an_unknown_field_is_found(jobset):
  jobset["spec"]["replicatedJobs"][0]["template"]["spec"]["parallel"] = 2
  with pytest.raises(AssertionError, match="parallel"):
    _check(jobset, _JOBSET, "")


def test_status_75_and_lost_nodes_restart_without_limit(jobset):
  _, job, pod, container = _parts(jobset)
  codes, conditions = job["podFailurePolicy"]["rules"]
  assert codes["action"] == conditions["action"] == "FailJob"
  assert codes["onExitCodes"] == {
    "containerName": container["name"],
    "operator": "In",
    "values": [local.PREEMPTED],
  }
  assert conditions["onPodConditions"] == [
    {"type": "DisruptionTarget", "status": "True"}
  ]
  # Else such a job fails for another reason, and counts.
  assert pod["restartPolicy"] == "Never" and job["backoffLimit"] == 0
  policy = jobset["spec"]["failurePolicy"]
  (rule,) = policy["rules"]
  assert rule["action"] == "RestartJobSetAndIgnoreMaxRestarts"
  assert rule["onJobFailureReasons"] == ["PodFailurePolicy"]
  assert policy["maxRestarts"] > 0
  assert pod["terminationGracePeriodSeconds"] >= 60


def test_every_process_finds_the_others(jobset):
  replicated, job, _, container = _parts(jobset)
  hosts = job["parallelism"]
  assert job["completions"] == hosts and job["completionMode"] == "Indexed"
  variables = {item["name"]: item["value"] for item in container["env"]}
  for name in re.findall(r"\$\((\w+)\)", " ".join(container["args"])):
    # The last is Kubernetes's own, of an indexed job.
    assert name in variables or name == "JOB_COMPLETION_INDEX"
  if "--distributed" in container["args"]:
    return
  assert f"--num_processes={hosts}" in container["args"]
  assert "--process_id=$(JOB_COMPLETION_INDEX)" in container["args"]
  name = jobset["metadata"]["name"]
  host, _, port = variables["COORDINATOR"].partition(":")
  assert host == f"{name}-{replicated['name']}-0-0.{name}"
  assert {"containerPort": int(port)} in container["ports"]


def test_a_tpu_slice_has_its_hosts():
  _, job, pod, container = _parts(_jobsets()[1])
  shape = pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"]
  rows, columns = map(int, shape.split("x"))
  chips = container["resources"]["limits"]["google.com/tpu"]
  assert rows * columns == chips * job["parallelism"]
