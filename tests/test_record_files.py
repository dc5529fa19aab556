"""Record files on a disk and in a bucket: what is kept when, what a reader sees, and that nothing
that is lost by a kill makes a wrong claim."""

from __future__ import annotations

import contextlib
import hashlib
import random
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

pytest.importorskip("s3fs")
pytest.importorskip("moto")

from conftest import wait_for, write_line
from videofeatures import record_files, records, remote
from videofeatures.errors import UserError
from videofeatures.record_files import RecordFile, create_record_file, find_record_files
from videofeatures.records import Recorder, read_records

RUN = "s3://bucket/run"
NEVER = 1e6


@pytest.fixture(autouse=True)
def soon(monkeypatch) -> None:
    """A try is soon followed by the next; a line waits for ever, unless a test says otherwise."""
    monkeypatch.setattr(remote, "WAIT_SECONDS", 0.01)
    monkeypatch.setattr(record_files, "FLUSH_SECONDS", NEVER)


class Shelf:
    """A place of record files, as its readers see it."""

    def __init__(self, results: str | Path, start: str = ""):
        self.files = find_record_files(results, start=start)

    def read(self) -> list[tuple[str, bytes]]:
        """What is new, of each file."""
        return [(name[:3], b"".join(lines)) for name, lines in self.files.read()]


@contextlib.contextmanager
def written(results: str | Path, name: str = "job") -> Iterator[RecordFile]:
    file = create_record_file(results, name)
    yield file
    file.close()


@pytest.fixture(params=["disk", "bucket"])
def results(request, tmp_path, s3_server) -> str:
    return RUN if request.param == "bucket" else str(tmp_path)


def keys_of(server) -> list[str]:
    return [key for key in server.list() if key.startswith("run/records/")]


def test_what_may_not_wait_is_seen_at_once_and_the_rest_at_the_end(results):
    shelf = Shelf(results)
    assert shelf.read() == []
    with written(results) as file:
        assert shelf.read() == []
        file.append(b"1\n", may_wait=True)
        file.append(b"2\n", may_wait=False)
        assert shelf.read() == [("job", b"1\n2\n")]
        assert shelf.read() == []
        file.append(b"3\n", may_wait=True)
    assert shelf.read() == [("job", b"3\n")]
    assert shelf.read() == []
    assert Shelf(results).read() == [("job", b"1\n2\n3\n")]
    assert Shelf(f"{results}/").read() == [("job", b"1\n2\n3\n")]


def test_what_waits_does_not_wait_for_ever(s3_server, monkeypatch):
    monkeypatch.setattr(record_files, "FLUSH_SECONDS", 0.05)
    shelf = Shelf(RUN)
    with written(RUN) as file:
        file.append(b"1\n", may_wait=True)
        wait_for(lambda: shelf.read() == [("job", b"1\n")])


def test_lines_are_many_and_puts_are_few(s3_server):
    with written(RUN) as file:
        for number in range(60):
            file.append(b"%d\n" % number, may_wait=number % 10 != 0)
    # One to see whether that can be, one for each that may not wait, and one at the end.
    assert s3_server.counts["PUT"] == 8
    assert len(keys_of(s3_server)) == 1


def test_of_several_files_each_is_read_on_by_itself(results):
    shelf = Shelf(results)
    with written(results, "aaa") as first, written(results, "bbb") as second:
        second.append(b"1\n", may_wait=False)
        assert shelf.read() == [("bbb", b"1\n")]
        first.append(b"2\n", may_wait=False)
        second.append(b"3\n", may_wait=False)
        assert shelf.read() == [("aaa", b"2\n"), ("bbb", b"3\n")]


@pytest.mark.parametrize("num_ahead", [1, 3, 64])
def test_a_file_of_many_parts_is_one(s3_server, monkeypatch, num_ahead):
    monkeypatch.setattr(record_files, "PART_BYTES", 20)
    monkeypatch.setattr(record_files, "NUM_AHEAD", num_ahead)
    shelf, seen = Shelf(RUN), b""
    expected = b"".join(b"line %d\n" % number for number in range(100))
    with written(RUN, "other") as other, written(RUN) as file:
        other.append(b"1\n", may_wait=False)
        for number in range(100):
            file.append(b"line %d\n" % number, may_wait=False)
            if number % 7 == 0:
                seen += dict(shelf.read())["job"]
    seen += dict(shelf.read())["job"]
    assert seen == expected
    assert len(keys_of(s3_server)) == 35  # of three lines at most, and one of the other file's
    assert dict(Shelf(RUN).read()) == {"job": expected, "oth": b"1\n"}


