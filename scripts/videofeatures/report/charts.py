"""Charts, made with Bokeh, of the tables of `collect` and of `samples`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from typing import Any

import numpy as np
import pandas as pd
from bokeh.models import (
    BasicTicker,
    ColumnDataSource,
    CustomJSTickFormatter,
    FactorRange,
    HoverTool,
    Image,
    LinearColorMapper,
    NumeralTickFormatter,
    Range1d,
)
from bokeh.models.annotations import Title
from bokeh.models.renderers import DataRenderer
from bokeh.palettes import Colorblind8, Viridis256
from bokeh.plotting import figure

from videofeatures.report.collect import device_labels
from videofeatures.report.samples import Sample

WIDTH = 1040
NUM_BINS = 120
MAX_COLOURS = 8
MAX_BARS = 24
GAP_SECONDS = 1800
"""A pause between runs after which only what comes later is drawn over time."""

QUANTILE = 0.99
"""Quantile of a distribution above which values share the last bar."""

OTHERS = "others"
INK = "#1f2933"
GRID = "#e4e7eb"
STAGES = {
    "start-up": "#9aa5b1",
    "network": "#2f7ed8",
    "waiting for frames": "#f0a202",
    "other": "#d5dae0",
}
"""What a job does with its time, and its colour."""


def _figure(**options: Any) -> figure:
    """Return a figure in the style of the page."""
    plot = figure(toolbar_location=None, background_fill_alpha=0, border_fill_alpha=0, **options)
    plot.outline_line_color = None
    plot.grid.grid_line_color = GRID
    for axis in plot.axis:
        axis.axis_line_color = GRID
        axis.major_tick_line_color = GRID
        axis.minor_tick_line_color = None
        axis.axis_label_text_font_style = "normal"
        axis.axis_label_text_color = axis.major_label_text_color = INK
    return plot


def _limited(labels: pd.Series, max_labels: int = MAX_COLOURS) -> pd.Series:
    """Return the labels, all but the most frequent replaced by `others`."""
    counts = labels.value_counts()
    kept = counts.index[: max_labels - 1] if len(counts) > max_labels else counts.index
    return labels.where(labels.isin(kept), OTHERS)


def _add_hover(plot: figure, tooltips: list[tuple[str, str]], *renderers: DataRenderer) -> None:
    plot.add_tools(HoverTool(renderers=list(renderers), tooltips=tooltips))


def _legend_below(plot: figure) -> None:
    legend = plot.legend[0]
    plot.add_layout(legend, "below")
    legend.orientation = "horizontal"
    legend.border_line_color = None
    legend.background_fill_alpha = 0
    legend.ncols = 4


def throughput(attempts: pd.DataFrame, processes: pd.DataFrame) -> figure | None:
    """Return a chart of the seconds of video done in each second of the last run, by device.

    Args:
        attempts, processes: see `Collected`.

    Returns:
        None if no video of a known duration is done.
    """
    done = attempts[(attempts["status"] == "done") & attempts["duration_seconds"].notna()]
    if done.empty:
        return None
    begun = done["time"] - done["seconds"]
    ends_before = done["time"].astype(float).cummax().shift(fill_value=-np.inf)
    pauses = np.flatnonzero(begun.to_numpy() - ends_before.to_numpy() > GAP_SECONDS)
    done, begun = done.iloc[pauses[-1] :], begun.iloc[pauses[-1] :]
    edges = np.linspace(begun.min(), max(done["time"].max(), begun.min() + 1), NUM_BINS + 1)
    labels = _limited(done["process"].map(device_labels(processes)))
    columns = {}
    for label, group in done.groupby(labels):
        # What is done at a time grows evenly from a video's beginning to its end.
        start, end = (group["time"] - group["seconds"]).to_numpy(), group["time"].to_numpy()
        length = np.maximum(end - start, 1e-3)
        seconds = group["duration_seconds"].to_numpy()
        total = np.array(
            [(seconds * np.clip((edge - start) / length, 0, 1)).sum() for edge in edges]
        )
        columns[str(label)] = np.diff(total) / np.diff(edges)
    middle = (edges[:-1] + edges[1:]) / 2 * 1000
    source = ColumnDataSource({"time": middle, **columns})
    top = float(np.sum(list(columns.values()), axis=0).max())
    plot = _figure(
        width=WIDTH,
        height=240,
        x_axis_type="datetime",
        y_range=Range1d(start=0, end=top * 1.05 or 1),
        tools="",
    )
    colours = [c for c, _ in zip(cycle(Colorblind8), columns, strict=False)]
    plot.varea_stack(
        list(columns), x="time", source=source, color=colours, legend_label=list(columns)
    )
    plot.yaxis.axis_label = "times real time"
    plot.xaxis.axis_label = "time (UTC)"
    _legend_below(plot)
    return plot


def where_time_went(processes: pd.DataFrame) -> figure | None:
    """Return a chart of what the time of each job went into, or of each device if jobs are many.

    Args:
        processes: see `Collected`.

    Returns:
        None if no job has ended.
    """
    if "seconds" not in processes:
        return None
    ended = processes[processes["seconds"].notna()]
    names = ended["name"].str.rsplit("-", n=2).str[0] + ", " + device_labels(ended)
    if len(ended) > MAX_BARS:
        names = _limited(device_labels(ended), MAX_BARS)
    sums = ended.groupby(names)[
        ["seconds", "startup_seconds", "compute_seconds", "idle_seconds"]
    ].sum()
    stages = pd.DataFrame(
        {
            "start-up": sums["startup_seconds"],
            "network": sums["compute_seconds"],
            "waiting for frames": sums["idle_seconds"],
        }
    )
    stages["other"] = (sums["seconds"] - stages.sum(axis=1)).clip(lower=0)
    shares = stages.div(sums["seconds"], axis=0)
    data: dict[str, Any] = {"name": list(sums.index), "total": sums["seconds"].to_numpy()}
    for stage in STAGES:
        data[stage] = stages[stage].to_numpy()
        data[f"{stage} share"] = shares[stage].to_numpy()
    plot = _figure(
        width=WIDTH,
        height=90 + 26 * len(sums),
        y_range=FactorRange(*reversed(data["name"])),
        x_range=Range1d(start=0, end=1),
        tools="",
    )
    bars = plot.hbar_stack(
        [f"{stage} share" for stage in STAGES],
        y="name",
        height=0.7,
        color=list(STAGES.values()),
        source=ColumnDataSource(data),
        legend_label=list(STAGES),
    )
    tooltips = [(stage, f"@{{{stage}}}{{0.0}} s, @{{{stage} share}}{{0%}}") for stage in STAGES]
    _add_hover(plot, [("", "@name"), *tooltips], bars[0])
    plot.xaxis.formatter = NumeralTickFormatter(format="0%")
    plot.ygrid.grid_line_color = None
    _legend_below(plot)
    return plot


def histogram(values: pd.Series, title: str, unit: str) -> figure | None:
    """Return a small histogram; of numbers that span decades, over their logarithms.

    Args:
        values: numbers, or their text; what is neither is left out.
        unit: label of the axis.

    Returns:
        None if there are no numbers.
    """
    known = pd.to_numeric(values, errors="coerce").dropna().to_numpy(float)
    known = known[np.isfinite(known)]
    if not len(known):
        return None
    is_log = known.min() > 0 and known.max() / known.min() > 100
    top = known.max() if is_log else max(np.quantile(known, QUANTILE), known.min())
    low = known.min()
    if top == low:
        low, top = low - max(abs(low), 1) / 2, top + max(abs(top), 1) / 2
    edges = np.geomspace(low, top, 31) if is_log else np.linspace(low, top, 31)
    counts, _ = np.histogram(np.clip(known, edges[0], edges[-1]), edges)
    plot = _figure(
        width=WIDTH // 3 - 8,
        height=170,
        title=Title(text=title, text_color=INK),
        x_axis_type="log" if is_log else "linear",
        y_range=Range1d(start=0, end=counts.max() * 1.08),
        tools="",
    )
    source = ColumnDataSource(
        {"left": edges[:-1], "right": edges[1:], "top": counts, "bottom": np.zeros(30)}
    )
    bars = plot.quad(
        "left", "right", "top", "bottom", source=source, color="#2f7ed8", line_color="white"
    )
    _add_hover(
        plot,
        [(unit, "@left{0.[00]} to @right{0.[00]}"), ("videos", "@top{0,0}")],
        bars,
    )
    plot.xaxis.axis_label = unit
    plot.xgrid.grid_line_color = None
    if not is_log:
        plot.xaxis.ticker = BasicTicker(desired_num_ticks=5)
    plot.yaxis.ticker = BasicTicker(desired_num_ticks=4, min_interval=1)
    plot.yaxis.formatter = NumeralTickFormatter(format="0a")
    return plot


def map_of_videos(table: pd.DataFrame, colour_of: str) -> figure:
    """Return a chart of the points of `make_map`, each with its video on hover.

    Args:
        table: x, y, video_path, duration, picture (a data URL or ""), and the column `colour_of`.
    """
    groups = _limited(table[colour_of].fillna(""))
    order = list(groups.value_counts().index)
    if OTHERS in order:  # last, in grey
        order = [*(name for name in order if name != OTHERS), OTHERS]
    plot = _figure(
        width=WIDTH,
        height=560,
        tools="pan,wheel_zoom,box_zoom,reset",
        active_scroll="wheel_zoom",
        match_aspect=True,
    )
    plot.toolbar_location = "right"
    plot.toolbar.logo = None
    plot.axis.visible = plot.grid.visible = False
    for name, colour in zip(order, cycle(Colorblind8), strict=False):
        members = table[groups == name]
        plot.scatter(
            "x",
            "y",
            source=ColumnDataSource(members.rename(columns={colour_of: "group"})),
            size=9 if len(table) < 500 else 6,
            color="#b8c1cc" if name == OTHERS else colour,
            fill_alpha=0.75,
            line_color="white",
            line_width=0.5,
            legend_label=str(name) or "(none)",
        )
    plot.add_tools(
        HoverTool(
            tooltips="""
            <div class="tip">
              <img src="@picture" alt="" onerror="this.remove()">
              <div>@video_path</div><div>@duration, @group</div>
            </div>""",
            limit=3,
        )
    )
    _legend_below(plot)
    return plot


def similarity_matrix(sample: Sample) -> figure:
    """Return a chart of the cosines between the features of one video."""
    times, step = sample.times, _step(sample.times)
    start, end = times[0] - step / 2, times[-1] + step / 2
    plot = _figure(
        width=300,
        height=290,
        x_range=Range1d(start=start, end=end),
        y_range=Range1d(start=end, end=start),
        tools="hover",
        tooltips=[("seconds", "$x{0.0}, $y{0.0}"), ("cosine", "@image{0.000}")],
    )
    low = min(float(sample.similarity.min()), 0.99)
    extent = {"x": [start], "y": [start], "dw": [end - start], "dh": [end - start]}
    source = ColumnDataSource({"image": [sample.similarity.astype(np.float32)], **extent})
    colours = LinearColorMapper(palette=list(Viridis256), low=low, high=1.0)
    plot.add_glyph(source, Image(color_mapper=colours), level="image")
    plot.grid.visible = False
    plot.xaxis.axis_label = f"seconds; cosines from {low:.2f} (dark) to 1"
    return plot


def timeline(sample: Sample) -> figure:
    """Return a chart of how much each feature differs from the one before: cuts are peaks."""
    times, step = sample.times, _step(sample.times)
    change = 1 - np.diagonal(sample.similarity, offset=1)
    source = ColumnDataSource({"time": (times[1:] + times[:-1]) / 2, "change": change})
    plot = _figure(
        width=WIDTH - 330,
        height=120,
        x_range=Range1d(start=times[0] - step / 2, end=times[-1] + step / 2),
        y_range=Range1d(start=0, end=max(float(change.max(initial=0)) * 1.1, 0.05)),
        tools="",
    )
    bars = plot.vbar("time", step * 0.8, "change", source=source, color="#2f7ed8")
    plot.add_tools(
        HoverTool(
            renderers=[bars], tooltips=[("second", "@time{0.0}"), ("change", "@change{0.000}")]
        )
    )
    plot.yaxis.axis_label = "change"
    plot.yaxis.ticker = BasicTicker(desired_num_ticks=3)
    plot.xaxis.axis_label = "seconds"
    plot.xaxis.formatter = CustomJSTickFormatter(code="return tick.toFixed(tick % 1 ? 1 : 0)")
    return plot


def _step(times: Sequence[float] | np.ndarray) -> float:
    return float(times[1] - times[0]) if len(times) > 1 else 1.0
