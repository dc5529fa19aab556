"""The weights, fetched and verified once, before any job starts.

Output:
    resources/weights/<backbone>-<identity>.pth, in a folder that all nodes share. One that
    exists was verified when it was made: it belongs to no rule, so that -F leaves it alone.
"""

if RUN.weights and not RUN.weights.shared_path.exists():

    rule prepare_weights:
        output:
            str(RUN.weights.shared_path),
        log:
            Path(config["results"]) / "logs" / "prepare_weights.log",
        localrule: True
        conda:
            "../envs/videofeatures.yaml"
        params:
            python=PYTHON,
            script=SCRIPTS / "prepare_weights.py",
            backbone=config["backbone"],
            weights=lambda wildcards: config["weights"],
        message:
            "Fetch and verify the weights of {params.backbone}"
        shell:
            "{params.python:q} {params.script:q} --backbone={params.backbone:q} "
            "--weights={params.weights:q} --output={output:q} --log={log:q}"
