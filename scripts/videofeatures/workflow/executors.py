"""What a job asks for, in the words and units of the clouds' executors.

A rule asks for `gpu`, `mem_mb`, `runtime` and threads, as SLURM's executor and Snakemake's own
limits know them. The executors of clouds have other names for these, and do not look at ours. The
names and units are read from the sources of snakemake-executor-plugin-kubernetes 0.5.1,
-googlebatch 0.5.1 and -aws-batch 0.2.1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import ceil

from videofeatures.errors import UserError

Resources = Mapping[str, int | str]

MEBIBYTES_PER_MEGABYTE = 1e6 / 2**20


def translate(executor: str | None, resources: Resources) -> dict[str, int | str]:
    """Return a job's resources with those that its executor wants beside them.

    Args:
        executor: Snakemake's name of it, as in `--executor`; None for this machine.
        resources: of a job, all evaluated: `_cores`, `gpu`, `mem_mb` and `runtime` (minutes).

    Raises:
        UserError: the executor has no room for such a job.
    """
    add = _ADDED_FOR.get(executor or "")
    return {**resources} if add is None else add(resources)


def _for_kubernetes(resources: Resources) -> dict[str, int | str]:
    # With `scale` (its default), there are requests without limits, and Kubernetes refuses a GPU
    # that has no limit.
    return {"gpu_manufacturer": "nvidia", "scale": 0, **resources}


def _for_google_batch(resources: Resources) -> dict[str, int | str]:
    added: dict[str, int | str] = {
        "googlebatch_cpu_milli": 1000 * int(resources["_cores"]),
        "googlebatch_memory": _to_mebibytes(resources["mem_mb"]),
        "googlebatch_max_run_duration": f"{60 * int(resources['runtime'])}s",
    }
    # A number, or the name of a model, which is one of it. Zero would be an accelerator, too.
    if int(resources["gpu"]) > 0:
        added["nvidia_gpu"] = resources["gpu"]
    return {**added, **resources}


def _for_aws_batch(resources: Resources) -> dict[str, int | str]:
    from snakemake_executor_plugin_aws_batch.constant import VALID_RESOURCES_MAPPING

    # For memory that is not in its table, the executor takes the least that goes with the cores,
    # be it less than what was asked for.
    asked, cores = _to_mebibytes(resources["mem_mb"]), int(resources["_cores"])
    sizes = sorted(
        size for size, with_cores in VALID_RESOURCES_MAPPING.items() if cores in with_cores
    )
    if not sizes:
        numbers = sorted(set().union(*VALID_RESOURCES_MAPPING.values()))
        raise UserError(
            f"{cores} cores for a job: the executor aws-batch knows "
            f"{', '.join(map(str, numbers))}. Set max-threads in the profile to one of them"
        )
    if asked > sizes[-1]:
        raise UserError(
            f"mem_mb={resources['mem_mb']} for a job of {cores} cores: the executor aws-batch "
            f"gives it {sizes[-1]} MiB at most. Ask for less, or set max-threads in the profile to "
            "more"
        )
    mem_mebibytes = next(size for size in sizes if size >= asked)
    return {"_gpus": resources["gpu"], **resources, "mem_mb": mem_mebibytes}


def _to_mebibytes(megabytes: int | str) -> int:
    return ceil(int(megabytes) * MEBIBYTES_PER_MEGABYTE)


_ADDED_FOR: dict[str, Callable[[Resources], dict[str, int | str]]] = {
    "kubernetes": _for_kubernetes,
    "googlebatch": _for_google_batch,
    "aws-batch": _for_aws_batch,
}
