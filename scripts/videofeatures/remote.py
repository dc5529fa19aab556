"""Objects that are not on a disk, by fsspec: looked at, listed, brought, written whole.

fsspec knows the storages, and finds the credentials where their own tools look for them. What it
leaves open is done here, for all of them alike: what is tried again, whether an object was read
whole and stayed the same meanwhile, whether one is written where none was, and what an error means
to people. For S3, by the parameters that its requests have (`If-Match`, `If-None-Match`,
checksums), which s3fs passes on; for others, by a look before and after.
"""

from __future__ import annotations

import hashlib
import io
import logging
import mimetypes
import random
import re
import stat
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar

from videofeatures.errors import MachineError, UserError, VideoError
from videofeatures.files import HASH_DIGITS
from videofeatures.urls import PACKAGES, is_url, redact, scheme_of

MAX_TRIES = 6
WAIT_SECONDS = 0.5
"""Before the second try; twice as long before each further one: 15 s in all. Half of it is left to
chance, so that those who were refused together do not come again together (“Exponential Backoff And
Jitter”, AWS Architecture Blog)."""

CHUNK_BYTES = 1 << 20
PAGE_SIZE = 10_000
"""Names asked for in one listing. S3 gives 1,000 at most, whatever is asked for; others more."""

ROUNDED_NS = 1_000
"""By less than this, the times of one object differ that a listing and a look at it say: some are
floats of seconds."""

MAX_CONNECTIONS = 64
CONNECT_SECONDS = 10
READ_SECONDS = 60

PLAIN_MD5 = re.compile(r"[0-9a-f]{32}")

TEMPORARY = frozenset(
    (
        *("SlowDown", "ServiceUnavailable", "InternalError", "RequestTimeout", "Throttling"),
        *("ThrottlingException", "RequestLimitExceeded", "TooManyRequests", "BadDigest"),
        *("ConditionalRequestConflict", "OperationAborted", "IncompleteBody"),
        *("408", "409", "425", "429", "500", "502", "503", "504"),
    )
)
"""Codes of answers that another try may change."""

NETWORK = frozenset(
    (
        *("ConnectionError", "TimeoutError", "IncompleteRead", "IncompleteReadError"),
        *("HTTPClientError", "ResponseParserError", "ClientConnectionError", "ClientPayloadError"),
        *("ResponseStreamingError", "ConnectionClosedError", "ServerDisconnectedError"),
        *("FSTimeoutError", "FlexibleChecksumError", "EndpointConnectionError", "gaierror"),
        "EndedEarly",
    )
)
"""Errors, by the names of their classes (those of packages that need not be there), that tell of
the network, not of the object."""

