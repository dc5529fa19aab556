"""An S3 server on this machine: moto's, behind a layer that counts requests and makes them fail."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import boto3
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

BUCKET = "bucket"
REGION = "us-east-1"
SECRET = "wordwordword"

Fault = Callable[["Request"], Iterable[bytes] | None]
"""Answers a request in the server's place; None where it leaves it alone."""


class Request:
    """What was asked for.

    Attributes:
        method: GET, say.
        key: of the object; "" of a listing.
        number: of requests before it.
    """

    def __init__(
        self,
        environ: dict[str, Any],
        start_response: Callable,
        app: Callable,
        number: int,
        over: threading.Event,
    ):
        self.environ = environ
        self.method = environ["REQUEST_METHOD"]
        self.key = environ["PATH_INFO"].lstrip("/").partition("/")[2]
        self.number = number
        self._start_response = start_response
        self._app = app
        self._over = over

    def fail(self, status: int, code: str) -> list[bytes]:
        """An error, in S3's form."""
        body = (
            f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{code}</Message>'
            f"<AWSAccessKeyId>AKIA{SECRET.upper()}</AWSAccessKeyId></Error>"
        ).encode()
        if self.method == "HEAD":
            body = b""
        headers = [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))]
        self._start_response(f"{status} Failed", headers)
        return [body]

    def cut(self, share: float = 0.5) -> Iterator[bytes]:
        """The right answer's head, and a part of its body."""
        body = b"".join(self._app(self.environ, self._start_response))
        yield body[: int(len(body) * share)]
        self.environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)

    def pass_on(self) -> list[bytes]:
        """The right answer."""
        return list(self._app(self.environ, self._start_response))

    def edit(self, change: Callable[[bytes], bytes]) -> list[bytes]:
        """The right answer, with another body."""
        body = change(b"".join(self.answer()))
        headers = [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))]
        self._start_response("200 OK", headers)
        return [body]

    def answer(self) -> list[bytes]:
        """The right answer, whose effect is had, and which may not be given."""
        return list(self._app(self.environ, lambda *_: lambda _: None))

    def reset(self) -> Iterable[bytes]:
        """No answer: the connection breaks."""
        self.environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        raise ConnectionResetError

    def hang(self) -> Iterable[bytes]:
        """No answer, as long as a test lasts; and nothing is done then, either."""
        self._over.wait()
        return self.reset()


class S3Server:
    """One bucket, and what is asked of it.

    Attributes:
        fault: what fails.
        counts: requests, by method.
        keys: of objects, by method, as often as each was asked for.
    """

    def __init__(self) -> None:
        self.fault: Fault = lambda request: None
        self.counts: Counter[str] = Counter()
        self.keys: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()
        self._over = threading.Event()
        app = DomainDispatcherApplication(create_backend_app)

        def wrapped(environ: dict[str, Any], start_response: Callable) -> Iterable[bytes]:
            with self._lock:
                number = self.counts.total()
                request = Request(environ, start_response, app, number, self._over)
                self.counts[request.method] += 1
                self.keys[request.method, request.key] += 1
            answer = self.fault(request)
            return app(environ, start_response) if answer is None else answer

        class Handler(WSGIRequestHandler):
            def log(self, *_: object) -> None:
                """Say nothing."""

        self._server = make_server("127.0.0.1", 0, wrapped, threaded=True, request_handler=Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self.environment = {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    @contextlib.contextmanager
    def running(self) -> Iterator[S3Server]:
        """Serve, with an empty bucket."""
        self._thread.start()
        try:
            yield self
        finally:
            self._over.set()
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()

    @property
    def client(self) -> Any:
        """A client of another library than ours."""
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name=REGION,
            aws_access_key_id="testing",
            aws_secret_access_key=SECRET,
        )

    def start_anew(self) -> None:
        """Nothing is there, and nothing was asked for."""
        self.fault = lambda request: None
        self._over.set()
        self._over = threading.Event()
        client = self.client
        with contextlib.suppress(client.exceptions.NoSuchBucket):
            for page in client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET):
                for item in page.get("Contents", ()):
                    client.delete_object(Bucket=BUCKET, Key=item["Key"])
            client.delete_bucket(Bucket=BUCKET)
        client.create_bucket(Bucket=BUCKET)
        self.forget()

    def forget(self) -> None:
        """Count from now on."""
        with self._lock:
            self.counts.clear()
            self.keys.clear()

    def puts(self, start: str = "") -> Counter[str]:
        """How often each object was written whose key starts so."""
        with self._lock:
            counts = self.keys.items()
            return Counter({k: n for (m, k), n in counts if m == "PUT" and k.startswith(start)})

    def put(self, key: str, content: bytes) -> str:
        """Write an object; return its URL."""
        self.client.put_object(Bucket=BUCKET, Key=key, Body=content)
        self.forget()
        return f"s3://{BUCKET}/{key}"

    def get(self, key: str) -> bytes:
        """What an object holds."""
        return self.client.get_object(Bucket=BUCKET, Key=key)["Body"].read()

    def list(self) -> list[str]:
        """The keys of all objects."""
        found = self.client.list_objects_v2(Bucket=BUCKET).get("Contents", ())
        return [item["Key"] for item in found]
