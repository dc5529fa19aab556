"""A job's resources in the words of each executor."""

from __future__ import annotations

import pytest

from videofeatures.errors import UserError
from videofeatures.workflow.executors import translate

JOB = {"_cores": 8, "_nodes": 1, "gpu": 1, "mem_mb": 8000, "runtime": 35, "tmpdir": "/tmp"}


@pytest.mark.parametrize("executor", [None, "slurm", "local", "cluster-generic"])
def test_others_are_told_nothing_more(executor):
    assert translate(executor, JOB) == JOB


def test_kubernetes_wants_the_manufacturer_and_limits():
    assert translate("kubernetes", JOB) == JOB | {"gpu_manufacturer": "nvidia", "scale": 0}


def test_google_batch_has_units_of_its_own():
    assert translate("googlebatch", JOB) == JOB | {
        "googlebatch_cpu_milli": 8000,
        "googlebatch_memory": 7630,  # 8e9 / 2**20 = 7629.4
        "googlebatch_max_run_duration": "2100s",
        "nvidia_gpu": 1,
    }


def test_a_job_without_a_gpu_gets_no_accelerator():
    assert "nvidia_gpu" not in translate("googlebatch", JOB | {"gpu": 0})


@pytest.mark.parametrize(
    ("executor", "given"),
    [
        ("kubernetes", {"gpu_manufacturer": "amd", "scale": 1}),
        ("googlebatch", {"nvidia_gpu": "nvidia-l4", "googlebatch_memory": 9000}),
        ("aws-batch", {"_gpus": 2}),
    ],
)
def test_what_a_profile_says_in_the_executor_s_words_stays(executor, given):
    if executor == "aws-batch":
        pytest.importorskip("snakemake_executor_plugin_aws_batch")
    assert translate(executor, JOB | given).items() >= given.items()


@pytest.mark.parametrize(
    ("cores", "mem_mb", "mem_mebibytes"),
    [(1, 1000, 2048), (1, 8000, 8192), (4, 8000, 8192), (8, 8000, 16384), (8, 20000, 20480)],
)
def test_aws_batch_gets_no_less_memory_than_was_asked_for(cores, mem_mb, mem_mebibytes):
    pytest.importorskip("snakemake_executor_plugin_aws_batch")
    job = JOB | {"_cores": cores, "mem_mb": mem_mb}
    assert translate("aws-batch", job) == job | {"_gpus": 1, "mem_mb": mem_mebibytes}


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        ({"_cores": 6}, "6 cores for a job: the executor aws-batch knows 1, 2, 4, 8, 16"),
        ({"_cores": 2, "mem_mb": 20000}, "mem_mb=20000 for a job of 2 cores: .* 16384 MiB"),
    ],
)
def test_a_job_that_aws_batch_cannot_take_is_named(asked, problem):
    pytest.importorskip("snakemake_executor_plugin_aws_batch")
    with pytest.raises(UserError, match=problem):
        translate("aws-batch", JOB | asked)
