"""Pack the features of all rows that are done into one file, or into a few, for training.

    python scripts/pack.py videos=my.csv format=hdf5 output=features.h5
    python scripts/pack.py videos=my.csv format=webdataset output=shards/features-%06d.tar

Again, it adds what is new. Beside the configuration: `key`, the column of the CSV that names each
sample (`video_path`); `shard_mb`, of each of several files (500); `unrecorded=true`, for files of
which nothing tells what they were made with.
"""

from __future__ import annotations

import sys

from videofeatures.command_line import make_parser, read_config, run_and_print, run_script
from videofeatures.errors import UserError


def main() -> int:
    """Return the exit status: 0 all rows are packed, 1 some are not, 2 the input cannot be used."""
    parser = make_parser(__doc__)
    parser.epilog = (
        "Of its own: format=hdf5 or webdataset, output=PATH, key=COLUMN, shard_mb=MEGABYTES, "
        "unrecorded=true"
    )
    _, config = read_config(parser)
    is_whole = False

    def make() -> str:
        from videofeatures.packing.pack import Options, Packer  # after what can be said at once
        from videofeatures.planning.plan import make_plan
        from videofeatures.report.manifest import make_manifest

        nonlocal is_whole
        options = Options.take_from(config)
        plan = make_plan(config)
        outcome = Packer(plan, options, lambda line: print(line, flush=True)).pack()
        if outcome.problems:
            print(UserError(outcome.problems), file=sys.stderr)
        is_whole = outcome.num_packed == outcome.num_rows
        return f"{options.output}: {outcome}\n{make_manifest(plan)}"

    status = run_and_print(make)
    return status or (0 if is_whole else 1)


if __name__ == "__main__":
    run_script(main)
