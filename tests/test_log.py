"""Messages go to stderr, those that are asked for, and all of them to a file."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

from conftest import ROOT
from videofeatures import log
from videofeatures.extraction import writer
from videofeatures.extraction.writer import Writer

START = f"""
import logging, sys
sys.path.insert(0, {str(ROOT / "scripts")!r})
from videofeatures import log
"""

MESSAGES = f"""
logging.getLogger("extract").info("of the script")
logging.getLogger({log.ROWS!r}).info("done a row, é")
logging.getLogger({log.ROWS!r}).error("FAILED a row")
logging.getLogger("{log.ROWS}s").warning("of a name that begins the same")
logging.getLogger("{log.ALL}.extraction.pipeline").info("how fast")
logging.getLogger("{log.ALL}.extraction.pipeline").debug("for nobody")
"""

LINES = [
    "of the script",
    "done a row, é",
    "FAILED a row",
    "of a name that begins the same",
    "how fast",
]


def run(folder: Path, call: str) -> list[str]:
    """The lines on stderr of a process that logs."""
    command = [sys.executable, "-c", START + call + MESSAGES]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    assert result.stdout == ""
    return result.stderr.splitlines()


def test_without_levels_stderr_and_the_file_have_all_lines(tmp_path):
    assert run(tmp_path, "log.start_logging('logs/new/a.log')") == LINES
    assert (tmp_path / "logs" / "new" / "a.log").read_text(encoding="utf-8").splitlines() == LINES


def test_without_a_file_there_is_none(tmp_path):
    assert run(tmp_path, "log.start_logging(None)") == LINES
    assert list(tmp_path.iterdir()) == []


def test_the_file_is_that_of_this_process_alone(tmp_path):
    (tmp_path / "a.log").write_text("of another run\n")
    run(tmp_path, "log.start_logging('a.log')")
    assert (tmp_path / "a.log").read_text(encoding="utf-8").splitlines() == LINES


def test_a_level_is_that_of_a_logger_and_of_those_below_and_for_stderr_only(tmp_path):
    levels = {log.ROWS: logging.ERROR}
    told = run(tmp_path, f"log.start_logging('a.log', levels_on_stderr={levels})")
    assert told == [line for line in LINES if line != "done a row, é"]
    levels = {log.ALL: logging.WARNING, log.ROWS: logging.ERROR}
    told = run(tmp_path, f"log.start_logging('a.log', levels_on_stderr={levels})")
    assert told == ["of the script", "FAILED a row", "of a name that begins the same"]
    assert (tmp_path / "a.log").read_text(encoding="utf-8").splitlines() == LINES


def test_before_a_line_on_stderr_there_is_time_to_clear_what_is_there(tmp_path):
    levels = {log.ALL: logging.ERROR}
    call = f"log.start_logging('a.log', levels_on_stderr={levels}, before=lambda: print('-'"
    told = run(tmp_path, f"{call}, file=sys.stderr))")
    # Not before a line that only the file gets.
    assert told == ["-", "of the script", "-", "FAILED a row"]
    assert (tmp_path / "a.log").read_text(encoding="utf-8").splitlines() == LINES


def test_the_loggers_are_those_that_log():
    assert writer.logger.name == log.ROWS
    assert Writer.__module__.startswith(f"{log.ALL}.")


def test_a_full_disk_is_told_once(tmp_path):
    told = run(tmp_path, "log.start_logging('/dev/full')")
    problem = (
        "/dev/full: the log cannot be written: No space left on device. What follows is not in it"
    )
    assert sorted(told) == sorted([problem, *LINES])


def test_a_name_that_is_not_utf_8_can_be_logged(tmp_path):
    call = "log.start_logging('a.log'); logging.getLogger('x').info('caf\\udce9')"
    assert run(tmp_path, call) == [r"caf\udce9", *LINES]
    text = (tmp_path / "a.log").read_text(encoding="utf-8")
    assert text.splitlines() == [r"caf\udce9", *LINES]
