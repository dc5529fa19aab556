"""Make the CSV of a collection: a row for each video, its feature file at the mirrored place.

    python scripts/make_csv.py videos --features features --csv my.csv

New videos become new rows; a row that is there is never lost.
"""

from __future__ import annotations

import argparse
import os
import sys

from videofeatures.command_line import make_parser, run_script
from videofeatures.errors import UserError
from videofeatures.files import path_problem
from videofeatures.planning.collection import VIDEO_SUFFIXES, find_videos, make_rows, write_rows
from videofeatures.planning.rows import FEATURE_SUFFIXES, Row, read_rows
from videofeatures.urls import PACKAGES


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the command line.

    Raises:
        SystemExit: with a message, if an option is wrong.
    """
    parser = make_parser(__doc__)
    parser.add_argument(
        "videos",
        nargs="+",
        help="folders (searched to the bottom), quoted patterns such as 'videos/**/*.mp4', lists "
        "(.txt, a path a line), videos, s3://bucket/folder, or - for a list on the standard "
        "input",
    )
    parser.add_argument(
        "--features", required=True, help="folder or bucket that the feature files go to"
    )
    parser.add_argument("--csv", default="config/videos.csv", help="the CSV to make (%(default)s)")
    parser.add_argument("--suffix", choices=FEATURE_SUFFIXES, default=".npy", help="(%(default)s)")
    parser.add_argument(
        "--extensions",
        metavar="LIST",
        help=f"of the videos in folders, with commas ({','.join(s[1:] for s in VIDEO_SUFFIXES)})",
    )
    parser.add_argument(
        "--keep_extension", action="store_true", help="a.mp4 becomes a.mp4.npy, not a.npy"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="drop rows of the CSV that would be lost"
    )
    return parser.parse_args(arguments)


def check_nothing_is_lost(csv_path: str, rows: list[Row]) -> int:
    """Return how many rows a CSV has already.

    Raises:
        UserError: some of them would be lost, or it is not a CSV of videos.
    """
    if not os.path.exists(csv_path):
        return 0
    before = read_rows(csv_path, allowed_schemes=PACKAGES)  # nothing of them is read
    # Not by themselves: a part without a start is neither before nor behind one that has it.
    if lost := sorted(set(before) - set(rows), key=str):
        raise UserError(
            f"{csv_path}: rows would be lost, {len(lost)} in all, such as {lost[0].source} → "
            f"{lost[0].feature_paths[0]}. `--overwrite` drops them; `--csv` names another file"
        )
    return len(before)


def main(arguments: list[str] | None = None) -> int:
    """Return the exit status: 0 written, 2 the input cannot be used."""
    args = parse_arguments(arguments)
    suffixes: tuple[str, ...] = VIDEO_SUFFIXES
    if args.extensions:
        suffixes = tuple(
            f".{name.strip().lstrip('.').lower()}" for name in args.extensions.split(",")
        )
    try:
        if problem := path_problem(args.csv):
            raise UserError(f"--csv: {problem}")
        root_of = find_videos(args.videos, suffixes=suffixes, stdin=sys.stdin.buffer)
        rows = make_rows(
            root_of, args.features, suffix=args.suffix, keep_extension=args.keep_extension
        )
        num_before = 0 if args.overwrite else check_nothing_is_lost(args.csv, rows)
        write_rows(args.csv, rows)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{args.csv}: cannot be written: {error.strerror}", file=sys.stderr)
        return 2
    new = f", {len(rows) - num_before} of them new" if num_before else ""
    print(f"{args.csv}: {len(rows)} rows{new}")
    return 0


if __name__ == "__main__":
    run_script(main)
