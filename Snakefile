"""CNN features for large video collections: one feature file for each row of a CSV.

    rows of the CSV ─► pending rows, cut into jobs ─► weights, once ─► one job a GPU

`config/README.md` documents the configuration, `scripts/videofeatures` does the work.
"""

from snakemake.utils import min_version

min_version("9.27")


configfile: "config/config.yaml"


# It checks the input, and decides which rows the rules below are made for.
include: "rules/common.smk"


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
