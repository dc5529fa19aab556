"""What the manifest and the records tell, as tables."""

from __future__ import annotations

import pandas as pd

from conftest import write_line
from small_collection import SmallCollection
from videofeatures.records import Recorder
from videofeatures.report import collect
from videofeatures.report.manifest import write_manifest
from videofeatures.source import Source


def test_records_of_all_processes_are_collected(tmp_path):
    (tmp_path / "manifest.csv").write_text(
        "video_path,feature_path,state,reason,num_features,feature_dim,duration_seconds,seconds,"
        "ffmpeg_lines\na.mp4,a.npy,done,,2,8,2.5,1.5,\nNA,b.npy,failed,NA,,,,,x | y\n"
    )
    facts = {"host": "n", "digest": "1", "settings": {}}
    times = dict.fromkeys(collect.TIMES, 1.0)
    for number, uuid in enumerate(("abcdef", "fedcba")):
        with Recorder(tmp_path, f"job{number}") as recorder:
            write_line(recorder, "process", **facts)
            write_line(recorder, "device", device="cuda", device_uuid=uuid)
            write_line(recorder, "started", "a.npy")
            done = {"width": 64 + number, "seconds": 1, "duration_seconds": 2}
            write_line(recorder, "done", "a.npy", **done)
            if number:
                write_line(recorder, "end", **times)
    found = collect.collect(tmp_path)
    assert list(found.rows["video_path"]) == ["a.mp4", "NA"]
    assert list(found.attempts["process"]) == [0, 1]
    assert list(found.done()["width"]) == [65]
    assert list(found.processes["seconds"].isna()) == [True, False]
    labels = list(collect.device_labels(found.processes))
    assert labels == ["cuda abcd… on n", "cuda fedc… on n"]


def test_a_process_that_was_killed_early_has_no_device_and_an_old_one_has_it_at_once(tmp_path):
    (tmp_path / "manifest.csv").write_text(COLUMNS)
    facts = {"host": "n", "digest": "1", "settings": {}}
    old = {"device": "cpu", "device_uuid": None, "ffmpeg": "7"}
    for number, more in enumerate(({}, old)):
        with Recorder(tmp_path, f"job{number}") as recorder:
            write_line(recorder, "process", **facts | more)
    found = collect.collect(tmp_path)
    assert list(collect.device_labels(found.processes)) == ["unknown device on n", "cpu on n"]
    assert list(found.processes["ffmpeg"].dropna()) == ["7"]


COLUMNS = (
    "video_path,feature_path,state,reason,stale,num_features,feature_dim,duration_seconds,seconds,"
    "ffmpeg_lines\n"
)


def test_the_norm_of_features_had_another_name_in_version_0_2_0(tmp_path):
    (tmp_path / "manifest.csv").write_text(COLUMNS)
    with Recorder(tmp_path, "job") as recorder:
        write_line(recorder, "done", "old.npy", mean_length=1.5)
        write_line(recorder, "done", "new.npy", mean_norm=2.5)
        write_line(recorder, "failed", "neither.npy")
    attempts = collect.collect(tmp_path).attempts.set_index("feature_path")
    assert attempts["mean_norm"].dropna().to_dict() == {"old.npy": 1.5, "new.npy": 2.5}
    assert "mean_length" not in attempts


def test_a_row_that_is_done_is_told_of_by_its_last_record(tmp_path):
    (tmp_path / "manifest.csv").write_text(
        COLUMNS + "a.mp4,a.npy,done,,,2,8,,1.5,\nb.mp4,b.npy,failed,x,,,,,,\n"
        "c.mp4,c.npy,done,,,,,,,\n"
    )
    for number, time in enumerate((20, 10)):  # files are read in the order of their names
        with Recorder(tmp_path, f"job{number}") as recorder:
            for name in "ab":
                write_line(recorder, "done", f"{name}.npy", time=time, width=time, seconds=9)
    found = collect.collect(tmp_path)
    assert list(found.attempts["time"]) == [10, 10, 20, 20]
    done = found.done()
    assert list(done.index) == ["a.npy", "c.npy"]
    assert done.loc["a.npy", ["width", "num_features", "seconds"]].to_list() == [20, 2, 1.5]
    # No record tells of the other one, and numbers that nobody knows are none.
    assert done.loc["c.npy", ["width", "num_features", "seconds"]].isna().all()


def test_without_records_there_are_tables_without_lines(tmp_path):
    (tmp_path / "manifest.csv").write_text(COLUMNS)
    found = collect.collect(tmp_path)
    assert [len(table) for table in (*found, found.done())] == [0, 0, 0, 0]
    assert set(found.attempts) == {*collect.ATTEMPT_FACTS, "process", "run_number"}
    assert collect.device_labels(found.processes).empty


def test_a_device_is_told_by_its_host_where_that_is_enough():
    processes = pd.DataFrame(
        {
            "device": ["cpu", "A100", "A100", "A100"],
            "host": ["n1", "n1", "n2", "n2"],
            "device_uuid": [None, "aaaaaa", "bbbbbb", "bbbbbb"],
        }
    )
    labels = list(collect.device_labels(processes))
    assert labels == ["cpu on n1", "A100 on n1", "A100 on n2", "A100 on n2"]


def test_what_a_file_was_made_with_is_that_of_the_last_run_whatever_the_clocks_say(tmp_path):
    (tmp_path / "manifest.csv").write_text(COLUMNS + "a.mp4,a.npy,done,,,1,8,1,1,\n")
    for number, time in ((1, 2e9), (2, 1e9)):
        with Recorder(tmp_path, f"job{number}") as recorder:
            facts = {"host": "n", "digest": "1", "settings": {}, "run_number": number}
            write_line(recorder, "process", **facts)
            recorder.write(
                {"time": time, "status": "done", "feature_path": "a.npy", "width": number}
            )
    assert list(collect.collect(tmp_path).done()["width"]) == [2]


def test_a_row_may_be_a_part_and_before_version_0_5_0_was_none(tmp_path):
    (tmp_path / "manifest.csv").write_text(
        "video_path,feature_path,start_seconds,end_seconds,state,reason,ffmpeg_lines\n"
        "a.mp4,a.npy,1.5,,done,,\nb.mp4,b.npy,,,done,,\n"
    )
    rows = [row for _, row in collect.collect(tmp_path).rows.iterrows()]
    assert list(map(collect.source_of, rows)) == [Source("a.mp4", 1.5), Source("b.mp4")]
    (tmp_path / "manifest.csv").write_text(COLUMNS + "a.mp4,a.npy,done,,,,,,,\n")
    ((_, row),) = collect.collect(tmp_path).rows.iterrows()
    assert collect.source_of(row) == Source("a.mp4")


def test_a_recipe_s_name_is_text_though_it_looks_like_a_number(tmp_path):
    collection = SmallCollection(tmp_path)
    collection.add("a")
    path = tmp_path / "videos.csv"
    path.write_text(path.read_text().replace("/a.npy", "/{backbone}/a.npy"))
    names = ("1", "007")
    config = {"backbone": {name: {"backbone": "efficientnet_lite0"} for name in names}}
    write_manifest(collection.plan(**config))
    collected = collect.collect(collection.results)
    for name in names:
        (feature_path,) = collected.of(name).rows["feature_path"]
        assert feature_path.endswith(f"/{name}/a.npy")
