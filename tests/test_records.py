"""What the feature file on the disk was made with is known, whatever was killed when; and how
record files are read."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import threading
from pathlib import Path

import pytest

from conftest import write_line
from videofeatures.errors import UserError
from videofeatures.files import hash_file
from videofeatures.records import Recorder, RecordReader, read_records


class History:
    """One row, whose feature file and records a test arranges; each process has a letter."""

    def __init__(self, folder: Path):
        self.feature = folder / "a.npy"
        self.results = folder / "results"
        self.time = 0

    def make(self, letter: str) -> str:
        """Put a process's feature file into its place; gives its hash."""
        self.feature.write_text(f"features of {letter}")
        file_hash = hash_file(self.feature)
        assert file_hash is not None
        return file_hash

    def hash_of(self, letter: str) -> str:
        """The hash of a file that is not in its place."""
        aside = self.feature.with_name(letter)
        aside.write_text(f"features of {letter}")
        file_hash = hash_file(aside)
        aside.unlink()
        assert file_hash is not None
        return file_hash

    def record(
        self,
        letter: str,
        *statuses: str,
        stale: bool = False,
        is_killed: bool = False,
        run_number: int = 0,
        clock: float = 0,
    ):
        """Records of one process with settings of its own, whose clock may be wrong."""
        folder = self.results / "records"
        folder.mkdir(parents=True, exist_ok=True)
        lines = [{"status": "process", "digest": letter, "settings": {"letter": letter}}]
        if run_number:
            lines[0]["run_number"] = run_number
        for status in statuses:
            self.time += 1
            time = self.time + clock
            line = {"time": time, "status": status, "feature_path": str(self.feature)}
            line |= {"digest": letter, "weights": "w"}
            more = {"file_hash": self.hash_of(letter)} if status == "done" else {"stale": stale}
            lines.append(line | more)
        if not is_killed:
            lines.append({"status": "end"})
        # Files are read in any order: here, in that of the alphabet at best.
        text = "".join(json.dumps(line) + "\n" for line in lines)
        path = folder / f"{len(list(folder.iterdir()))}-{letter}.jsonl"
        path.write_text(text)

    def made_by(self) -> str | None:
        """Whose file is on the disk."""
        record = read_records(self.results).of_file(str(self.feature))
        return record.digest if record else None

    def last(self) -> str | None:
        record = read_records(self.results).last.get(str(self.feature))
        return record.status if record else None


@pytest.fixture
def history(tmp_path) -> History:
    return History(tmp_path)


def test_a_file_is_that_of_who_made_it_last(history):
    for letter in "ABC":
        history.record(letter, "started", "done", stale=letter != "A")
        history.make(letter)
        assert (history.made_by(), history.last()) == (letter, "done")


@pytest.mark.parametrize("status", ["started", "failed"])
def test_what_did_not_come_to_its_end_changes_nothing(history, status):
    history.record("A", "started", "done")
    history.make("A")
    history.record("B", *dict.fromkeys(("started", status)), stale=True)
    assert (history.made_by(), history.last()) == ("A", status)


@pytest.mark.parametrize("is_first", [True, False])
def test_a_kill_before_the_rename_leaves_the_file_of_before(history, is_first):
    if not is_first:
        history.record("A", "started", "done")
        history.make("A")
    history.record("B", "started", "done", stale=not is_first, is_killed=True)
    assert history.made_by() == (None if is_first else "A")
    assert history.last() == "started"


@pytest.mark.parametrize("is_first", [True, False])
def test_a_kill_after_the_rename_leaves_the_new_file(history, is_first):
    if not is_first:
        history.record("A", "started", "done")
    history.record("B", "started", "done", stale=not is_first, is_killed=True)
    history.make("B")
    assert history.made_by() == "B"
    # And so it is after others have begun, and were killed, too.
    history.record("C", "started", stale=True)
    assert history.made_by() == "B"
    history.record("D", "started", "done", stale=True, is_killed=True)
    assert history.made_by() == "B"
    history.make("D")
    assert history.made_by() == "D"
    history.record("E", "started", "done", stale=True)
    history.make("E")
    assert history.made_by() == "E"


def test_a_file_of_an_older_process_with_the_same_content_is_the_newer_one_s(history):
    history.record("A", "started", "done", is_killed=True)
    history.record("B", "started", "done", stale=True)
    history.make("A")  # as it happens, B made the same
    assert history.made_by() == "B"