CREDENTIALS = frozenset(
    (
        *("ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "InvalidToken"),
        *("InvalidAccessKeyId", "SignatureDoesNotMatch", "RequestTimeTooSkewed", "401"),
        *("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError"),
        *("TokenRetrievalError", "SSOTokenLoadError", "UnauthorizedSSOTokenError"),
        *("ProfileNotFound", "RefreshError", "DefaultCredentialsError"),
    )
)
"""Codes and classes of errors that tell of who asks, not of what is asked for."""

logger = logging.getLogger(__name__)

Result = TypeVar("Result")


class RemoteStat(NamedTuple):
    """What a storage says of an object, in the words of `os.stat_result`.

    Attributes:
        st_mtime_ns: when it was written; storages say it in seconds, or in milliseconds.
        etag: changes with its content; "" where there is none.
    """

    st_size: int
    st_mtime_ns: int
    etag: str = ""
    st_mode: int = stat.S_IFREG | 0o644

    def is_same_version(self, other: RemoteStat) -> bool:
        """Return whether two looks saw the same object, by its ETag, or, where there is none, by
        its time."""
        if self.etag and other.etag:
            return self.etag == other.etag
        return abs(self.st_mtime_ns - other.st_mtime_ns) < ROUNDED_NS


class ObjectExists(Exception):
    """Somebody else has written an object meanwhile, and another one."""


class EndedEarly(Exception):
    """An object came in part, or not as it was written."""


class _Changed(Exception):
    """An object is another one than it was before."""


class Store:
    """Objects of one scheme, by what all filesystems of fsspec have. For several threads."""

    def __init__(self, filesystem: Any):
        self._fs = filesystem

    def stat(self, url: str) -> RemoteStat | None:
        """Look at an object; None if there is none.

        Raises:
            VideoError: it cannot be looked at; `MachineError`, if that is not the object's fault.
        """
        return self._retry(url, lambda: self._none_if_missing(lambda: self._stat(url)))

    def list_pages(
        self, prefix: str, *, is_deep: bool, start: str = ""
    ) -> Iterator[list[tuple[str, RemoteStat]]]:
        """Yield the objects whose URL begins so, as they come, with their URLs.

        Args:
            prefix: ends with a slash.
            is_deep: those of folders below, too.
            start: only those whose URL goes on so behind it.

        Raises:
            VideoError: it cannot be listed.
        """
        scheme = scheme_of(prefix)
        begin = f"{self._fs._strip_protocol(prefix).rstrip('/')}/{start}"
        find = self._fs.find if is_deep else self._fs.ls

        def page() -> list[tuple[str, RemoteStat]]:
            infos = find(prefix, detail=True)
            infos = infos.values() if isinstance(infos, dict) else infos
            return [
                (f"{scheme}://{info['name']}", _to_stat(info))
                for info in infos
                if info["type"] == "file" and info["name"].startswith(begin)
            ]

        found: list[tuple[str, RemoteStat]] | None
        found = self._retry(prefix, lambda: self._none_if_missing(page))
        yield found or []

    def download(
        self, url: str, path: Path, seen: RemoteStat, *, stopped: threading.Event | None = None
    ) -> RemoteStat:
        """Bring an object to a file, whole, and as it is at one time; return what it was then.

        Args:
            seen: what it was when it was looked at last.
            stopped: ends this with an error when it is set.

        Raises:
            VideoError: it cannot be brought; `MachineError`, if that is not its own fault.
            OSError: the file cannot be written.
        """
        now = seen

        def bring() -> RemoteStat:
            nonlocal now
            try:
                self._bring(url, path, now, stopped)
            except _Changed:
                now = self._none_if_missing(lambda: self._stat(url)) or now
                raise
            return now

        return self._retry(url, bring, stopped)

    def upload(
        self,
        path: Path,
        url: str,
        *,
        replaces: RemoteStat | None = None,
        stopped: threading.Event | None = None,
    ) -> None:
        """Write an object whole, from a file, if it is as it was when it was looked at.

        Args:
            replaces: what is there, and is to be replaced; None for what is not there.
            stopped: no further try is made when it is set.

        Raises:
            ObjectExists: by now, another one is there.
            VideoError: it cannot be written.
        """
        self._retry(url, lambda: self._send(path, url, replaces), stopped)

    def put(self, url: str, content: bytes) -> int:
        """Write an object whole, whatever is there; return how many tries it took.

        After more than one, an earlier one may come to the storage yet, and its content be there
        again.

        Raises:
            VideoError: it cannot be written.
        """
        num_tries = 0

        def put() -> None:
            nonlocal num_tries
            num_tries += 1
            self._put(url, content)

        self._retry(url, put)
        return num_tries

    def remove(self, url: str) -> None:
        """Remove an object.

        Raises:
            VideoError: it cannot be removed.
        """
        self._retry(url, lambda: self._fs.rm_file(url))

    def read(self, url: str, start: int = 0) -> bytes:
        """Return the content of an object.

        Args:
            start: leave out as many bytes; there must be more.

        Raises:
            VideoError: it cannot be read.
        """
        return self._retry(url, lambda: self._fs.cat_file(url, start=start or None))

    def _put(self, url: str, content: bytes) -> None:
        self._fs.pipe_file(url, content)

    def _stat(self, url: str) -> RemoteStat:
        return _to_stat(self._fs.info(url))

    def _bring(
        self, url: str, path: Path, seen: RemoteStat, stopped: threading.Event | None
    ) -> None:
        self._fs.get_file(url, str(path))
        if self._stat(url) != seen:
            raise _Changed
        if path.stat().st_size != seen.st_size:
            raise EndedEarly(f"{path.stat().st_size:,} of {seen.st_size:,} bytes came")

    def _send(self, path: Path, url: str, replaces: RemoteStat | None) -> None:
        there: RemoteStat | None = self._none_if_missing(lambda: self._stat(url))
        if there is not None and (replaces is None or not replaces.is_same_version(there)):
            # A try of ours may have come through though its answer did not.
            if self._fs.cat_file(url) == path.read_bytes():
                return
            raise ObjectExists
        self._fs.put_file(str(path), url)

    def _none_if_missing(self, look: Callable[[], Result]) -> Result | None:
        try:
            return look()
        except Exception as error:
            if _codes_of(error) & {"404", "NoSuchKey"} or (
                isinstance(error, FileNotFoundError) and error.__cause__ is None
            ):
                return None
            raise

    def _retry(
        self,
        url: str,
        operation: Callable[[], Result],
        stopped: threading.Event | None = None,
    ) -> Result:
        """Return what an operation returns, which is tried again where that may help."""
        never = threading.Event()
        for number in range(MAX_TRIES):
            try:
                return operation()
            except (ObjectExists, UserError, VideoError):
                raise
            except Exception as error:
                trouble, may_pass = explain(error, url)
                if not may_pass or number == MAX_TRIES - 1:
                    raise trouble from None
            pause = WAIT_SECONDS * 2**number * random.uniform(0.5, 1)
            if (stopped or never).wait(pause):
                break
        raise MachineError("the job was stopped")


class S3Store(Store):
    """Buckets of S3, by its own requests, which s3fs makes."""

    def __init__(self, filesystem: Any):
        super().__init__(filesystem)
        self._page_size: int | None = PAGE_SIZE
        # Buckets whose ETag looks like an MD5 and is none, as where objects are encrypted.
        self._without_md5: set[str] = set()
        self._is_conditional = True

    def _call(self, method: str, url: str, **parameters: Any) -> dict[str, Any]:
        bucket, key = _split(url)
        return self._fs.call_s3(method, Bucket=bucket, Key=key, **parameters)

    def _stat(self, url: str) -> RemoteStat:
        try:
            answer = self._call("head_object", url)
        except Exception as error:
            # It has no body that would say why: a byte of the object may have one.
            if _codes_of(error) & {"400", "403"}:
                self._call("get_object", url, Range="bytes=0-0")
            raise
        return RemoteStat(
            answer["ContentLength"], _to_ns(answer["LastModified"]), answer["ETag"].strip('"')
        )

    def list_pages(
        self, prefix: str, *, is_deep: bool, start: str = ""
    ) -> Iterator[list[tuple[str, RemoteStat]]]:
        """Yield a list for each request: see `Store`."""
        bucket, folder = _split(prefix)
        parameters: dict[str, Any] = {"Bucket": bucket, "Prefix": folder + start}
        if not is_deep:
            parameters["Delimiter"] = "/"

        def ask() -> dict[str, Any]:
            size = {"MaxKeys": self._page_size} if self._page_size else {}
            try:
                return self._fs.call_s3("list_objects_v2", **parameters, **size)
            except Exception as error:
                if not size or not _codes_of(error) & {"InvalidArgument", "400"}:
                    raise
                self._page_size = None
                return ask()

        while True:
            answer = self._retry(prefix, ask)
            yield [
                (
                    f"s3://{bucket}/{item['Key']}",
                    RemoteStat(
                        item["Size"], _to_ns(item["LastModified"]), item.get("ETag", "").strip('"')
                    ),
                )
                for item in answer.get("Contents", ())
            ]
            if not answer.get("IsTruncated"):
                return
            parameters["ContinuationToken"] = answer["NextContinuationToken"]

    def read(self, url: str, start: int = 0) -> bytes:
        """Return the content of an object: see `Store`."""
        part = {"Range": f"bytes={start}-"} if start else {}

        def read() -> bytes:
            content = io.BytesIO()
            self._copy(url, content, None, **part)
            return content.getvalue()

        return self._retry(url, read)

    def _put(self, url: str, content: bytes) -> None:
        # A browser shows a page, and saves what has no type.
        kind = mimetypes.guess_type(url)[0] or "application/octet-stream"
        self._call("put_object", url, Body=content, ContentType=kind)

    def _bring(
        self, url: str, path: Path, seen: RemoteStat, stopped: threading.Event | None
    ) -> None:
        with open(path, "wb") as file:
            try:
                digest, is_encrypted = self._copy(url, file, stopped, IfMatch=f'"{seen.etag}"')
            except Exception as error:
                if _codes_of(error) & {"412", "PreconditionFailed"}:
                    raise _Changed from None
                raise
            num_bytes = file.tell()
        if num_bytes != seen.st_size:
            raise EndedEarly(f"{num_bytes:,} of {seen.st_size:,} bytes came")
        bucket, _ = _split(url)
        has_md5 = PLAIN_MD5.fullmatch(seen.etag) and not is_encrypted
        if has_md5 and bucket not in self._without_md5 and digest != seen.etag:
            second, _ = self._copy(url, io.BytesIO(), stopped)
            if second != digest:
                raise EndedEarly("what came is not what its ETag says")
            self._without_md5.add(bucket)

    def _copy(
        self, url: str, file: IO[bytes], stopped: threading.Event | None, **parameters: Any
    ) -> tuple[str, bool]:
        """Write an object's content to a file; return its MD5, and whether its ETag is another."""
        from fsspec.asyn import sync

        bucket, key = _split(url)
        digest = hashlib.md5(usedforsecurity=False)

        async def copy() -> dict[str, Any]:
            answer = await self._fs._call_s3(
                "get_object", Bucket=bucket, Key=key, ChecksumMode="ENABLED", **parameters
            )
            body = answer["Body"]
            try:
                while chunk := await body.read(CHUNK_BYTES):
                    if stopped is not None and stopped.is_set():
                        raise MachineError("the job was stopped")
                    digest.update(chunk)
                    file.write(chunk)
            finally:
                body.close()
            return answer

        answer = sync(self._fs.loop, copy)
        encryption = answer.get("ServerSideEncryption", ""), answer.get("SSECustomerAlgorithm")
        return digest.hexdigest(), encryption[0].startswith("aws:kms") or bool(encryption[1])

    def _send(self, path: Path, url: str, replaces: RemoteStat | None) -> None:
        content = path.read_bytes()
        condition = {"IfNoneMatch": "*"}
        if replaces:
            condition = {"IfMatch": f'"{replaces.etag}"'} if replaces.etag else {}
        try:
            self._call(
                "put_object", url, Body=content, **(condition if self._is_conditional else {})
            )
        except Exception as error:
            codes = _codes_of(error)
            if codes & {"412", "PreconditionFailed"} or isinstance(error, FileExistsError):
                # A try of ours may have come through though its answer did not.
                if self._none_if_missing(lambda: self.read(url)) != content:
                    raise ObjectExists from None
            elif replaces and codes & {"404", "NoSuchKey"}:  # it has been removed meanwhile
                self._send(path, url, None)
            elif codes & {"501", "NotImplemented"} and self._is_conditional:
                self._is_conditional = False
                logger.warning(
                    "this storage has no conditional writes: two runs may write one feature file, "
                    "and the later one stays"
                )
                self._send(path, url, replaces)
            else:
                raise


def explain(error: Exception, url: str) -> tuple[VideoError, bool]:
    """Return what an error means for people, and whether another try may help.

    It is the object's fault, or, as a `MachineError`, that of the network or of who asks. The text
    holds nothing secret.
    """
    codes = _codes_of(error)
    bucket = redact(url).split("/")[2]
    if isinstance(error, _Changed):
        return MachineError("it was changed while it was read"), True
    if isinstance(error, EndedEarly):
        return MachineError(f"it came in part: {error}"), True
    if codes & CREDENTIALS:
        code = sorted(codes & CREDENTIALS)[0]
        text = f"{bucket}: the credentials are missing, wrong or expired ({code}): renew them"
        return MachineError(text), False
    if "NoSuchBucket" in codes:
        return VideoError(f"{bucket}: no such bucket"), False
    if codes & {"404", "NoSuchKey"}:
        return VideoError("no such file"), False
    if codes & {"403", "AccessDenied", "AllAccessDisabled"}:
        return VideoError(f"{bucket}: no permission (403)"), False
    if codes & TEMPORARY:
        text = f"{bucket}: the storage was busy each of {MAX_TRIES} times"
        return MachineError(f"{text} ({', '.join(sorted(codes & TEMPORARY))})"), True
    if codes & NETWORK:
        text = f"{bucket}: the network failed each of {MAX_TRIES} times"
        return MachineError(f"{text} ({redact(_last_line(error))})"), True
    if isinstance(error, OSError) and error.filename is not None:  # of our own disk
        return MachineError(f"{error.filename}: {error.strerror}"), False
    if isinstance(error, FileNotFoundError):
        return VideoError("no such file"), False
    return VideoError(redact(f"{type(error).__name__}: {_last_line(error)}")), False


def _last_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[-1][:300] or type(error).__name__


def _codes_of(error: BaseException | None) -> set[str]:
    """Return the codes of an answer in what an error is about, and the names of its classes."""
    codes: set[str] = set()
    while error is not None:
        codes |= {kind.__name__ for kind in type(error).__mro__}
        response = getattr(error, "response", None)
        if isinstance(response, dict):
            codes.add(str(response.get("Error", {}).get("Code", "")))
            codes.add(str(response.get("ResponseMetadata", {}).get("HTTPStatusCode", "")))
        # aiohttp has a status, gcsfs a code.
        status = getattr(error, "status", None) or getattr(error, "code", None)
        codes.add(str(status or ""))
        error = error.__cause__
    return codes


def _split(url: str) -> tuple[str, str]:
    """Return the bucket, and what follows it."""
    bucket, _, key = url.partition("://")[2].partition("/")
    return bucket, key


def _to_stat(info: dict[str, Any]) -> RemoteStat:
    """Return what fsspec says of an object, which each of its filesystems says in its own words."""
    if info.get("size") is None:
        raise VideoError("the server does not say how large it is")
    names = ("LastModified", "last_modified", "mtime", "updated", "Last-Modified", "created")
    time = next((info[name] for name in names if info.get(name)), None)
    etag = next((info[name] for name in ("ETag", "etag", "md5Hash") if info.get(name)), "")
    return RemoteStat(info["size"], _to_ns(time), str(etag).strip('"'))


def _to_ns(time: Any) -> int:
    """Return a time in whatever form as nanoseconds since the epoch; 0 for None."""
    if isinstance(time, str):
        try:
            time = datetime.fromisoformat(time)
        except ValueError:
            time = parsedate_to_datetime(time)
    if isinstance(time, datetime):
        if time.tzinfo is None:
            time = time.replace(tzinfo=UTC)
        whole = int(time.replace(microsecond=0).timestamp())
        return whole * 1_000_000_000 + time.microsecond * 1000
    return int((time or 0) * 1_000_000_000)


@cache
def open_store(scheme: str) -> Store:
    """Return what reads and writes objects of a scheme, one of `urls.PACKAGES`.

    Raises:
        UserError: its package is not installed.
    """
    try:
        import fsspec

        options = _s3_options() if scheme == "s3" else {}
        filesystem = fsspec.filesystem(scheme, use_listings_cache=False, **options)
    except ImportError as error:
        raise UserError(
            f"{scheme}:// needs the package {PACKAGES[scheme]} ({error}). {_how_to_install(scheme)}"
        ) from None
    if scheme != "s3":
        return Store(filesystem)
    filesystem.retries = 1
    return S3Store(filesystem)


def _s3_options() -> dict[str, Any]:
    """Return what s3fs is opened with.

    Raises:
        ImportError: s3fs is not installed.
    """
    for name in ("botocore", "aiobotocore", "s3fs"):
        logging.getLogger(name).setLevel(logging.ERROR)  # what they find out is told here
    return {
        "session": _s3_session(),
        "config_kwargs": {
            # Tried again by `_retry`, as is what comes after the answer's head.
            "retries": {"mode": "standard", "total_max_attempts": 1},
            "max_pool_connections": MAX_CONNECTIONS,
            "connect_timeout": CONNECT_SECONDS,
            "read_timeout": READ_SECONDS,
        },
    }


def _s3_session() -> Any:
    """Return a session that reads times quickly: those of a listing of 100,000 objects in 0.1 s,
    where the parser that botocore has, of any form, takes 5 s (measured)."""
    from aiobotocore.session import AioSession
    from botocore.utils import parse_timestamp

    def parse(time: Any) -> datetime:
        try:
            return datetime.fromisoformat(time)
        except (TypeError, ValueError):
            return parse_timestamp(time)

    session = AioSession()
    session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=parse)
    return session


