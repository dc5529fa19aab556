"""Features: one rule for each job, so that its outputs are exactly its pending rows.

A job does up to `videos_per_job` rows on one GPU in one process, which loads the CNN once.
Its videos are not inputs: one that is missing costs its own row, not the run.

Input:
    the weights, and, where feature files are to be replaced, the stamp that makes
    Snakemake run a job whose outputs exist
Output:
    a file that says that the job is done, which is what the rule all asks for: Snakemake goes
    through the outputs of a rule to find the one that is asked for, so that to ask for each
    feature file takes half of the time and a quarter of the memory of planning (measured);
    and the feature files. Those that were missing are marked update(): one that somebody
    else finishes before the job starts is kept.
"""

for job in JOBS:

    rule:
        name:
            job.name
        input:
            weights=job.weights_path,
            stamp=[STAMP] if WEIGHTS and job.has_stale_rows else [],
        output:
            touch(jobs.end_path(job.results, job.name)),
            [row.feature_path if row.stale else update(row.feature_path) for row in job.rows],
        log:
            jobs.log_path(job.results, job.name),
        conda:
            "../envs/videofeatures.yaml"
        threads: job.num_threads
        resources:
            **get_resources(job),
        params:
            python=PYTHON,
            script=Path(workflow.basedir) / "scripts" / "extract.py",
            job=jobs.job_path(job.results, job.name),
        message:
            jobs.describe_job(job).replace("{", "{{").replace("}", "}}")
        shell:
            "{params.python:q} {params.script:q} --job {params.job:q} --threads {threads} --log {log:q}"


if DONE_TARGETS:

    # A file that is done is no rule's output; Snakemake wants one for what is asked by path.
    rule done:
        output:
            update(DONE_TARGETS),
