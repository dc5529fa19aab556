"""Features: a rule for jobs, and one for a feature file that is asked for by its path.

A job does up to `videos_per_job` rows on one GPU in one process, which loads the CNN once. The
rows that are pending when Snakemake starts are cut into jobs, so that one wildcard, the name of a
job, stands for all of them: a million rows are planned as some thousand files.

Nothing that Snakemake does to outputs may touch a feature file. It removes the outputs of a job
when the job starts, and when it fails, and stats each of them while it plans. So:

    the end mark   results/plan/<job>.done, a job's only output, which the rule all asks for. It
                   says that all rows of the job are done. Feature files are outputs of no job: what
                   exists stays until the job has something to put into its place, whatever fails
                   or is killed.
    the stamp      an input of jobs that replace feature files. A stale file that is asked for by
                   its path is there, so that Snakemake would run nothing for it: the stamp is
                   newer than any file.
    the rule       `feature` makes a feature file of the end mark of its job, or of nothing if it is
                   done. It runs nothing; its output is `complete`, so that it is kept even if the
                   rule fails.

Videos are no inputs: one that is missing costs its own row, not the run. Weights are, so that they
are there before any job starts.
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
        "{params.python:q} {params.script:q} --job={params.job:q} --threads {threads} --log={log:q}"


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
