"""The jobs that the profiles for clouds submit, compared, and run here: no cloud was there.

Snakemake, the executors' plugins and the vendors' libraries are the real ones: see cloud_clients.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import pytest
import yaml

from conftest import ROOT, Workflow, make_clip

PLUGINS = {
    "kubernetes": "snakemake_executor_plugin_kubernetes",
    "googlebatch": "snakemake_executor_plugin_googlebatch",
    "aws-batch": "snakemake_executor_plugin_aws_batch",
}
SHARED = {"kubernetes": "/shared", "googlebatch": "/mnt/share", "aws-batch": "/shared"}
"""Where the profile has the shared disk."""


class OnCloud(Workflow):
    """The workflow, submitted by a profile whose shared disk is in the test's folder.

    Attributes:
        submitted: folder of the jobs that were submitted, and of what they said.
    """

    def __init__(self, folder: Path, shared_weights: Path, name: str):
        super().__init__(folder, shared_weights)
        self.submitted = folder / "submitted"
        self.submitted.mkdir()
        self.change_profile(name, f"{SHARED[name]}/videofeatures", str(folder))
        if name == "googlebatch":
            self.change_profile(name, f"{SHARED[name]}", str(folder / "mounted"))
            (folder / ".venv").symlink_to(sys.prefix)
        elif name == "aws-batch":
            self.change_profile(name, f"{SHARED[name]} ", f"{folder / 'mounted'} ")
        self.options = ("--profile", f"profiles/{name}", "--seconds-between-status-checks", "1")
        self.options += ("--latency-wait", "1")
        # What needs root, a network and a file server.
        programs = folder / "bin"
        programs.mkdir()
        for program in ("mount", "apt-get"):
            path = programs / program
            path.write_text(f'#!/bin/sh\necho {program} "$@" >> {folder}/programs.txt\n')
            path.chmod(0o755)
        path = f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        self.environment = os.environ | {"PATH": path}

    def change_profile(self, name: str, before: str, after: str) -> None:
        path = self.folder / "profiles" / name / "config.yaml"
        text = path.read_text()
        assert before in text
        path.write_text(text.replace(before, after))

    def command(self, *arguments, **config) -> list[str]:
        python, *module, last = super().command(*arguments, **config)[:3]
        assert [*module, last] == ["-m", "snakemake"]
        rest = super().command(*arguments, **config)[3:]
        return [python, str(ROOT / "tests" / "cloud_clients.py"), str(self.submitted), *rest]

    def programs_run(self) -> list[str]:
        return (self.folder / "programs.txt").read_text().splitlines()

    def requests(self) -> list[str]:
        return (self.submitted / "requests.txt").read_text().splitlines()

    def specifications(self) -> list[dict]:
        paths = sorted(self.submitted.glob("*.json"), key=lambda path: int(path.stem))
        return [json.loads(path.read_text()) for path in paths]


@pytest.fixture
def cloud(request, tmp_path, real_weights) -> OnCloud:
    pytest.importorskip(PLUGINS[request.param], reason="`make env-cloud` installs it")
    return OnCloud(tmp_path, real_weights, request.param)


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("clips")
    return [make_clip(folder / f"{k}.mp4", seconds=2 + k) for k in range(2)]


def run(cloud: OnCloud, clips: list[Path], *arguments: str, **config: object) -> list[dict]:
    """Run to the end, and return the jobs that were submitted."""
    cloud.write_rows(*[(clip, f"features/{clip.stem}.npy") for clip in clips])
    result = cloud.run(*arguments, **config)
    assert {stem: len(rows) for stem, rows in cloud.features().items()} == {"0": 2, "1": 3}
    assert "2 of 2 pending rows done" in result.stderr
    return cloud.specifications()


def take_command(text: str, snakefile: str) -> str:
    """Check the part of a command that Snakemake made, and return what is before it."""
    before, found, command = text.partition("python -m snakemake ")
    assert found
    assert command.startswith(f"--snakefile '{snakefile}' --target-jobs 'extract:job=")
    # Nothing is fetched or installed in a job.
    assert "--deploy-sources" not in text
    assert "pip install" not in text
    (usage,) = re.findall(r"--shared-fs-usage ([a-z -]+?) --", command)
    assert set(usage.split()) == {"input-output", "persistence", "sources", "storage-local-copies"}
    assert "--config 'backbone=efficientnet_lite0' 'videos=videos.csv' 'report=false'" in command
    return before.strip()


@pytest.mark.parametrize("cloud", ["kubernetes"], indirect=True)
def test_kubernetes_is_asked_for_a_gpu_with_its_limit(cloud, clips):
    (specification,) = run(cloud, clips)
    assert specification["url"].endswith("/apis/batch/v1/namespaces/default/jobs")
    (container,) = specification["job"]["spec"]["template"]["spec"]["containers"]
    shell, command = container.pop("args")
    assert shell == "-c"
    snakefile = str(cloud.folder / "Snakefile")
    assert take_command(command, snakefile) == f"cd {cloud.folder} &&"
    tolerated = {"key": "nvidia.com/gpu", "operator": "Equal", "value": "present"}
    # Of 8 cores, what a node of 8 cores has left for pods.
    requests = {"cpu": "7600m", "memory": "8000M", "nvidia.com/gpu": "1"}
    requests["ephemeral-storage"] = "10000M"
    claim = {"claimName": "videofeatures"}
    pod = {
        "containers": [
            {
                "name": "snakemake",
                "image": "registry.example.org/videofeatures:latest",
                "command": ["/bin/sh"],
                "workingDir": "/workdir",
                "env": container["env"],
                "resources": {"requests": requests, "limits": requests | {"cpu": "8000m"}},
                "volumeMounts": [
                    {"name": "workdir", "mountPath": "/workdir"},
                    {"name": "videofeatures", "mountPath": "/shared"},
                ],
            }
        ],
        "nodeSelector": {},
        "restartPolicy": "Never",
        "tolerations": [tolerated | {"effect": "NoSchedule"}],
        "volumes": [
            {"name": "workdir", "emptyDir": {}},
            {"name": "videofeatures", "persistentVolumeClaim": claim},
        ],
    }
    assert specification["job"]["spec"] == {"backoffLimit": 0, "template": {"spec": pod}}

    (role,) = [o for o in pod_to_start_from() if o["kind"] == "Role"]
    allowed = {
        (verb, resource)
        for rule in role["rules"]
        for verb in rule["verbs"]
        for resource in rule["resources"]
    }
    asked = {request_of(line) for line in cloud.requests()}
    assert asked >= {("create", "secrets"), ("create", "jobs"), ("list", "pods")}
    assert asked <= allowed


def pod_to_start_from() -> list[dict]:
    """The objects of the file that makes it."""
    text = (ROOT / "profiles" / "kubernetes" / "submit.yaml").read_text()
    return list(yaml.safe_load_all(text))


def request_of(line: str) -> tuple[str, str]:
    """What a request does, and to what, in the words of a role of Kubernetes."""
    method, url = line.split()
    resource, name, part = re.fullmatch(
        r".*/namespaces/default/(\w+)(/[^/]+)?(/\w+)?", url
    ).groups()
    verb = {"POST": "create", "DELETE": "delete", "GET": "get" if name else "list"}[method]
    return verb, resource + (part or "")


@pytest.mark.parametrize("cloud", ["kubernetes"], indirect=True)
def test_the_pod_to_start_from_is_one_that_kubernetes_knows(cloud):
    from kubernetes.client import ApiClient

    objects = pod_to_start_from()
    assert [o["kind"] for o in objects][::4] == ["PersistentVolumeClaim", "Pod"]
    client = ApiClient()
    for given in objects:
        # What the library does not know of such an object, it leaves out.
        known = client._ApiClient__deserialize(given, f"V1{given['kind']}")
        if given["kind"] == "RoleBinding":
            known.subjects = given["subjects"]  # a class of another name
        assert client.sanitize_for_serialization(known) == given
    (volume,) = objects[-1]["spec"]["volumes"]
    (mount,) = objects[-1]["spec"]["containers"][0]["volumeMounts"]
    profile = yaml.safe_load((ROOT / "profiles" / "kubernetes" / "config.yaml").read_text())
    claim = volume["persistentVolumeClaim"]["claimName"]
    assert profile["kubernetes-persistent-volumes"] == [f"{claim}:{mount['mountPath']}"]
    assert profile["container-image"] == objects[-1]["spec"]["containers"][0]["image"]


@pytest.mark.parametrize("cloud", ["googlebatch"], indirect=True)
def test_google_batch_is_asked_for_a_machine_that_has_what_a_job_needs(cloud, clips):
    (specification,) = run(cloud, clips, minutes_per_video=10)
    assert specification["parent"] == "projects/my-project/locations/us-central1"
    (group,) = specification["job"]["task_groups"]
    assert (group["task_count"], group["task_count_per_node"]) == ("1", "1")
    task = group["task_spec"]
    # 16,000 MB are 15,258.8 MiB; 15 minutes, and 10 for each of two videos, are 35 minutes.
    assert task["compute_resource"] == {
        "cpu_milli": "8000",
        "memory_mib": "15259",
        "boot_disk_mib": "0",
    }
    assert (task["max_run_duration"], task["max_retry_count"]) == ("2100s", 0)
    assert "container" not in task["runnables"][-1]
    text = task["runnables"][-1]["script"]["text"]
    mounted = cloud.folder / "mounted"
    assert take_command(text, "Snakefile").endswith(
        f"\napt-get install --yes --quiet=2 nfs-common && mkdir --parents {mounted} && "
        f"mount -t nfs -o nolock 10.0.0.2:/share {mounted} && "
        f"cd {cloud.folder} && . .venv/bin/activate &&"
    )
    (instances,) = specification["job"]["allocation_policy"]["instances"]
    assert instances["install_gpu_drivers"]
    policy = instances["policy"]
    assert policy["machine_type"] == "g2-standard-8"
    (gpu,) = policy["accelerators"]
    assert (gpu["type_"], gpu["count"]) == ("nvidia-l4", "1")
    image = "projects/batch-custom-image/global/images/family/batch-debian-12-official"
    assert (policy["boot_disk"]["image"], policy["boot_disk"]["size_gb"]) == (image, "100")
    assert [line.split()[0] for line in cloud.programs_run()] == ["apt-get", "mount"]


@pytest.mark.parametrize("cloud", ["aws-batch"], indirect=True)
def test_aws_batch_is_asked_for_a_gpu_and_memory_of_its_table(cloud, clips):
    (specification,) = run(cloud, clips)
    queue = "arn:aws:batch:eu-central-1:123456789012:job-queue/videofeatures"
    assert specification["job"]["jobQueue"] == queue
    definition = specification["definition"]
    assert specification["job"]["jobDefinition"] == definition["jobDefinitionName"] + ":1"
    assert definition["timeout"] == {"attemptDurationSeconds": 86400}
    assert definition["platformCapabilities"] == ["EC2"]
    container = definition["containerProperties"]
    *shell, command = container.pop("command")
    assert shell == ["/bin/bash", "-c"]
    mounted = cloud.folder / "mounted"
    server = "fs-0123456789abcdef0.efs.eu-central-1.amazonaws.com:/"
    options = "nfsvers=4.1,hard,timeo=600,retrans=2,noresvport"
    assert take_command(command, str(cloud.folder / "Snakefile")) == (
        f"mkdir -p {mounted} && mount -t nfs4 -o {options} {server} {mounted} && "
        f"cd {cloud.folder} &&"
    )
    assert cloud.programs_run() == [f"mount -t nfs4 -o {options} {server} {mounted}"]
    assert container == {
        "image": "123456789012.dkr.ecr.eu-central-1.amazonaws.com/videofeatures:latest",
        "environment": container["environment"],
        "jobRoleArn": "arn:aws:iam::123456789012:role/videofeatures",
        "privileged": True,
        "resourceRequirements": [
            {"type": "VCPU", "value": "8"},
            {"type": "MEMORY", "value": "16384"},
            {"type": "GPU", "value": "1"},
        ],
    }


@pytest.mark.parametrize("cloud", ["aws-batch"], indirect=True)
def test_a_job_that_aws_batch_has_no_room_for_is_refused_with_a_reason(cloud, clips):
    cloud.write_rows((clips[0], "features/0.npy"))
    cloud.change_profile("aws-batch", "max-threads: 8", "max-threads: 6")
    failed = cloud.run(check=False)
    assert failed.returncode == 1
    assert "6 cores for a job: the executor aws-batch knows 1, 2, 4, 8, 16" in failed.stderr
    assert cloud.specifications() == []


@pytest.mark.parametrize("cloud", list(PLUGINS), indirect=True)
def test_jobs_of_one_gpu_each_are_submitted_and_a_broken_video_costs_its_row(cloud, clips):
    (cloud.folder / "broken.mp4").write_bytes(b"no video")
    cloud.write_rows((clips[0], "features/0.npy"), ("broken.mp4", "features/broken.npy"))
    result = cloud.run("--resources", "gpu=2", check=False)
    assert result.returncode == 1
    assert len(cloud.specifications()) == 2
    assert list(cloud.features()) == ["0"]
    assert "1 of 2 pending rows done, 1 failed" in result.stderr
    # The reason is in the record, as everywhere.
    assert cloud.manifest()["broken"]["reason"]


@pytest.mark.parametrize("cloud", ["aws-batch"], indirect=True)
def test_a_dry_run_submits_nothing(cloud, clips):
    cloud.write_rows((clips[0], "features/0.npy"))
    assert cloud.pending() == {"features/0.npy": f"{clips[0]}: no feature file"}
    assert cloud.specifications() == []
