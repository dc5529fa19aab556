"""Features of many videos as batches of PyTorch: from single files, HDF5 or WebDataset.

    python examples/packed_features.py my.csv
    python examples/packed_features.py features.h5
    python examples/packed_features.py shards

Prints one batch of whole videos and one of eight rows of each. Take what you need of it.
"""

import csv
import json
import sys
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset


class Files(Dataset):
    """The feature files of a CSV that are there."""

    def __init__(self, csv_path):
        with open(csv_path, newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
        self.rows = [row for row in rows if Path(row["feature_path"]).exists()]

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        row = self.rows[index]
        loaded = np.load(row["feature_path"])
        features = loaded if isinstance(loaded, np.ndarray) else loaded["features"]
        return row["video_path"], to_tensor(features)


class Hdf5(Dataset):
    """The samples of a file that `pack.py` wrote.

    Args:
        load: takes the group of a sample, and returns its features.
    """

    def __init__(self, path, load=lambda sample: sample["features"][()]):
        import h5py

        self.path, self.load, self.file, self.keys = path, load, None, []
        with h5py.File(path) as file:
            file.visititems(self._visit)

    def _visit(self, key, item):
        if "provenance" in item.attrs:
            self.keys.append(key)

    def __len__(self):
        return len(self.keys)

    def __getitem__(self, index):
        if self.file is None:  # each worker opens it for itself
            import h5py

            self.file = h5py.File(self.path)
        sample = self.file[self.keys[index]]
        video_path = json.loads(sample.attrs["provenance"])["video_path"]
        return video_path, to_tensor(self.load(sample))


def open_shards(folder, load=lambda sample: sample["features.npy"]):
    """Return the samples of shards that `pack.py` wrote, in another order each time.

    Args:
        load: takes a sample, and returns its features.
    """
    import webdataset

    shards = sorted(map(str, Path(folder).glob("*.tar")))
    # Workers share the shards: one that gets none is no error.
    samples = webdataset.WebDataset(shards, shardshuffle=len(shards), empty_check=False)
    return (
        samples.shuffle(1000)
        .decode()
        .map(lambda sample: (sample["json"]["video_path"], to_tensor(load(sample))))
    )


def to_tensor(features):
    """Return features as float32: float16 is for storing them."""
    return torch.from_numpy(features.astype(np.float32))


def pad(samples):
    """Return a batch of whole videos, which are of any length.

    Returns:
        Their paths; features, (videos, rows of the longest, dim), zeros behind the end of each;
        mask, (videos, rows of the longest), true where there is a feature.
    """
    paths, features = zip(*samples, strict=True)
    lengths = torch.tensor([len(each) for each in features])
    padded = torch.nn.utils.rnn.pad_sequence(features, batch_first=True)
    mask = torch.arange(padded.shape[1]) < lengths[:, None]
    return paths, padded, mask


def spread_evenly(features, num_rows):
    """Return so many rows of a video: those in the middle of as many equal parts of it.

    Of a shorter one, some are there several times; of one without any, all are zeros.
    """
    if not len(features):
        return features.new_zeros(num_rows, *features.shape[1:])
    middles = (torch.arange(num_rows) + 0.5) * len(features) / num_rows
    return features[middles.long()]


def sample_evenly(samples, num_rows=8):
    """Return a batch in which all videos are of the same length.

    Returns:
        Their paths; features, (videos, num_rows, dim).
    """
    paths, features = zip(*samples, strict=True)
    return paths, torch.stack([spread_evenly(each, num_rows) for each in features])


def join_by_time(features_2d, times_2d, features_3d, times_3d):
    """Return the 2d features of a video, each with the 3d features of the same moment behind it.

    Args:
        times_2d, times_3d: (rows, 3), of the same video: start, middle and end of each row.

    Returns:
        (rows of 2d, dim of 2d + dim of 3d).
    """
    middles_2d, middles_3d = times_2d[:, 1], times_3d[:, 1]
    nearest = np.searchsorted((middles_3d[:-1] + middles_3d[1:]) / 2, middles_2d)
    return np.concatenate([features_2d, features_3d[nearest]], axis=1)


def join_hdf5(sample, name_2d="resnet152", name_3d="resnext101"):
    """Return the joined features of a sample of two backbones in HDF5: `Hdf5(path, join_hdf5)`."""
    parts = (
        sample[f"{name}/{what}"] for name in (name_2d, name_3d) for what in ("features", "times")
    )
    return join_by_time(*(part[()] for part in parts))


def join_shards(sample, name_2d="resnet152", name_3d="resnext101"):
    """Return those of a sample in shards: `open_shards(folder, join_shards)`."""
    names = (name.lower() for name in (name_2d, name_3d))
    return join_by_time(
        *(sample[f"{name}.{what}.npy"] for name in names for what in ("features", "times"))
    )


def main(path):
    """Print what one batch of each kind looks like."""
    if path.endswith(".csv"):
        dataset = Files(path)
    else:
        dataset = Hdf5(path) if path.endswith(".h5") else open_shards(path)
    # Shards have an order of their own.
    is_ordered = isinstance(dataset, torch.utils.data.IterableDataset)
    options = {"batch_size": 16, "num_workers": 2, "shuffle": not is_ordered}
    paths, features, mask = next(iter(DataLoader(dataset, collate_fn=pad, **options)))
    print(f"{len(paths)} videos, {mask.sum()} rows, padded to {tuple(features.shape)}")
    paths, features = next(iter(DataLoader(dataset, collate_fn=sample_evenly, **options)))
    print(f"{len(paths)} videos, eight rows of each: {tuple(features.shape)}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("Usage: python examples/packed_features.py CSV, FILE.h5 or FOLDER_OF_SHARDS")
    main(sys.argv[1])