def test_only_what_is_new_is_brought(s3_server):
    shelf, sizes = Shelf(RUN), Counter()

    def count(request):
        if request.method == "GET" and request.key:
            answer = request.pass_on()
            sizes[request.key] += len(b"".join(answer))
            return answer
        return None

    with written(RUN) as file:
        for number in range(20):
            file.append(b"%03d\n" % number * 100, may_wait=False)
            s3_server.fault = count
            assert shelf.read() == [("job", b"%03d\n" % number * 100)]
            s3_server.fault = lambda request: None
    assert sizes.total() == 20 * 400 + 19  # with a byte before each, but the first


def test_a_bucket_is_asked_for_the_files_of_one_run_alone(s3_server):
    asked = []
    for name in ("extract_1_0001", "extract_10_0001", "other"):
        with written(RUN, name) as file:
            file.append(b"1\n", may_wait=False)
    s3_server.fault = lambda request: asked.append(request.environ["QUERY_STRING"])
    found = [name for name, _ in find_record_files(RUN, start="extract_1_").read()]
    assert len(found) == 1
    assert found[0].startswith("extract_1_0001-")
    assert "prefix=run%2Frecords%2Fextract_1_&" in f"{asked[0]}&"


def test_what_was_not_taken_is_new_the_next_time(results):
    shelf = Shelf(results)
    with written(results) as file:
        file.append(b"1\n", may_wait=True)
        file.append(b"2\n", may_wait=False)
    for _, lines in shelf.files.read():
        assert next(lines) == b"1\n"
        lines.close()
    assert shelf.read() == [("job", b"2\n")]


def test_files_of_a_bucket_and_of_a_disk_are_read_where_they_are_copied_to(
    s3_server, monkeypatch, tmp_path
):
    monkeypatch.setattr(record_files, "PART_BYTES", 4)
    with written(RUN, "bucket") as file:
        for number in range(5):
            file.append(b"%d\n" % number, may_wait=False)
    with written(tmp_path, "disk") as file:
        file.append(b"5\n", may_wait=False)
    (on_disk,) = (tmp_path / "records").iterdir()
    for key in keys_of(s3_server):
        (tmp_path / key.removeprefix("run/")).write_bytes(s3_server.get(key))
    s3_server.put(f"run/records/{on_disk.name}", on_disk.read_bytes())
    expected = [("buc", b"0\n1\n2\n3\n4\n"), ("dis", b"5\n")]
    assert Shelf(tmp_path).read() == Shelf(RUN).read() == expected


def test_a_part_that_grew_after_it_was_listed_is_read_before_the_next(s3_server, monkeypatch):
    """Of two pages of a listing, the second one is of a later time."""
    monkeypatch.setattr(record_files, "PART_BYTES", 4)
    shelf = Shelf(RUN)
    file = create_record_file(RUN, "job")
    file.append(b"1\n", may_wait=False)
    assert shelf.read() == [("job", b"1\n")]
    (key,) = keys_of(s3_server)
    store = remote.open_store("s3")
    ((_, before),) = next(store.list_pages(f"{RUN}/records/", is_deep=False))
    for number in (2, 3):
        file.append(b"%d\n" % number, may_wait=False)
    list_pages = store.list_pages

    def list_late(*args, **options):
        for page in list_pages(*args, **options):
            yield [(url, before if url.endswith(key) else state) for url, state in page]

    monkeypatch.setattr(store, "list_pages", list_late)
    assert shelf.read() == [("job", b"1\n2\n3\n"[2:])]
    file.close()


def test_a_put_that_comes_late_takes_nothing_back(s3_server):
    """A try that was given up, and that the storage takes when there is more."""
    late = []

    def fault(request):
        if request.method == "PUT" and b"x-late" not in late:
            body = request.environ["wsgi.input"].read(int(request.environ["CONTENT_LENGTH"]))
            late.extend((b"x-late", request.key, body))
            return request.fail(503, "SlowDown")
        return None

    with written(RUN) as file:
        file.append(b"1\n", may_wait=False)
        s3_server.fault = fault
        file.append(b"2\n", may_wait=False)
        s3_server.fault = lambda request: None
        file.append(b"3\n", may_wait=False)
        _, key, body = late
        assert b"2" in body
        s3_server.put(key, s3_server.get(key)[:4])
        file.append(b"4\n", may_wait=False)
    assert Shelf(RUN).read() == [("job", b"1\n2\n3\n4\n")]
    assert len(keys_of(s3_server)) == 2


