"""A user is shown what is wrong, all of it up to a bound."""

from __future__ import annotations

import errno
import os

import pytest

from videofeatures.errors import MAX_SHOWN, MachineError, UserError, VideoError, reading_error


def test_a_problem_may_be_given_alone():
    error = UserError("a.csv: no such file")
    assert (error.problems, str(error)) == (["a.csv: no such file"], "a.csv: no such file")


def test_all_problems_are_shown_a_line_each():
    problems = [f"problem {k}" for k in range(MAX_SHOWN)]
    error = UserError(iter(problems))
    assert error.problems == problems
    assert str(error).splitlines() == problems


def test_of_very_many_problems_the_rest_is_counted_and_kept():
    problems = [f"problem {k}" for k in range(MAX_SHOWN + 7)]
    error = UserError(problems)
    assert error.problems == problems
    assert str(error).splitlines() == [*problems[:MAX_SHOWN], "… and 7 more problems"]


@pytest.mark.parametrize("lines", [[], ["moov atom not found", "Invalid data"]])
def test_what_ffmpeg_said_stays_beside_the_reason(lines):
    error = VideoError("no video stream", iter(lines))
    assert (str(error), error.reason) == ("no video stream", "no video stream")
    assert error.ffmpeg_lines == lines


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.EACCES, VideoError),
        (errno.ENAMETOOLONG, VideoError),
        (errno.EIO, MachineError),
        (errno.ESTALE, MachineError),
        (errno.EMFILE, MachineError),
        (errno.ENFILE, MachineError),
    ],
)
def test_a_file_that_cannot_be_opened_may_be_the_machine_s_failure(number, kind):
    error = reading_error(OSError(number, os.strerror(number)))
    assert (type(error), error.reason) == (kind, os.strerror(number))
