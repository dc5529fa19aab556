"""Snakemake, with executors of clouds whose requests come here instead of to a cloud.

    python cloud_clients.py FOLDER …Snakemake's options…

The executors' plugins and the vendors' libraries are the real ones, which check and write each
request; only the last step is ours. A job that is submitted is written to FOLDER/<number>.json, as
it would be sent, and its command is run here at once, to its end, in an empty folder.
"""

from __future__ import annotations

import io
import json
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path


class Jobs:
    """What was submitted, and how it ended."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._exit_statuses: dict[str, int] = {}

    def note(self, request: str) -> None:
        """Keep what was asked, a line for each request."""
        with open(self._folder / "requests.txt", "a") as file:
            file.write(f"{request}\n")

    def run(self, name: str, specification: dict, command: list[str]) -> None:
        """Keep what was submitted, and run the job's command."""
        number = len(self._exit_statuses)
        path = self._folder / f"{number}.json"
        path.write_text(json.dumps(specification))
        node = self._folder / f"node{number}"
        node.mkdir()
        with open(self._folder / f"{number}.log", "w") as log:
            ended = subprocess.run(command, cwd=node, stdout=log, stderr=log)
        self._exit_statuses[name] = ended.returncode

    def succeeded(self, name: str) -> bool:
        return self._exit_statuses[name] == 0


def replace_kubernetes(jobs: Jobs) -> None:
    from kubernetes import config
    from kubernetes.client import rest

    class Response(io.BytesIO):
        status = 200
        reason = "OK"

        def __init__(self, content: dict):
            self.data = json.dumps(content).encode()

        def getheader(self, name: str) -> str:
            return "application/json"

        def getheaders(self) -> dict[str, str]:
            return {}

    def answer(self, method: str, url: str, body: dict | None = None, **options) -> Response:
        jobs.note(f"{method} {url}")
        if method == "POST" and url.endswith("/jobs"):
            (container,) = body["spec"]["template"]["spec"]["containers"]
            command = container["command"] + container["args"]
            jobs.run(body["metadata"]["name"], {"url": url, "job": body}, command)
        elif method == "GET" and (job := re.search("/jobs/(.*)/status$", url)):
            ended = "succeeded" if jobs.succeeded(job[1]) else "failed"
            return Response({"status": {ended: 1}})
        elif method == "GET" and url.endswith("/pods"):
            return Response({"items": []})
        else:
            assert method in ("POST", "DELETE"), (method, url)
        return Response(body or {})

    config.load_kube_config = lambda: None
    rest.RESTClientObject.request = answer


def replace_google_batch(jobs: Jobs) -> None:
    from google.cloud import batch_v1, logging

    class Client:
        def create_job(self, request: batch_v1.CreateJobRequest) -> batch_v1.Job:
            specification = batch_v1.CreateJobRequest.to_dict(request)
            name = f"{request.parent}/jobs/{request.job_id}"
            (group,) = request.job.task_groups
            (*_, last) = group.task_spec.runnables
            jobs.run(name, specification, ["bash", "-c", last.script.text])
            return batch_v1.Job(name=name, uid=request.job_id)

        def get_job(self, request: batch_v1.GetJobRequest) -> batch_v1.Job:
            ended = "SUCCEEDED" if jobs.succeeded(request.name) else "FAILED"
            return batch_v1.Job(status={"state": ended})

    class NoLogs:
        def __init__(self, **options): ...

        def logger(self, name: str) -> NoLogs:
            return self

        def list_entries(self, **options) -> list:
            return []

    batch_v1.BatchServiceClient = Client
    logging.Client = NoLogs


def replace_aws_batch(jobs: Jobs) -> None:
    import boto3
    from botocore.awsrequest import AWSResponse

    definitions: dict[str, dict] = {}

    def answer(request, **options) -> AWSResponse:
        given = json.loads(request.body)
        operation = request.url.rsplit("/", 1)[1]
        told: dict = {}
        if operation == "registerjobdefinition":
            name = given["jobDefinitionName"]
            definitions[f"{name}:1"] = given
            told = {"jobDefinitionName": name, "jobDefinitionArn": f"arn:{name}", "revision": 1}
        elif operation == "submitjob":
            definition = definitions[given["jobDefinition"]]
            command = definition["containerProperties"]["command"]
            jobs.run(given["jobName"], {"definition": definition, "job": given}, command)
            told = {"jobName": given["jobName"], "jobId": given["jobName"]}
        elif operation == "describejobs":
            (name,) = given["jobs"]
            ended = "SUCCEEDED" if jobs.succeeded(name) else "FAILED"
            told = {"jobs": [{"jobId": name, "jobName": name, "status": ended}]}
        else:
            assert operation in ("terminatejob", "deregisterjobdefinition"), request.url
        response = AWSResponse(request.url, 200, {"content-type": "application/json"}, None)
        response._content = json.dumps(told).encode()
        return response

    def client(*arguments, make: Callable = boto3.client, **options):
        made = make(*arguments, **options)
        made.meta.events.register("before-send.batch", answer)
        return made

    boto3.client = client
    os.environ |= {"AWS_ACCESS_KEY_ID": "of-a-test", "AWS_SECRET_ACCESS_KEY": "of-a-test"}


if __name__ == "__main__":
    REPLACED_FOR = {
        "kubernetes": replace_kubernetes,
        "googlebatch": replace_google_batch,
        "aws-batch": replace_aws_batch,
    }
    folder, *arguments = sys.argv[1:]
    profile = Path(arguments[arguments.index("--profile") + 1]).name
    REPLACED_FOR[profile](Jobs(Path(folder)))
    sys.argv = ["snakemake", *arguments]
    runpy.run_module("snakemake", run_name="__main__")
