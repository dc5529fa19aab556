"""The page: the text beside each chart, and where it stands."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from bokeh.embed import components
from bokeh.model import Model
from bokeh.resources import Resources

from videofeatures.files import replace_file
from videofeatures.networks.classifier import Classifier, find_classifier
from videofeatures.networks.recipe import Recipe
from videofeatures.networks.weights import RANDOM
from videofeatures.planning.plan import check_config, find_recipes, make_plan
from videofeatures.report import charts, report_path, samples
from videofeatures.report.collect import Collected, collect, source_of
from videofeatures.report.manifest import STATES, make_manifest
from videofeatures.results import leave_copy
from videofeatures.settings import Config
from videofeatures.source import Source
from videofeatures.units import describe_bytes, describe_seconds

NUM_SAMPLES = 6
NUM_STRIP = 10
"""Pictures of a sample."""
NUM_MAPPED = 2000
"""Points of the map: what a browser, and a t-SNE of some seconds, can bear."""
NUM_PICTURED = 400
"""Points of the map that have a picture, of 3 kB each."""
NUM_CANDIDATES = 1000
NUM_PAIRS = 20
NUM_PROBLEMS = 40
NUM_PATHS = 3
NUM_SIZES = 5

READ_SECONDS = 30
PICTURE_SECONDS = 20
"""What has not been read, or pictured, by then is left out: the page is bounded in time."""

STRIP_HEIGHT = 76
MAP_HEIGHT = 64

COLOURS = {"done": "#3fae6b", "failed": "#d64545", "missing": "#f0a202", "pending": "#9aa5b1"}
NEUTRAL = "#2f7ed8"


def write_report(config: Mapping[str, Any], *, keep_manifest: bool = False) -> str:
    """Write `<results>/report.html`, one file that needs no network; return where people find it.

    Where a configuration has several recipes, it is the page of the first one, and each of the
    others has one beside it.

    Args:
        config: as it was given; it is checked.
        keep_manifest: start from the manifest that is there; else it is written, too.

    Raises:
        UserError: the configuration, its CSV or the records cannot be used.
        OSError: a page cannot be written.
    """
    configs = check_config(config)
    _, recipes = find_recipes(configs)
    if not keep_manifest:
        make_manifest(make_plan(config))
    results = next(iter(configs.values())).results
    collected = collect(results)
    paths = {
        recipe.name: report_path(results, recipe.name if number else "")
        for number, recipe in enumerate(recipes)
    }
    for recipe in recipes:
        is_one = len(recipes) == 1
        _write_page(
            collected if is_one else collected.of(recipe.name),
            configs[recipe.name],
            recipe,
            paths[recipe.name],
            others={} if is_one else {name: path.name for name, path in paths.items()},
        )
    place, *_ = [leave_copy(results, path) for path in paths.values()]
    return place


def _write_page(
    collected: Collected, config: Config, recipe: Recipe, path: Path, others: Mapping[str, str]
) -> None:
    """Write the page of one recipe, with links to those of all, by name, where they are several."""
    started = time.monotonic()
    done = collected.done()
    figures = Figures()
    content = {
        "title": "Features of " + Path(config.videos).name,
        "subtitle": _subtitle(config, recipe),
        **_counts(collected, done, recipe),
        **_problems(collected.rows),
        **_samples_map_and_pairs(done, config, recipe, figures),
        **_distributions(done, figures),
        **_times(collected, figures),
        **_settings(collected, done, recipe),
    }
    names = {
        "problems": "not done",
        "samples": "what came out",
        "map": "the collection",
        "pairs_text": "nearly the same",
        "histograms": "distributions",
        "throughput": "speed",
        "stages": "time",
        "settings": "settings",
    }
    ids = {"histograms": "distributions", "pairs_text": "pairs"}
    contents = [(ids.get(key, key), name) for key, name in names.items() if content.get(key)]
    page = _template().render(
        **content,
        contents=contents,
        pages=[(name, file, name == recipe.name) for name, file in others.items()],
        bokeh_js=Resources(mode="inline", components=["bokeh"]).render_js(),
        script=figures.script(),
        seconds=f"{time.monotonic() - started:.0f}",
    )
    with replace_file(path, tidy=True) as file:
        file.write(figures.put_into(page).encode(errors="replace"))


class Figures:
    """Figures that are drawn together, so that the page has each of Bokeh's parts once."""

    def __init__(self) -> None:
        self._models: dict[str, Model] = {}
        self._divs: dict[str, str] = {}

    def add(self, model: Model | None) -> str:
        """Add a figure, and return a mark for its place in the page; "" for None."""
        if model is None:
            return ""
        mark = f"@figure-{len(self._models)}@"
        self._models[mark] = model
        return mark

    def script(self) -> str:
        """Return the script that draws all of them."""
        if not self._models:
            return ""
        script, self._divs = components(self._models, wrap_script=True)
        return script

    def put_into(self, page: str) -> str:
        """Return the page with a place for each figure instead of its mark, after `script`."""
        return re.sub(r"@figure-\d+@", lambda match: self._divs[match[0]], page)


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True
    )
    return environment.get_template("page.html")