def test_a_line_after_it_says_that_a_file_came_to_its_place(history):
    history.record("A", "started", "done", is_killed=True)
    (path,) = (history.results / "records").iterdir()
    whole = path.read_text()
    history.feature.write_text("read as a copy that somebody has changed")
    assert history.made_by() is None
    for more in ('{"status": "pro', '{"time": 9, "status": "elsewhere", "num_rows": 1}\n'):
        path.write_text(whole + more)
        assert history.made_by() == "A"


def test_a_rename_that_failed_is_taken_back(history):
    history.record("A", "started", "done")
    history.make("A")
    history.record("B", "started", "done", "failed", stale=True)
    assert (history.made_by(), history.last()) == ("A", "failed")


def test_a_file_that_was_gone_when_a_row_began_is_nobody_s_any_more(history):
    history.record("A", "started", "done")
    history.record("B", "started", "failed", stale=False)
    history.feature.write_text("put there by somebody")
    assert history.made_by() is None


def test_the_order_in_which_files_are_read_does_not_matter(history):
    history.record("A", "started", "done")
    history.record("B", "started", "done", stale=True)
    history.record("C", "started", "failed", stale=True)
    history.make("B")
    records = history.results / "records"
    for order in ("012", "021", "102", "120", "201", "210"):
        for number, path in zip(order, sorted(records.iterdir()), strict=True):
            path.rename(records / f"{number}-{path.name[2:]}.tmp")
        for path in list(records.iterdir()):
            path.rename(path.with_suffix(""))
        assert (history.made_by(), history.last()) == ("B", "failed")


def test_the_first_version_wrote_no_hash_and_only_what_was_true(history):
    history.record("A", "started", "done", is_killed=True)
    (path,) = (history.results / "records").iterdir()
    path.write_text(path.read_text().replace("file_hash", "something_else"))
    history.feature.write_text("a file")
    assert (history.made_by(), history.last()) == ("A", "done")


def test_what_is_recorded_can_be_read_while_it_is_written(tmp_path):
    facts = {"digest": "A", "weights": "w"}
    with Recorder(tmp_path, "job") as recorder:
        write_line(recorder, "process", digest="A", settings={"x": 1})
        write_line(recorder, "started", "a.npy", **facts)
        records = read_records(tmp_path)
        assert records.last["a.npy"].status == "started"
        assert records.settings == {"A": {"x": 1}}
        write_line(recorder, "failed", "a.npy", reason="broken", **facts)
        assert read_records(tmp_path).last["a.npy"].reason == "broken"
    assert read_records(tmp_path, start="other").last == {}
    assert list(read_records(tmp_path, start="job").last) == ["a.npy"]


def test_a_failure_is_that_of_the_last_time_or_none(history):
    def failure() -> str | None:
        failed = read_records(history.results).failure_of(str(history.feature))
        return failed.digest if failed else None

    assert failure() is None
    history.record("A", "started")
    assert failure() is None
    history.record("B", "started", "failed")
    assert failure() == "B"
    history.record("C", "failed")
    assert failure() == "C"
    history.record("D", "started")
    assert failure() is None
    history.record("E", "started", "failed")
    history.record("F", "started", "done")
    assert failure() is None


DAY = 86400


@pytest.mark.parametrize("clock", [-DAY, DAY])
@pytest.mark.parametrize("is_killed", [False, True])
def test_what_a_file_was_made_with_does_not_depend_on_clocks(history, clock, is_killed):
    history.record("A", "started", "done", run_number=1, clock=clock)
    history.make("A")
    assert history.made_by() == "A"
    history.record("B", "started", "done", stale=True, run_number=2, is_killed=is_killed)
    if is_killed:
        assert history.made_by() == "A"  # before the rename
    history.make("B")
    assert history.made_by() == "B"
    history.record("C", "started", "failed", stale=True, run_number=3, clock=-clock)
    assert (history.made_by(), history.last()) == ("B", "failed")


def test_a_run_that_began_earlier_may_end_later(history):
    history.record("B", "started", "done", run_number=6)
    history.record("A", "started", "done", stale=True, run_number=5)  # by the clock, after it
    history.make("A")
    assert history.made_by() == "A"
    history.make("B")
    assert history.made_by() == "B"