def _how_to_install(scheme: str) -> str:
    """Return what to type for a package that is not there."""
    pip_install = "python -m pip install --constraint envs/constraints.txt"
    if scheme in ("s3", "https", "http"):  # aiohttp is what s3fs needs, too
        return (
            f"Type make env-remote, or, in another environment, {pip_install} --requirement "
            "envs/requirements-remote.txt"
        )
    return f"Type .venv/bin/{pip_install} {PACKAGES[scheme]}"


def stat_object(url: str) -> RemoteStat | None:
    """Look at one object; None if there is none.

    Raises:
        VideoError: see `Store.stat`.
    """
    return open_store(scheme_of(url)).stat(url)


def open_file(path: str) -> IO[bytes]:
    """Open a file of a disk, or all of an object, to be read.

    Raises:
        OSError: it is on a disk, and cannot be opened.
        VideoError: it is elsewhere, and cannot be read.
    """
    if is_url(path):
        return io.BytesIO(open_store(scheme_of(path)).read(path))
    return open(path, "rb")


def hash_object(url: str) -> str | None:
    """Return what `hash_file` returns of a file, of an object; None if it cannot be read."""
    try:
        content = open_store(scheme_of(url)).read(url)
    except VideoError:
        return None
    return hashlib.sha256(content).hexdigest()[:HASH_DIGITS]
