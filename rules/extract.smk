"""Features: a rule for jobs, and one for a feature file that is asked for by its path.

A job does up to `videos_per_job` rows on one GPU in one process, which loads the CNN once. Its
only output is a file that says that all its rows are done; the rule all asks for those. Feature
files are outputs of no job: Snakemake removes the outputs of a job when it starts, and when it
fails, and stats each of them while it plans. So what exists stays until the job has something
to put into its place, whatever fails or is killed; and a million rows are planned as some
thousand files.

Input of a job:
    the weights, and, where feature files are to be replaced, the stamp that makes Snakemake run
    it for one of them. Its videos are no inputs: one that is missing costs its own row, not
    the run.
"""


rule extract:
    input:
        get_job_inputs,
    output:
        touch(jobs.end_path(config["results"], "{job}")),
    log:
        jobs.log_path(config["results"], "{job}"),
    wildcard_constraints:
        job=jobs.NAME,
    conda:
        "../envs/videofeatures.yaml"
    threads: lambda wildcards: RUN.find_job(wildcards.job).num_threads
    resources:
        **get_resources(),
    params:
        python=PYTHON,
        script=SCRIPTS / "extract.py",
        job=str(jobs.job_path(config["results"], "{job}")),
        rows=lambda wildcards: RUN.describe_job(wildcards.job),
    message:
        "Extract {params.rows}"
    shell:
        "{params.python:q} {params.script:q} --job {params.job:q} --threads {threads} --log {log:q}"


if workflow.is_main_process:

    # Asked for by the user, or by a rule of a workflow that uses this one as a module. It runs
    # nothing: when the job has ended, the file is there.
    rule feature:
        input:
            get_end_mark,
        output:
            complete("{feature_path}"),
        wildcard_constraints:
            feature_path=r".+\.np[yz]",
        message:
            "{wildcards.feature_path} is there"