def _subtitle(config: Config, recipe: Recipe) -> str:
    when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    warning = ": random weights, whose features mean nothing" if recipe.weights_id == RANDOM else ""
    return (
        f"{recipe.backbone_name}, weights {recipe.weights_id or 'not here'}{warning}. "
        f"{config.videos}, {config.results}. {when}"
    )


def _counts(collected: Collected, done: pd.DataFrame, recipe: Recipe) -> dict[str, Any]:
    counts = collected.rows["state"].value_counts()
    num_rows = max(len(collected.rows), 1)
    states = [
        {
            "name": state,
            "value": f"{counts.get(state, 0):,}",
            "share": 100 * counts.get(state, 0) / num_rows,
            "colour": COLOURS[state],
        }
        for state in STATES
    ]
    complained = done[
        (done["reason"] != "") | (done["ffmpeg_lines"] != "") | (done["damaged_share"] > 0)
    ]
    num_features = done["num_features"].sum()
    num_bytes = (done["num_features"] * done["feature_dim"]).sum() * recipe.bytes_per_number
    totals = [
        ("of video done", describe_seconds(float(done["duration_seconds"].sum()))),
        ("features", f"{num_features:,.0f}"),
        ("of feature files", describe_bytes(float(num_bytes))),
    ]
    if len(complained):
        totals.append(("done with complaints", f"{len(complained):,}"))
    if num_fallbacks := int((done["fallback"] != "").sum()):
        totals.append(("decoded on the CPU, not on the device", f"{num_fallbacks:,}"))
    return {
        "states": states,
        "totals": [{"name": n, "value": v, "colour": NEUTRAL} for n, v in totals],
    }


def _problems(rows: pd.DataFrame) -> dict[str, Any]:
    """Return the rows that are not done, those together whose reasons differ in numbers only."""
    others = rows[rows["state"] != "done"]
    kinds = others["reason"].str.replace(r"\d+(\.\d+)?", "0", regex=True)
    problems = []
    for (state, _), group in others.groupby([others["state"], kinds]):
        first = group.iloc[0]
        problems.append(
            {
                "count": len(group),
                "state": state,
                "reason": first["reason"],
                "ffmpeg_lines": first["ffmpeg_lines"].replace(" | ", "\n"),
                "paths": [str(source_of(row)) for _, row in group[:NUM_PATHS].iterrows()],
            }
        )
    order = {state: k for k, state in enumerate(STATES)}
    problems.sort(key=lambda problem: (order[problem["state"]], -problem["count"]))
    for problem in problems:
        problem["count"] = f"{problem['count']:,}"
    return {"problems": problems[:NUM_PROBLEMS], "more_problems": len(problems[NUM_PROBLEMS:])}


