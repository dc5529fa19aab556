"""The moments of a collection that show best what a sentence says.

    python scripts/encode_text.py --backbone open_clip:ViT-B-32/openai --output query.npy "a dog"
    python examples/find_sentence.py videos.csv query.npy

Takes features as the workflow makes them with that backbone, normalised, so that a dot product is a
cosine: with its default `pooling`, `projected`, which is where its sentences are.
"""

import csv
import sys
from pathlib import Path

import numpy as np


def read(path):
    """Return features, (rows, dim), float32, and the middle of what each row saw, in seconds (of
    `.npy` files as if they had one row a second)."""
    file = np.load(path)
    if isinstance(file, np.ndarray):
        return file.astype(np.float32), np.arange(len(file)) + 0.5
    return file["features"].astype(np.float32), file["timestamps"]


def main(csv_path, query_path, num_moments=5):
    """Print the best moments for each sentence, one of each video."""
    queries = np.load(query_path)  # (sentences, dim)
    moments = [[] for _ in queries]
    with open(csv_path, newline="", encoding="utf-8-sig") as file:
        for row in csv.DictReader(file):
            path = Path(row["feature_path"])
            if not path.exists():
                continue
            features, timestamps = read(path)
            cosines = features @ queries.T  # (rows, sentences)
            for best, scores, found in zip(cosines.argmax(axis=0), cosines.T, moments, strict=True):
                found.append((scores[best], timestamps[best], row["video_path"]))
    for number, found in enumerate(moments):
        print(f"sentence {number + 1}")
        for cosine, seconds, video_path in sorted(found, reverse=True)[:num_moments]:
            print(f"  {cosine:.3f}  {video_path} at {seconds:.1f} s")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("Usage: python examples/find_sentence.py CSV SENTENCES")
    main(sys.argv[1], sys.argv[2])
