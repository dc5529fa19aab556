"""Charts show the numbers of their tables."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from videofeatures.report import charts
from videofeatures.report.samples import Sample


def records_of(*spans: tuple[float, float, float, int]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Attempts, of (end, seconds, seconds of video, process), and two processes."""
    attempts = pd.DataFrame(spans, columns=["time", "seconds", "duration_seconds", "process"])
    processes = pd.DataFrame(
        {"device": ["cpu", "cpu"], "host": ["a", "b"], "device_uuid": [None, None]}
    )
    return attempts.assign(status="done"), processes


def test_throughput_is_what_was_done_in_the_last_run():
    attempts, processes = records_of(
        (100, 10, 5000, 0),  # an hour before
        (5010, 10, 100, 0),
        (5020, 10, 100, 0),
        (5020, 20, 400, 1),
    )
    plot = charts.throughput(attempts, processes)
    data = plot.renderers[0].data_source.data
    edges = np.array(data["time"]) / 1000
    assert 4999 < edges[0] < edges[-1] < 5021
    step = edges[1] - edges[0]
    assert sum(data["cpu on a"]) * step == pytest.approx(200)
    assert sum(data["cpu on b"]) * step == pytest.approx(400)
    assert data["cpu on a"][10] == pytest.approx(10, rel=0.01)


def test_no_chart_of_nothing():
    attempts, processes = records_of()
    assert charts.throughput(attempts, processes) is None
    assert charts.where_time_went(processes) is None
    assert charts.histogram(pd.Series([None, "x"]), "", "") is None


@pytest.mark.parametrize(
    ("values", "kind"),
    [([5], "LinearScale"), ([0, 1, 2], "LinearScale"), ([1, 10, 5000], "LogScale")],
)
def test_every_value_is_in_a_histogram(values, kind):
    plot = charts.histogram(pd.Series(values), "", "")
    assert sum(plot.renderers[0].data_source.data["top"]) == len(values)
    assert type(plot.x_scale).__name__ == kind


def jobs_of(*seconds: tuple[float, float, float, float], device: str = "cpu") -> pd.DataFrame:
    """Processes, of (seconds, start-up, network, waiting)."""
    columns = ["seconds", "startup_seconds", "compute_seconds", "idle_seconds"]
    facts = pd.DataFrame(
        {"name": [f"job{k}-20260101T000000-00000000" for k in range(len(seconds))]}
    )
    facts = facts.assign(device=device, host="a", device_uuid=None)
    return facts.join(pd.DataFrame(seconds, columns=columns))


def test_the_time_of_a_job_is_shown_whole():
    plot = charts.where_time_went(jobs_of((10, 1, 6, 2), (None, None, None, None)))
    data = plot.renderers[0].data_source.data
    assert data["name"] == ["job0, cpu on a"]  # the other one has not come to its end
    assert [float(data[stage][0]) for stage in charts.STAGES] == [1, 6, 2, 1]
    assert sum(data[f"{stage} share"][0] for stage in charts.STAGES) == pytest.approx(1)


def test_many_jobs_are_shown_by_their_devices():
    num_jobs = charts.MAX_BARS + 1
    plot = charts.where_time_went(jobs_of(*[(10, 1, 6, 2)] * num_jobs))
    data = plot.renderers[0].data_source.data
    assert data["name"] == ["cpu on a"]
    assert list(data["total"]) == [10 * num_jobs]


def test_of_many_groups_the_small_ones_are_called_others():
    folders = [f"{k}" for k in range(20) for _ in range(20 - k)]
    table = pd.DataFrame({"folder": folders, "x": 0.0, "y": 0.0, "picture": "", "video_path": ""})
    plot = charts.map_of_videos(table, "folder")
    groups = [renderer.data_source.data["group"] for renderer in plot.renderers]
    labels = [item.label.value for item in plot.legend[0].items]
    kept = [str(k) for k in range(charts.MAX_COLOURS - 1)]
    assert labels == [*kept, charts.OTHERS]
    assert sum(map(len, groups)) == len(folders)
    assert set(groups[-1]) == {str(k) for k in range(charts.MAX_COLOURS - 1, 20)}


def test_rows_of_a_video_are_compared_with_each_other_and_with_the_one_before():
    similarity = np.array([[1, 0.9, 0.2], [0.9, 1, 0.3], [0.2, 0.3, 1]])
    times = np.array([0.5, 1.5, 2.5])
    sample = Sample("a.mp4", "a.npy", times, similarity, 3, times, [], [])
    bars = charts.timeline(sample).renderers[0].data_source.data
    np.testing.assert_allclose(bars["time"], [1, 2])
    np.testing.assert_allclose(bars["change"], [0.1, 0.7])
    plot = charts.similarity_matrix(sample)
    (image,) = plot.renderers[0].data_source.data["image"]
    np.testing.assert_allclose(image, similarity, rtol=1e-6)
    assert (plot.x_range.start, plot.x_range.end) == (0, 3)
    assert (plot.y_range.start, plot.y_range.end) == (3, 0)  # time goes down