def test_a_clock_that_is_set_back_does_not_turn_a_process_around(history):
    history.record("A", "started", "done")
    (path,) = (history.results / "records").iterdir()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[1]["time"], lines[2]["time"] = 2 * DAY, DAY
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    history.make("A")
    assert (history.made_by(), history.last()) == ("A", "done")


def test_of_the_file_of_a_process_whose_clock_is_ahead_the_newest_is_known_without_a_look(history):
    history.record("A", "started", "done", run_number=1)
    history.record("B", "started", "done", stale=True, run_number=2)
    history.feature.write_text("of neither, by its hash")
    assert history.made_by() == "B"


def test_a_process_that_was_killed_has_left_a_row_open(history):
    def count() -> int:
        return read_records(history.results).num_interrupted(str(history.feature))

    history.record("A", "started")  # and it was asked to stop, or could not go on
    assert count() == 0
    for number in (1, 2):
        history.record("B", "started", is_killed=True)
        assert count() == number
    history.record("C", "started", "failed")
    assert count() == 0
    history.record("D", "started", is_killed=True)
    assert count() > 0


def test_the_greatest_number_of_all_runs_is_known(history):
    assert read_records(history.results).run_number == 0
    for number in (3, 12, 5):
        history.record("A", run_number=number)
    assert read_records(history.results).run_number == 12


@pytest.mark.parametrize(
    "foreign",
    [
        "[]",
        "{}",
        "null",
        '{"status": []}',
        '{"status": "done"}',
        '{"status": "done", "time": "now", "feature_path": "FEATURE"}',
        '{"status": "done", "time": 1e9, "feature_path": 7}',
        '{"status": "done", "time": 1e9, "feature_path": "FEATURE", "digest": []}',
        '{"status": "done", "time": 1e9, "feature_path": "FEATURE", "num_features": "5"}',
        '{"status": "done", "time": 1e9, "feature_path": "FEATURE", "ffmpeg_lines": [1]}',
        '{"status": "done", "time": 1e9, "feature_path": "FEATURE", "ffmpeg_lines": 1}',
        '{"status": "failed", "time": 1e9, "feature_path": "FEATURE", "reason": {}}',
        '{"status": "process", "digest": {}, "settings": {}}',
        '{"status": "process", "digest": "A", "settings": 3}',
        '{"status": "elsewhere"}',
        '{"status": "a later version knows it"}',
        "[" * 100_000,
    ],
)
def test_a_line_that_is_not_ours_changes_nothing(history, foreign):
    history.record("A", "started", "done")
    history.make("A")
    (path,) = (history.results / "records").iterdir()
    text = foreign.replace("FEATURE", str(history.feature)) + "\n"
    path.write_text(text + path.read_text() + text)
    assert (history.made_by(), history.last()) == ("A", "done")
    assert read_records(history.results).settings == {"A": {"letter": "A"}}


def test_a_hash_that_is_none_is_that_of_no_file(history):
    history.record("A", "started", "done", is_killed=True)
    (path,) = (history.results / "records").iterdir()
    path.write_text(path.read_text().replace(history.hash_of("A"), "no hexadecimal"))
    history.make("A")
    assert history.made_by() is None


def test_records_that_cannot_be_read_are_named(history):
    history.record("A", "started", "done")
    (history.results / "records" / "extract_x.jsonl").mkdir()
    with pytest.raises(UserError, match=r"extract_x.jsonl: the records cannot be read: Is a dir"):
        read_records(history.results)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
@pytest.mark.parametrize("what", ["folder", "file"])
def test_somebody_else_s_records_are_named(what):
    with tempfile.TemporaryDirectory() as folder:
        history = History(Path(folder))
        history.record("A", "started", "done")
        records = history.results / "records"
        os.chmod(folder, 0o755)
        os.chmod(records if what == "folder" else next(records.iterdir()), 0o700)
        os.seteuid(65534)
        try:
            with pytest.raises(UserError, match=r"/records.*: the records cannot be read: Perm"):
                read_records(history.results)
        finally:
            os.seteuid(0)


