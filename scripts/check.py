"""Say in seconds whether this machine is ready: each line ok, or what to do.

    python scripts/check.py videos=my.csv backbone=resnext101

Leaves `<results>/check.jpg`: what the network saw of the first video.
"""

from __future__ import annotations

from videofeatures.command_line import make_parser, read_config, run_script


def main() -> int:
    """Return the exit status: 0 ready, 1 something is to be done."""
    _, config = read_config(make_parser(__doc__))
    from videofeatures.workflow.checks import check_all  # after what can be said at once

    num_problems = 0
    for finding in check_all(config):
        print(finding, flush=True)
        num_problems += not finding.is_ok
    return 1 if num_problems else 0


if __name__ == "__main__":
    run_script(main)
