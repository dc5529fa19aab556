"""The configuration as scripts take it: a file, and KEY=VALUE as Snakemake's `--config` has it."""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import yaml

from videofeatures.errors import UserError, describe_os_error
from videofeatures.settings import parse_values, text_keys


def run_script(main: Callable[[], int]) -> NoReturn:
    """Run a script to its end, or to a second Ctrl-C, or one that comes before it takes any.

    Args:
        main: returns the exit status.
    """
    use_utf8()
    try:
        status = main()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = 128 + signal.SIGINT
    except OSError as error:  # what it prints cannot be written, say
        with contextlib.suppress(OSError):
            print(describe_os_error(error), file=sys.stderr)
        status = 2
    with contextlib.suppress(OSError):  # where they went to is gone, or full
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
    # To take torch apart would be a second of work (measured) and free nothing that the end
    # of the process does not; and a thread that waits for a disk must not keep the process.
    os._exit(status)


def use_utf8() -> None:
    """Take and write names in UTF-8, as the CSV has them, whatever the locale: where that is
    another one, this process starts again in Python's UTF-8 mode, as do those that it starts.

    A name that is not UTF-8 can be printed, as its bytes.
    """
    if sys.getfilesystemencoding() != "utf-8":
        environment = os.environ | {"PYTHONUTF8": "1"}
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def make_parser(doc: str | None) -> argparse.ArgumentParser:
    """Return a parser that describes a script by the first line of its docstring, which Python
    leaves out if it optimises."""
    return argparse.ArgumentParser(description=(doc or "").partition("\n")[0])


def read_config(
    parser: argparse.ArgumentParser, arguments: list[str] | None = None
) -> tuple[argparse.Namespace, dict[str, Any]]:
    """Return a command line's options, and its configuration, whose values are not yet checked.

    Args:
        parser: of the program, with the options that it has beside these.
        arguments: those of the process by default.

    Raises:
        SystemExit: with a message, if the options are wrong or the file cannot be read.
    """
    parser.add_argument("values", nargs="*", metavar="KEY=VALUE", help="of the configuration")
    parser.add_argument("--configfile", type=Path, default=Path("config/config.yaml"))
    args = parser.parse_args(arguments)
    if wrong := [value for value in args.values if "=" not in value]:
        parser.error(f"{wrong[0]!r} is not KEY=VALUE")
    try:
        config = read_config_file(args.configfile)
    except UserError as error:
        parser.exit(2, f"{error}\n")
    return args, parse_values(config | dict(value.split("=", 1) for value in args.values))


def read_config_file(path: str | os.PathLike) -> dict[str, Any]:
    """Return what a file sets; for keys that are text, as it stands there: `001` is no number.

    Null is null, as it stands for nothing in a file.

    Raises:
        UserError: it cannot be read, or is no configuration.
    """
    try:
        content = Path(path).read_text(encoding="utf-8-sig")
        config = yaml.safe_load(content) or {}
        as_written = yaml.load(content, yaml.BaseLoader) or {}
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except (yaml.YAMLError, ValueError) as error:  # a date that is none, say
        raise UserError(f"{path}: is not YAML in UTF-8: {error}") from None
    if not isinstance(config, dict):
        raise UserError(f"{path}: has no keys and values")
    texts = {key: text for key, text in as_written.items() if isinstance(text, str)}
    return config | {
        key: texts[key] for key in text_keys() & texts.keys() if config.get(key) is not None
    }


def run_and_print(make: Callable[[], str]) -> int:
    """Print what `make` returns, or the problem that it raises.

    Args:
        make: returns a line on what it has made; raises OSError or UserError.

    Returns:
        Exit status: 0 made, 2 the input cannot be used.
    """
    try:
        print(make(), flush=True)
    except OSError as error:
        print(describe_os_error(error), file=sys.stderr)
        return 2
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0
