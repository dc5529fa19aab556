"""Write <results>/report.html: what was done, how, and what came out, on one page.

A run does it at its end; this does it at any time, also beside a run:

    python scripts/make_report.py videos=my.csv backbone=resnext101
"""

from __future__ import annotations

from videofeatures.command_line import make_parser, read_config, run_and_print, run_script


def main() -> int:
    """Return the exit status: 0 written, 2 the input cannot be used."""
    parser = make_parser(__doc__)
    parser.add_argument(
        "--keep_manifest",
        action="store_true",
        help="start from <results>/manifest.csv as it is, instead of making it anew",
    )
    args, config = read_config(parser)

    def make() -> str:
        from videofeatures.report.page import write_report  # after what can be said at once

        place = write_report(config, keep_manifest=args.keep_manifest)
        return f"{place}: open it in a browser"

    return run_and_print(make)


if __name__ == "__main__":
    run_script(main)