class Shelf:
    """A reader, and record files that a test writes by hand."""

    def __init__(self, results: Path, start: str = ""):
        self.folder = results / "records"
        self.folder.mkdir()
        self.reader = RecordReader(results, start=start)

    def append(self, name: str, text: str) -> None:
        with open(self.folder / f"{name}.jsonl", "a", encoding="utf-8") as file:
            file.write(text)

    def read(self) -> list[tuple[str, list[dict]]]:
        """What is new."""
        return [(name, list(lines)) for name, lines in self.reader.read()]


@pytest.fixture
def shelf(tmp_path) -> Shelf:
    return Shelf(tmp_path)


ONE = '{"status": "elsewhere", "num_rows": 1}\n'
TWO = '{"status": "elsewhere", "num_rows": 2, "by": "é"}\n'
READ_ONE, READ_TWO = json.loads(ONE), json.loads(TWO)
CUT = {"status": "cut"}


def test_a_reader_reads_on_from_where_it_was(shelf):
    assert shelf.read() == []
    shelf.append("a", ONE + TWO)
    assert shelf.read() == [("a", [READ_ONE, READ_TWO])]
    assert shelf.read() == []
    shelf.append("a", TWO)
    shelf.append("b", ONE)
    assert shelf.read() == [("a", [READ_TWO]), ("b", [READ_ONE])]


def test_half_a_line_is_read_again_when_it_is_whole(shelf):
    shelf.append("a", ONE + TWO[:9])
    assert shelf.read() == [("a", [READ_ONE, CUT])]
    assert shelf.read() == [("a", [CUT])]
    shelf.append("a", TWO[9:])
    assert shelf.read() == [("a", [READ_TWO])]


@pytest.mark.parametrize("garbage", ["\0\0\0\n", '{"status": "o\n', "\n", "7\n", "{}\n"])
def test_a_line_of_garbage_costs_itself_alone(shelf, garbage):
    shelf.append("a", ONE + garbage + TWO)
    assert shelf.read() == [("a", [READ_ONE, CUT, READ_TWO])]
    assert shelf.read() == []


def test_bytes_that_are_no_text_cost_their_line_alone(shelf):
    (shelf.folder / "a.jsonl").write_bytes(b"\xff\xfe\n" + ONE.encode())
    assert shelf.read() == [("a", [CUT, READ_ONE])]


def test_a_reader_may_read_the_files_of_one_name_only(tmp_path):
    shelf = Shelf(tmp_path, start="extract_1")
    for name in ("extract_1-x", "extract_10-x", "extract_2-x", "an extract_1"):
        shelf.append(name, ONE)
    assert [name for name, _ in shelf.read()] == ["extract_1-x", "extract_10-x"]


def test_files_that_are_no_records_are_left_alone(shelf):
    for name in (".nfs0001", "a.jsonl.swp", "README"):
        (shelf.folder / name).write_text("something")
    assert shelf.read() == []


def test_files_are_read_in_the_order_of_their_names(shelf):
    for name in ("b", "c", "a"):
        shelf.append(name, ONE)
    assert shelf.read() == [(name, [READ_ONE]) for name in "abc"]


@pytest.mark.parametrize("is_file", [False, True])
def test_where_nothing_was_recorded_there_is_nothing_to_read(tmp_path, is_file):
    results = tmp_path / "results"
    if is_file:
        results.write_text("not a folder")
    reader = RecordReader(results)
    assert list(reader.read()) == []
    if not is_file:
        with Recorder(results, "job") as recorder:
            write_line(recorder, "started", "a.npy")
        assert len(list(reader.read())) == 1  # it was only too early


def test_a_file_that_is_gone_is_not_missed(shelf):
    shelf.append("a", ONE)
    shelf.append("b", ONE)
    shelf.read()
    (shelf.folder / "a.jsonl").unlink()
    shelf.append("b", TWO)
    assert shelf.read() == [("b", [READ_TWO])]


@pytest.mark.parametrize("is_yielded", [True, False])
def test_of_a_file_that_vanishes_meanwhile_what_was_read_stays_so(shelf, is_yielded):
    for name in "ab":
        shelf.append(name, ONE)
    files = shelf.reader.read()
    name, lines = next(files)
    assert (name, list(lines)) == ("a", [READ_ONE])
    if is_yielded:
        _, lines = next(files)
    (shelf.folder / "b.jsonl").unlink()
    with pytest.raises(FileNotFoundError):
        [list(lines)] if is_yielded else [list(more) for _, more in files]
    shelf.append("a", TWO)
    assert shelf.read() == [("a", [READ_TWO])]