def _samples_map_and_pairs(
    done: pd.DataFrame, config: Config, recipe: Recipe, figures: Figures
) -> dict[str, Any]:
    """Return the sections for which feature files and videos are read."""
    nothing: dict[str, Any] = {"samples": [], "map": "", "pairs": None}
    if done.empty:
        return nothing
    to_map = done.sample(min(NUM_MAPPED, len(done)), random_state=0).sort_index()
    candidates = samples.find_candidates(done, NUM_CANDIDATES)
    paths = list(dict.fromkeys([*to_map.index, *candidates]))
    features = samples.read_means(paths, max_seconds=READ_SECONDS)
    if not features.paths:
        return nothing
    pairs = samples.find_pairs(features, NUM_PAIRS)
    classifier = _classifier(features, done, recipe)
    read_samples = _samples(done.loc[features.paths], config, recipe, classifier)

    is_mapped = np.isin(features.paths, to_map.index)
    mapped = samples.Features(
        [path for path, take in zip(features.paths, is_mapped, strict=True) if take],
        features.means[is_mapped],
    )
    paired = [path for pair in pairs for path in (pair.first, pair.second)]
    pictured = mapped.paths[:: -(-len(mapped.paths) // NUM_PICTURED) or 1]
    pictures = _middle_pictures(done.loc[list(dict.fromkeys([*paired, *pictured]))], config)
    return {
        "samples": [_describe_sample(sample, done, figures) for sample in read_samples],
        **_describe_map(mapped, done, recipe, classifier, pictures, figures),
        "pairs": [
            {
                "cosine": f"{pair.cosine:.3f}",
                "num_more": pair.num_more,
                "paths": [
                    str(source_of(row)) for _, row in done.loc[[pair.first, pair.second]].iterrows()
                ],
                "pictures": [pictures.get(path, "") for path in (pair.first, pair.second)],
            }
            for pair in pairs
        ],
        "pairs_text": _pairs_text(len(features.paths), len(done), len(candidates), bool(pairs)),
    }


def _classifier(
    features: samples.Features, done: pd.DataFrame, recipe: Recipe
) -> Classifier | None:
    """Return the backbone's classifier, or None if it has none, or none for these features."""
    fits = features.means.shape[1] == recipe.feature_dim
    norms_known = not recipe.l2_normalize or done["mean_norm"].notna().any()
    return find_classifier(recipe) if fits and norms_known else None


def _mean_norm(facts: pd.Series, recipe: Recipe) -> float:
    norm = facts.get("mean_norm")
    return float(norm) if recipe.l2_normalize and pd.notna(norm) else 1.0


def _known(facts: pd.Series, name: str) -> float | None:
    value = facts.get(name)
    return float(value) if pd.notna(value) else None


def _samples(
    done: pd.DataFrame, config: Config, recipe: Recipe, classifier: Classifier | None
) -> list[samples.Sample]:
    """Return some videos in detail, with their pictures."""
    # Those in buckets are not brought for their pictures.
    present = done[done["video_path"].map(os.path.exists)]
    chosen = (present if len(present) else done).sample(frac=1, random_state=1)
    without_pictures = []
    for path, facts in chosen.iloc[:NUM_SAMPLES].iterrows():
        with contextlib.suppress(OSError, ValueError):  # it has been removed meanwhile, say
            without_pictures.append(
                samples.read_sample(
                    source_of(facts),
                    str(path),
                    recipe.view,
                    num_pictures=NUM_STRIP,
                    classifier=classifier,
                    mean_norm=_mean_norm(facts, recipe),
                    duration_seconds=_known(facts, "duration_seconds"),
                    average_fps=_known(facts, "average_fps"),
                )
            )
    pictures = samples.take_pictures(
        {s.feature_path: (s.source, list(s.picture_times)) for s in without_pictures},
        height=STRIP_HEIGHT,
        max_seconds=PICTURE_SECONDS,
        local_files_only=config.local_files_only,
    )
    return [s._replace(pictures=pictures.get(s.feature_path, [])) for s in without_pictures]


def _describe_sample(
    sample: samples.Sample, done: pd.DataFrame, figures: Figures
) -> dict[str, Any]:
    known = done.loc[sample.feature_path].dropna()
    facts: dict[str, Any] = {str(name): value for name, value in known.items()}
    parts = [f"{sample.num_rows:,} × {facts['feature_dim']:.0f}" if "feature_dim" in facts else ""]
    if "duration_seconds" in facts:
        parts.append(describe_seconds(facts["duration_seconds"]))
    if "width" in facts:
        parts.append(f"{facts['width']:.0f}×{facts['height']:.0f}")
    if "average_fps" in facts:
        parts.append(f"{facts['average_fps']:.4g} frames/s")
    parts.append(facts.get("codec", ""))
    strip = []
    for k, seconds in enumerate(sample.picture_times):
        predictions = sample.predictions[k] if sample.predictions else []
        strip.append(
            {
                "url": sample.pictures[k] if sample.pictures else "",
                "time": describe_seconds(float(seconds)),
                "predictions": [f"{p.name} {p.probability:.0%}" for p in predictions],
            }
        )
    several = len(sample.times) > 1
    return {
        "video_path": str(sample.source),
        "facts": ", ".join(part for part in parts if part),
        "strip": strip,
        "has_predictions": bool(sample.predictions),
        "timeline": figures.add(charts.timeline(sample) if several else None),
        "matrix": figures.add(charts.similarity_matrix(sample) if several else None),
    }


def _middle_pictures(done: pd.DataFrame, config: Config) -> dict[str, str]:
    """Return a picture from the middle of each video, as a data URL, by feature path."""
    half = done["duration_seconds"].fillna(0) / 2
    wanted: dict[str, tuple[Source, list[float]]] = {}
    for (path, facts), seconds in zip(done.iterrows(), half, strict=True):
        source = source_of(facts)
        wanted[str(path)] = (source, [source.offset_seconds + float(seconds)])
    pictures = samples.take_pictures(
        wanted,
        height=MAP_HEIGHT,
        max_seconds=PICTURE_SECONDS,
        local_files_only=config.local_files_only,
    )
    return {path: urls[0] for path, urls in pictures.items()}


def _describe_map(
    mapped: samples.Features,
    done: pd.DataFrame,
    recipe: Recipe,
    classifier: Classifier | None,
    pictures: dict[str, str],
    figures: Figures,
) -> dict[str, Any]:
    if len(mapped.paths) < 2:
        return {"map": ""}
    facts = done.loc[mapped.paths]
    points = samples.make_map(mapped.means)
    table = pd.DataFrame(
        {
            "x": points[:, 0],
            "y": points[:, 1],
            "video_path": [str(source_of(row)) for _, row in facts.iterrows()],
            "duration": [
                describe_seconds(s) if pd.notna(s) else "?" for s in facts["duration_seconds"]
            ],
            "picture": [pictures.get(path, "") for path in mapped.paths],
        }
    )
    table["folder"] = [os.path.basename(os.path.dirname(path)) for path in table["video_path"]]
    colour_of, colour_text = "folder", "Colours are the folders of the videos."
    counts = table["folder"].value_counts()
    # One folder, or hundreds, tell nothing by their colours.
    few_folders = len(counts) > 1 and counts[: charts.MAX_COLOURS - 1].sum() >= len(table) / 2
    if not few_folders and classifier is not None:
        norms = [[_mean_norm(row, recipe)] for _, row in facts.iterrows()]
        predictions = classifier.predict(mapped.means * np.array(norms))
        colour_of, table["class"] = "class", [best.name for (best,) in predictions]
        colour_text = "Colours are what the network's classifier makes of each video's mean."
    elif len(counts) == 1:
        colour_text = ""
    sampled = f", a sample of {len(done):,}" if len(mapped.paths) < len(done) else ""
    text = (
        f"{len(mapped.paths):,} videos{sampled}: near each other where the means of their features "
        "are alike (t-SNE; distances between groups mean nothing). Hover for the video. "
        f"{colour_text}"
    )
    return {"map": figures.add(charts.map_of_videos(table, colour_of)), "map_text": text}


def _pairs_text(num_read: int, num_done: int, num_candidates: int, has_pairs: bool) -> str:
    if num_read == num_done:
        compared = f"All {num_done:,} videos"
    else:
        compared = (
            f"{num_read:,} of {num_done:,} videos (a sample, and up to {num_candidates:,} that are "
            "as long as another one)"
        )
    result = "The most alike:" if has_pairs else "No two are that much alike."
    return (
        f"{compared} were compared by the means of their features. From a cosine of "
        f"{samples.SAME_COSINE} on, two are likely to be copies, or cuts of one video. {result}"
    )


def _distributions(done: pd.DataFrame, figures: Figures) -> dict[str, Any]:
    def column(name: str) -> pd.Series:
        return done[name] if name in done else pd.Series(dtype=float)

    sides = pd.concat([column("width"), column("height")], axis=1)
    histograms = [
        (column("duration_seconds"), "Duration", "seconds"),
        (column("average_fps"), "Frame rate", "frames/s"),
        (sides.min(axis=1), "Size of the frames", "short side in pixels"),
        (column("video_size") / 1e6, "Size of the files", "MB"),
        (column("num_features"), "Features", "rows in a file"),
        (column("mean_norm"), "Norm of a feature", "before it is normalised"),
    ]
    divs = [figures.add(charts.histogram(*arguments)) for arguments in histograms]
    sizes: list[tuple[str, str]] = []
    if "width" in done:
        known = done[["width", "height"]].dropna().astype(int).astype(str)
        counts = (known["width"] + "×" + known["height"]).value_counts()
        sizes = [(str(name), f"{count:,}") for name, count in counts[:NUM_SIZES].items()]
    return {"histograms": [div for div in divs if div], "sizes": sizes}


def _times(collected: Collected, figures: Figures) -> dict[str, Any]:
    processes = collected.processes
    content: dict[str, Any] = {
        "throughput": figures.add(charts.throughput(collected.attempts, processes)),
        "stages": figures.add(charts.where_time_went(processes)),
    }
    if content["stages"]:
        sums = processes[["seconds", "compute_seconds", "idle_seconds", "decode_cpu_seconds"]].sum()
        share = sums["compute_seconds"] / max(sums["seconds"], 1e-9)
        limit = "network" if sums["compute_seconds"] >= sums["idle_seconds"] else "decoding"
        content["stages_text"] = (
            f"{processes['seconds'].notna().sum():,} jobs that came to their end: "
            f"{describe_seconds(sums['seconds'])} in all. The network computed for {share:.0%} of "
            f"it, ffmpeg took {describe_seconds(sums['decode_cpu_seconds'])} of CPU time beside. "
            f"The limit was {'the ' if limit == 'network' else ''}{limit}."
        )
        done = collected.attempts[collected.attempts["status"] == "done"]
        rate = done["duration_seconds"].sum() / max(sums["seconds"], 1e-9)
        content["throughput_text"] = (
            f"Over all jobs and all of their time, with starts: {rate:.3g} times as fast as the "
            "videos play, on each device."
        )
    return content


def _settings(collected: Collected, done: pd.DataFrame, recipe: Recipe) -> dict[str, Any]:
    """Return settings and versions of this configuration's rows, and how many have others."""
    lines = [(key, str(value)) for key, value in recipe.numerics.items()]
    processes = collected.processes
    if not processes.empty:
        mine = processes[processes["made_with"].map(lambda made: recipe.digest in made)]
        mine = mine.assign(weights=mine["made_with"].map(lambda made: made[recipe.digest]))
        for key in ("program", "weights", "dtype", "ffmpeg", "torch"):
            values = dict.fromkeys((mine if len(mine) else processes)[key].dropna().astype(str))
            lines.append((key, ", ".join(values)))
        lines.append(("devices", ", ".join(sorted(set(charts.device_labels(processes))))))
    is_known = done["digest"].notna()
    num_other = int((is_known & (done["digest"] != recipe.digest)).sum())
    sentences = []
    if num_other:
        sentences.append(f"{num_other:,} rows were made with other settings.")
    if num_unknown := int((~is_known).sum()):
        sentences.append(
            f"Of {num_unknown:,} rows that are done, no record says how they were made."
        )
    return {"settings": lines, "other_settings": " ".join(sentences)}
