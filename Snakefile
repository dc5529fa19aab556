"""CNN features for large video collections: one feature file for each row of a CSV.

    rows of the CSV ─► pending rows, cut into jobs ─► weights, once ─► one job a GPU

`config/README.md` documents the configuration, `scripts/videofeatures` does the work.
"""

from snakemake.utils import min_version

min_version("9.27")


configfile: "config/config.yaml"


# First: it checks the input, and decides which rows the rules below are made for.
include: "rules/common.smk"
include: "rules/weights.smk"
include: "rules/extract.smk"


localrules:
    all,


rule all:
    default_target: True
    input:
        # Without any input, a rule runs each time.
        [jobs.end_path(job.results, job.name) for job in JOBS] or config["videos"],
    message:
        "All features are there."


onstart:
    start_run()


onsuccess:
    end_run()


onerror:
    end_run()