def test_what_was_not_taken_of_a_file_is_new_the_next_time(shelf):
    shelf.append("a", ONE + TWO)
    for _, lines in shelf.reader.read():
        assert next(lines) == READ_ONE
        lines.close()
    assert shelf.read() == [("a", [READ_TWO])]


def test_records_that_cannot_be_written_say_where_and_what_to_do(tmp_path):
    (tmp_path / "records").write_text("in the way")
    with pytest.raises(UserError, match=r"records cannot be written: .* name another folder"):
        Recorder(tmp_path, "job")


URL = "s3://bucket/a.npy"
CONTENTS = {letter: f"features of {letter}".encode() for letter in "AB"}


def record_upload(results, letter: str, *after: str, is_ended: bool = True) -> None:
    """What a process records of an object, and of another row meanwhile."""
    with Recorder(results, f"job-{letter}") as recorder:
        write_line(recorder, "process", digest=letter, settings={})
        file_hash = hashlib.sha256(CONTENTS[letter]).hexdigest()[:16]
        write_line(recorder, "done", URL, digest=letter, weights="w", file_hash=file_hash)
        write_line(recorder, "started", "s3://bucket/another.npy", digest=letter)
        for status in after:
            write_line(recorder, status, URL, digest=letter, num_rows=1, reason="r")
        if is_ended:
            write_line(recorder, "end")


def made_by(results) -> str | None:
    record = read_records(results).of_file(URL)
    return record and record.digest


def test_an_object_that_is_placed_is_known_without_a_look(tmp_path, s3_server):
    record_upload(tmp_path, "A", "placed")
    assert made_by(tmp_path) == "A"
    assert not s3_server.counts


@pytest.mark.parametrize("is_there", [False, True])
def test_an_object_that_was_on_its_way_is_known_by_its_hash(tmp_path, s3_server, is_there):
    """Whatever other rows said after it."""
    record_upload(tmp_path, "A", "placed")
    record_upload(tmp_path, "B", is_ended=False)
    s3_server.put("a.npy", CONTENTS["B" if is_there else "A"])
    assert made_by(tmp_path) == ("B" if is_there else "A")
    assert s3_server.counts.total() == 1


@pytest.mark.parametrize("status", ["failed", "elsewhere"])
def test_an_upload_that_was_refused_is_taken_back_whatever_was_said_meanwhile(
    tmp_path, s3_server, status
):
    s3_server.put("a.npy", CONTENTS["B"])
    record_upload(tmp_path, "A", status)
    assert made_by(tmp_path) is None
    record_upload(tmp_path, "B", "placed")
    assert made_by(tmp_path) == "B"


class Interrupted(BaseException):
    pass


@pytest.mark.parametrize("is_there", [False, True])
def test_of_a_file_in_whose_rename_a_process_was_interrupted_its_hash_tells(history, is_there):
    history.record("A", "started", "done", run_number=1)
    history.make("A")
    facts = {"digest": "B", "weights": "w", "file_hash": history.hash_of("B")}
    recorder = Recorder(history.results, "1-B")
    write_line(recorder, "process", digest="B", settings={"letter": "B"}, run_number=2)

    def rename() -> None:
        with recorder.alone():
            write_line(recorder, "done", history.feature, **facts)
            if is_there:
                history.make("B")
            raise Interrupted

    with pytest.raises(Interrupted):
        rename()
    write_line(recorder, "started", "another.npy", **facts)  # by a thread that goes on
    write_line(recorder, "stopped")
    recorder.__exit__(Interrupted, None)
    assert history.made_by() == ("B" if is_there else "A")


def test_no_other_thread_writes_between_a_done_and_what_became_of_it(tmp_path):
    recorder = Recorder(tmp_path, "job")
    other = threading.Thread(target=write_line, args=[recorder, "started", "b.npy"])
    with recorder.alone():
        write_line(recorder, "done", "a.npy")
        other.start()
        other.join(0.05)
        write_line(recorder, "failed", "a.npy", reason="r")
    other.join()
    ((_, lines),) = RecordReader(tmp_path).read()
    assert [line["status"] for line in lines] == ["done", "failed", "started"]
    recorder.__exit__(None, None)
