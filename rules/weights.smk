"""The weights, fetched and verified once, before any job starts.

Output:
    resources/weights/<backbone>-<identity>.pth, in a folder that all nodes share. One that
    exists was verified when it was made: it belongs to no rule, so that -F leaves it alone.
"""

if RUN.missing_weights:

    rule prepare_weights:
        output:
            str(SHARED_FOLDER / "{weights_file}"),
        log:
            jobs.log_path(config["results"], "prepare_{weights_file}"),
        wildcard_constraints:
            weights_file="|".join(map(re.escape, RUN.missing_weights)),
        localrule: True
        conda:
            "../envs/videofeatures.yaml"
        params:
            python=PYTHON,
            script=SCRIPTS / "prepare_weights.py",
            backbone=lambda wildcards: RUN.missing_weights[wildcards.weights_file].backbone,
            weights=lambda wildcards: RUN.missing_weights[wildcards.weights_file].requested,
        message:
            "Fetch and verify the weights of {params.backbone}"
        shell:
            "{params.python:q} {params.script:q} --backbone={params.backbone:q} "
            "--weights={params.weights:q} --output={output:q} --log={log:q}"
