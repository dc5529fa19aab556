"""The moments of a collection that look most like one moment of another video.

    python examples/find_moment.py demo/videos.csv demo/features/bikes.npz 4.5

Takes features as the workflow makes them, normalised, so that a dot product is a cosine. Those of
the CSV and of the other video must come from the same backbone.
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


def main(csv_path, query_path, seconds):
    """Print the five most similar rows, one for each video."""
    features, timestamps = read(query_path)
    query = features[np.abs(timestamps - seconds).argmin()]
    moments = []
    with open(csv_path, newline="", encoding="utf-8-sig") as file:
        for row in csv.DictReader(file):
            path = Path(row["feature_path"])
            if path.exists() and not path.samefile(query_path):
                features, timestamps = read(path)
                if path.suffix == ".npy":  # of a part, they count from its start
                    timestamps += float(row.get("start") or 0)
                cosines = features @ query
                best = cosines.argmax()
                moments.append((cosines[best], timestamps[best], row["video_path"]))
    for cosine, seconds, video_path in sorted(moments, reverse=True)[:5]:
        print(f"{cosine:.3f}  {video_path} at {seconds:.1f} s")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("Usage: python examples/find_moment.py CSV FEATURES_OF_ANOTHER_VIDEO SECONDS")
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]))
