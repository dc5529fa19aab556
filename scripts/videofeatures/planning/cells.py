"""The cells of a CSV, line by line, and what can be wrong with its form."""

from __future__ import annotations

import csv
import os
import stat
from collections.abc import Iterator, Sequence

from videofeatures.errors import UserError

OTHER_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}
"""What other programs put between cells, in place of commas."""

HOW_TO_QUOTE = (
    "A path that holds a comma, or begins with quotes, stands in quotes as a whole, and those "
    'that are part of it are doubled: "a, ""b"".mp4"'
)


def read_cells(
    csv_path: str | os.PathLike,
    columns: Sequence[str | Sequence[str]],
    *,
    optional: Sequence[str] = (),
    suffixes: Sequence[str],
) -> Iterator[tuple[int, list[str]]]:
    """Yield each row after the first, by its first line, and its cells in these columns.

    Cells are taken literally. A row may lack its last cells, which are "" then, and a blank line
    is a row without any. A file that is empty has no rows.

    Args:
        columns: for each cell the name of its column, or several, of which the first one counts
            that is there.
        optional: further columns, whose cells come last, and are "" where there is no such column.
        suffixes: one of which stands in each row; in a cell that spans lines, it is that of a row
            that was swallowed.

    Raises:
        UserError: there is no such file, or it is not a CSV with these columns.
    """
    if problem := _problem_of_file(csv_path):
        raise UserError(f"{csv_path}: {problem}")
    last_line = 0  # of the row before
    try:
        # Lines end with a line feed: what else ends one elsewhere may be part of a name.
        with open(csv_path, encoding="utf-8-sig", newline="\n") as file:
            reader = csv.reader(file, strict=True)
            header = next(reader, [])
            if not any(map(str.strip, header)):
                _check_that_nothing_follows(reader, columns)
                return
            places = _find_columns(header, columns, optional)
            num_columns = len(header)
            num_needed = max(places) + 1
            last_line = reader.line_num
            for cells in reader:
                line, last_line = last_line + 1, reader.line_num
                if line != last_line:
                    _check_that_nothing_is_swallowed(cells, suffixes, line, last_line)
                if len(cells) > num_columns and any(cells[num_columns:]):
                    raise _FormError(
                        f"has {len(cells)} cells, and the first line names {num_columns} columns. "
                        "Put quotes around paths that hold a comma",
                        line,
                    )
                if len(cells) < num_needed:
                    cells += [""] * num_needed
                cells.append("")  # of columns that there are not: their place is the last one
                yield line, [cells[place] for place in places]
    except _FormError as error:
        where = f", line {error.line}" if error.line else ""
        raise UserError(f"{csv_path}{where}: {error}") from None
    except csv.Error as error:
        raise UserError(
            f"{csv_path}, line {_problem_of_syntax(error, last_line + 1, reader.line_num)}"
        ) from None
    except UnicodeDecodeError:
        raise UserError(f"{csv_path}{_problem_of_encoding(csv_path)}. Save it as UTF-8") from None
    except OSError as error:
        raise UserError(f"{csv_path}: cannot be read: {error.strerror}") from None


class _FormError(Exception):
    """A CSV is not as it should be, in a line, or 0 for the whole of it."""

    def __init__(self, problem: str, line: int = 0):
        super().__init__(problem)
        self.line = line


def _problem_of_file(path: str | os.PathLike) -> str | None:
    """Return why this is no file that can be read as often as need be, or None."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return (
            "no such file. Write a CSV with the columns video_path,feature_path, and name it "
            "with the key `videos`"
        )
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if stat.S_ISDIR(mode):
        return "is a folder, not a CSV. scripts/make_csv.py makes the CSV of a folder of videos"
    if not stat.S_ISREG(mode):
        return "is a pipe or a device, and must be a file: it is read more than once"
    return None


def _check_that_nothing_follows(
    reader: Iterator[list[str]], columns: Sequence[str | Sequence[str]]
) -> None:
    """Raise an error if there is more than blank lines."""
    for number, cells in enumerate(reader, start=1):
        if any(map(str.strip, cells)):
            lines = "the first line is" if number == 1 else f"the first {number} lines are"
            raise _FormError(
                f"{lines} blank, and the columns {','.join(_usual(columns))} must be named in the "
                "first one. Remove what is above their names"
            )


def _usual(columns: Sequence[str | Sequence[str]]) -> list[str]:
    """Return the names of columns, of each the last one that it may have."""
    return list(
        dict.fromkeys(column if isinstance(column, str) else column[-1] for column in columns)
    )


def _find_columns(
    header: Sequence[str], choices: Sequence[str | Sequence[str]], optional: Sequence[str]
) -> list[int]:
    """Return the places of the columns in the first line; -1 for one that is not there."""
    lists = [[choice] if isinstance(choice, str) else choice for choice in choices]
    columns = [next((name for name in names if name in header), names[-1]) for names in lists]
    if missing := [column for column in dict.fromkeys(columns) if column not in header]:
        names = " and ".join(missing)
        problem = f"the first line must name the column{'s' * (len(missing) > 1)} {names} (found: "
        if "\0" in "".join(header):
            raise _FormError("holds NUL characters, as UTF-16 does. Save it as UTF-8")
        if any(cell != cell.strip() for cell in header):
            problem += (
                f"{', '.join(map(repr, header))}). Write the names without spaces around them"
            )
        else:
            problem += f"{', '.join(header)})"
        for separator, name in OTHER_SEPARATORS.items():
            if len(header) == 1 and separator in header[0]:
                problem += f". Its cells are separated by {name}: save it with commas"
        raise _FormError(problem)
    for column in (*columns, *optional):
        if header.count(column) > 1:
            raise _FormError(
                f"the first line names the column {column} {header.count(column)} times. Give the "
                "others another name"
            )
    places = [header.index(column) for column in columns]
    return places + [header.index(column) if column in header else -1 for column in optional]


def _check_that_nothing_is_swallowed(
    cells: Sequence[str], suffixes: Sequence[str], line: int, last_line: int
) -> None:
    """Raise an error if a cell that spans lines holds what ends another cell."""
    for cell in cells:
        if "\n" in cell and any(suffix in cell for suffix in suffixes):
            raise _FormError(
                f"quotes open here, close in line {last_line}, and hold rows. {HOW_TO_QUOTE}", line
            )


def _problem_of_syntax(error: csv.Error, line: int, last_line: int) -> str:
    """Return the line, and what is wrong with its row, which reaches to `last_line` so far."""
    detail = str(error)
    if "new-line" in detail:
        return (
            f"{last_line}: holds a carriage return. Lines end with a line feed, alone or after a "
            "carriage return; a path that holds one stands in quotes"
        )
    if "expected after" in detail:
        where = "" if line == last_line else f" in line {last_line}"
        return f"{line}: quotes open here, and close{where} before the cell ends. {HOW_TO_QUOTE}"
    if "unexpected end" in detail or "limit" in detail:
        return f"{line}: quotes open here that do not close. {HOW_TO_QUOTE}"
    return f"{line}: {detail}"


def _problem_of_encoding(path: str | os.PathLike) -> str:
    """Return which line is not UTF-8."""
    with open(path, "rb") as file:
        for line, content in enumerate(file, start=1):
            if line == 1 and content.startswith((b"\xff\xfe", b"\xfe\xff")):
                return ": is UTF-16"
            try:
                content.decode()
            except UnicodeDecodeError as error:
                return f", line {line}: is not UTF-8 (byte 0x{content[error.start]:02x})"
    return ": is not UTF-8"
