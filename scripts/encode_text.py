"""Make vectors of sentences, to search features with, by a backbone that knows texts.

    python scripts/encode_text.py --backbone open_clip:ViT-B-32/openai --output dogs.npy "a dog"

Takes the weights that features are made with. Each sentence is a row: (sentences, feature_dim).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from videofeatures.command_line import make_parser, run_and_print, run_script
from videofeatures.errors import UserError
from videofeatures.files import path_problem, replace_file
from videofeatures.networks.text import encode_sentences


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the command line.

    Raises:
        SystemExit: with a message, if an option is wrong.
    """
    parser = make_parser(__doc__)
    parser.add_argument("sentences", nargs="*", help="each in quotes")
    parser.add_argument("--file", type=Path, help="of sentences, one a line, after the others")
    parser.add_argument("--backbone", required=True, help="as in the configuration")
    parser.add_argument("--weights", default="auto", help="as in the configuration (%(default)s)")
    parser.add_argument("--output", required=True, help="the .npy file to make")
    parser.add_argument(
        "--no_l2_normalize",
        dest="l2_normalize",
        action="store_false",
        help="do not divide each vector by its length",
    )
    return parser.parse_args(arguments)


def read_sentences(path: Path) -> list[str]:
    """Return the lines of a file, in UTF-8, without those that are empty.

    Raises:
        UserError: it is not UTF-8.
        OSError: it cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except ValueError as error:
        raise UserError(f"{path}: is not text in UTF-8: {error}") from None
    return [line.strip() for line in lines if line.strip()]


def make_vectors(args: argparse.Namespace) -> str:
    """Write the vectors; return a line on them.

    Raises:
        UserError: there are no sentences, or they cannot be encoded.
        OSError: a file cannot be read or written.
    """
    if problem := path_problem(args.output):
        raise UserError(f"--output: {problem}")
    sentences = args.sentences + (read_sentences(args.file) if args.file else [])
    if not sentences:
        raise UserError('there are no sentences: give some, each in "quotes", or a --file')
    vectors = encode_sentences(
        args.backbone, args.weights, sentences, l2_normalize=args.l2_normalize
    )
    with replace_file(args.output) as file:
        np.save(file, vectors)
    return f"{args.output}: {len(vectors)} sentences of {vectors.shape[1]} numbers"


def main(arguments: list[str] | None = None) -> int:
    """Return the exit status: 0 written, 2 the input cannot be used."""
    args = parse_arguments(arguments)
    return run_and_print(lambda: make_vectors(args))


if __name__ == "__main__":
    run_script(main)
