"""CNN features for large video collections: one feature file for each row of a CSV.

    rows of the CSV ─► pending rows, cut into jobs ─► weights, once ─► one job a GPU

`config/README.md` documents the configuration, `scripts/videofeatures` does the work.
"""

import os

from snakemake.utils import min_version

min_version("9.27")


# Elsewhere, that of this workflow is taken.
if os.path.exists("config/config.yaml"):

    configfile: "config/config.yaml"


# The first checks the input and plans; the rules below ask it.
include: "rules/common.smk"
include: "rules/hooks.smk"
include: "rules/executors.smk"


rule all:
    input:
        get_end_marks,
    message:
        "All features are there."


include: "rules/weights.smk"
include: "rules/extract.smk"


onsuccess:
    end_run()


onerror:
    end_run()
