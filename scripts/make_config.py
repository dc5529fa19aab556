"""Write what stands in `config/` of the keys: `config.yaml`, `schema.yaml`, tables of `README.md`.

All of it comes from `videofeatures/settings.py`. `make docs` calls this; values of your own in
`config.yaml` become the defaults again.
"""

from __future__ import annotations

import ast
import json
from itertools import pairwise
from pathlib import Path

import yaml

from videofeatures import settings
from videofeatures.settings import KEYS, Config, Group, json_schema

FOLDER = Path(__file__).parents[1] / "config"

HEADER = """\
# Every key is documented in config/README.md. Any of them can also be given on the command
# line: snakemake --config backbone=resnext101 results=results/3d
"""

WIDTH = 90


class _Dumper(yaml.SafeDumper):
    """Writes lists on one line."""


_Dumper.add_representer(
    list, lambda dumper, data: dumper.represent_sequence("tag:yaml.org,2002:seq", data, True)
)


def names_in(group: Group) -> list[str]:
    """Return the keys of a group, in their order."""
    return [name for name, key in KEYS.items() if key.group is group]


def default_of(name: str) -> str:
    """Return a key's default as YAML has it."""
    default = Config.model_fields[name].default
    return default if isinstance(default, str) else json.dumps(default)


def make_config() -> str:
    """Return the text of `config.yaml`."""
    entries = {name: f"{name}: {default_of(name)}" for name in KEYS}
    column = max(map(len, entries.values())) + 1
    text = HEADER
    for group in Group:
        text += "\n" + f"# ---- {group.value} ".ljust(WIDTH, "-") + "\n"
        for name in names_in(group):
            text += f"{entries[name]:{column}}# {KEYS[name]}\n"
    return text


def make_schema() -> str:
    """Return the text of `schema.yaml`."""
    text = yaml.dump(json_schema(), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000)
    return "# Made by `make docs` from scripts/videofeatures/settings.py.\n" + text


def make_page(page: str) -> str:
    """Return the text of `README.md`, each of its tables of keys as it has to be.

    Raises:
        ValueError: it has no place for a table.
        KeyError: a key without a text below its field.
    """
    descriptions = read_descriptions()
    for group in Group:
        begin, end = f"<!-- begin of keys: {group.name} -->\n", "<!-- end of keys -->\n"
        table = "\n| key | default | what it does |\n|---|---|---|\n"
        for name in names_in(group):
            table += f"| `{name}` | `{default_of(name)}` | {descriptions[name]} |\n"
        before, begin_mark, rest = page.partition(begin)
        _, end_mark, after = rest.partition(end)
        if not (begin_mark and end_mark):
            raise ValueError(f"no place for a table: {begin}{end}")
        page = f"{before}{begin}{table}\n{end}{after}"
    return page


def read_descriptions() -> dict[str, str]:
    """Return the text below each field of the configuration's classes.

    Not by pydantic, which would read them in every process (a hundredth of a second, measured).
    """
    descriptions = {}
    tree = ast.parse(Path(settings.__file__).read_text(encoding="utf-8"))
    for node in tree.body:
        for pair in pairwise(node.body if isinstance(node, ast.ClassDef) else []):
            match pair:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(ast.Constant(str(text))):
                    descriptions[name] = " ".join(text.split())
    return descriptions


def make_all() -> dict[Path, str]:
    """Return every file that is made here, with its text.

    Raises:
        OSError, ValueError: `README.md` cannot be read, or has no place for a table.
        KeyError: a key without a text below its field.
    """
    page = FOLDER / "README.md"
    return {
        FOLDER / "config.yaml": make_config(),
        FOLDER / "schema.yaml": make_schema(),
        page: make_page(page.read_text(encoding="utf-8")),
    }


if __name__ == "__main__":
    for path, text in make_all().items():
        path.write_text(text, encoding="utf-8")