def test_a_storage_that_fails_one_request_in_ten_loses_no_line(s3_server):
    s3_server.fault = lambda r: r.fail(503, "SlowDown") if r.number % 10 == 3 else None
    shelf, seen = Shelf(RUN), b""
    with written(RUN) as file:
        for number in range(60):
            file.append(b"%d\n" % number, may_wait=False)
            seen += b"".join(lines for _, lines in shelf.read())
    assert seen == b"".join(b"%d\n" % number for number in range(60))


REFUSED = (
    r"^s3://bucket/run/records/job-.*\.jsonl: records cannot be written: bucket: no permission "
    r"\(403\)\. The job ends here; what is done is kept\. Mend that, or name another folder with "
    r"`results`, and run again$"
)


def refuse(request):
    return request.fail(403, "AccessDenied") if request.method == "PUT" else None


def test_where_nothing_can_be_written_is_known_at_the_start(s3_server):
    s3_server.fault = refuse
    with pytest.raises(UserError, match=REFUSED):
        create_record_file(RUN, "job")


def test_a_line_that_cannot_be_kept_is_an_error_at_once(s3_server):
    file = create_record_file(RUN, "job")
    s3_server.fault = refuse
    with pytest.raises(UserError, match=REFUSED):
        file.append(b"1\n", may_wait=False)
    s3_server.fault = lambda request: None
    # Nothing comes behind a line that is not there.
    with pytest.raises(UserError, match=REFUSED):
        file.append(b"2\n", may_wait=True)
    with pytest.raises(UserError, match=REFUSED):
        file.close()
    assert Shelf(RUN).read() == []


@pytest.mark.parametrize("may_wait", [True, False, None])
def test_what_could_not_be_written_meanwhile_is_said_at_the_next_line_or_the_end(
    s3_server, monkeypatch, may_wait
):
    monkeypatch.setattr(record_files, "FLUSH_SECONDS", 0.05)
    file = create_record_file(RUN, "job")
    s3_server.fault = refuse
    file.append(b"1\n", may_wait=True)
    num_puts = s3_server.counts["PUT"]
    wait_for(lambda: s3_server.counts["PUT"] > num_puts)
    go_on = file.close
    if may_wait is not None:
        go_on = partial(file.append, b"2\n", may_wait=may_wait)
    with pytest.raises(UserError, match=REFUSED):
        wait_for(go_on)


def test_an_end_that_may_not_take_long_does_not(s3_server):
    """Of a process that is asked to stop, while the storage does not answer."""
    answers = threading.Event()
    file = create_record_file(RUN, "job")
    s3_server.fault = lambda request: answers.wait(60) and None
    file.append(b"1\n", may_wait=True)
    file.close(max_seconds=0.1)
    assert not answers.is_set()
    answers.set()
    file.close()
    assert Shelf(RUN).read() == [("job", b"1\n")]


def test_a_bucket_that_cannot_be_read_is_named(s3_server):
    with written(RUN) as file:
        file.append(b"1\n", may_wait=False)
    told = (
        r"^s3://bucket/run/records.*: the records cannot be read: bucket: no permission \(403\)\."
    )
    for is_listing in (True, False):
        s3_server.fault = lambda r, is_listing=is_listing: (
            r.fail(403, "AccessDenied") if is_listing == (not r.key) else None
        )
        with pytest.raises(UserError, match=told):
            read_records(RUN)


class World:
    """Four feature files and the records of the processes that make them; what is true of them is
    known. Storage is fsspec's, in memory."""

    PATHS = ("disk/a.npy", "disk/b.npy", "memory://bucket/f/a.npy", "memory://bucket/f/b.npy")

    def __init__(self, folder: Path, results: str, store: remote.Store, seed: int):
        self.folder, self.results, self.store = folder, results, store
        self.random = random.Random(seed)
        self.maker: dict[str, str] = {}
        self.time = 0.0

    def path(self, name: str) -> str:
        return name if "://" in name else str(self.folder / name)

    def content(self, name: str, letter: str) -> bytes:
        return f"features of {name} by {letter}".encode()

    def place(self, name: str, letter: str) -> None:
        """A feature file takes its place."""
        if "://" in name:
            self.store.put(name, self.content(name, letter))
        else:
            Path(self.path(name)).write_bytes(self.content(name, letter))
        self.maker[name] = letter
        self.look()

    def look(self) -> None:
        """Whatever is killed now, the records tell what each file was made with."""
        found = read_records(self.results)
        for name, letter in self.maker.items():
            record = found.of_file(self.path(name))
            assert record is not None, name
            assert record.digest == letter, name

    def write(self, recorder: Recorder, status: str, name: str, letter: str) -> None:
        self.time += 1
        facts = {"time": self.time, "digest": letter, "stale": name in self.maker, "num_rows": 1}
        if status == "done":
            facts["file_hash"] = hashlib.sha256(self.content(name, letter)).hexdigest()[:16]
        write_line(recorder, status, self.path(name), reason="r", **facts)
        self.look()

    def run(self, letter: str) -> None:
        """A process: it ends, is killed or is interrupted, at any time."""
        number = read_records(self.results).run_number + 1
        recorder = Recorder(self.results, f"job{letter}")
        facts = {"settings": {}, "digest": letter, "run_number": number}
        write_line(recorder, "process", **facts)
        on_their_way: list[str] = []
        with contextlib.suppress(Killed, KeyboardInterrupt):
            for name in self.random.sample(self.PATHS, 4):
                self.maybe_end()
                self.write(recorder, "started", name, letter)
                for other in [one for one in on_their_way if self.random.random() < 0.5]:
                    on_their_way.remove(other)
                    self.end_upload(recorder, other, letter)
                if self.random.random() < 0.2:
                    self.write(recorder, "failed", name, letter)
                elif "://" in name:
                    self.write(recorder, "done", name, letter)
                    on_their_way.append(name)
                else:
                    self.rename(recorder, name, letter)
            for other in on_their_way:
                self.end_upload(recorder, other, letter)
            write_line(recorder, "end")
            recorder.__exit__(None, None)
            self.look()
            return
        if not self.random.randrange(2):  # what waits is lost
            if isinstance(recorder._file, Flushing):
                recorder._file.lose_what_waits()
            recorder.__exit__(None, None)
        else:
            write_line(recorder, "started", "another", digest=letter)
            write_line(recorder, "stopped")
            recorder.__exit__(KeyboardInterrupt, None)
        self.look()

    def rename(self, recorder: Recorder, name: str, letter: str) -> None:
        with recorder.alone():
            self.write(recorder, "done", name, letter)
            self.maybe_end()
            if self.random.random() < 0.3:
                self.write(recorder, "failed", name, letter)
                return
            self.place(name, letter)
            self.maybe_end()

    def end_upload(self, recorder: Recorder, name: str, letter: str) -> None:
        self.maybe_end()
        status = self.random.choice(["placed", "placed", "failed", "elsewhere"])
        if status == "placed":
            self.place(name, letter)
            self.maybe_end()
        self.write(recorder, status, name, letter)

    def maybe_end(self) -> None:
        if self.random.random() < 0.05:
            raise self.random.choice([Killed, KeyboardInterrupt])


class Killed(BaseException):
    pass


class Flushing:
    """A record file of which any line may be kept at once."""

    def __init__(self, file: RecordFile, generator: random.Random):
        self.file, self.random = file, generator

    def append(self, text: bytes, *, may_wait: bool) -> None:
        self.file.append(text, may_wait=may_wait and self.random.random() < 0.7)

    def close(self, max_seconds: float | None = None) -> None:
        self.file.close(max_seconds)

    def lose_what_waits(self) -> None:
        self.file._waiting.clear()


@pytest.fixture
def memory_store(monkeypatch) -> Iterator[remote.Store]:
    import fsspec

    filesystem = fsspec.filesystem("memory")
    filesystem.store.clear()
    filesystem.pseudo_dirs[:] = [""]
    store = remote.Store(filesystem)
    for module in (remote, record_files):
        monkeypatch.setattr(module, "open_store", lambda scheme: store)
    yield store
    filesystem.store.clear()


@pytest.mark.parametrize("place", ["disk", "bucket"])
def test_whatever_is_cut_off_no_record_claims_a_file_wrongly(
    tmp_path, monkeypatch, memory_store, place
):
    monkeypatch.setattr(record_files, "PART_BYTES", 1500)
    create = create_record_file
    num_made = 0
    for seed in range(25):
        folder = tmp_path / str(seed)
        (folder / "disk").mkdir(parents=True)
        results = f"memory://bucket/{seed}" if place == "bucket" else str(folder / "results")
        for name in World.PATHS[2:]:
            memory_store._fs.store.pop(name.removeprefix("memory:/"), None)
        world = World(folder, results, memory_store, seed)

        def create_flushing(results, name, world=world):
            file = create(results, name)
            return Flushing(file, world.random) if place == "bucket" else file

        monkeypatch.setattr(records, "create_record_file", create_flushing)
        for letter in "ABCDE":
            world.run(letter)
        num_made += len(world.maker)
        shutil.rmtree(folder)
    assert num_made > 40  # there was something to be wrong about
