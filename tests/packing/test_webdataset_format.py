"""Tars as webdataset reads them."""

from __future__ import annotations

import tarfile

import numpy as np
import pytest
import webdataset
from packable import make_sample, some_features
from test_hdf5_format import ALL, as_told

from videofeatures.packing.pack_format import DamagedError
from videofeatures.packing.webdataset_format import WebdatasetFormat

ODD = [
    make_sample(key, ("n", some_features(k), None))
    for k, key in enumerate(
        ["a.b.mp4", ".hidden", "__x__/a.mp4", "a\nb", "100%", "é" * 200, "v.1/a#t=1.5,2"]
    )
]


def write(path, samples) -> None:
    with open(path, "x+b") as file:
        WebdatasetFormat().write(file, iter(samples))


def test_what_is_written_is_read(tmp_path):
    write(tmp_path / "a.tar", ALL + ODD)
    found = list(WebdatasetFormat().read(tmp_path / "a.tar"))
    assert [sample.key for sample in found] == [sample.key for sample in ALL + ODD]
    assert as_told(found) == as_told(ALL + ODD)
    assert not any(sample.fault for sample in found)
    provenance = list(WebdatasetFormat().read_provenance(tmp_path / "a.tar"))
    assert provenance == [(sample.key, sample.provenance) for sample in ALL + ODD]


def test_webdataset_s_own_pipeline_finds_all_of_it(tmp_path):
    write(tmp_path / "a.tar", ALL + ODD)
    url = str(tmp_path / "a.tar")
    found = {s["json"]["key"]: s for s in webdataset.WebDataset(url, shardshuffle=False).decode()}
    assert set(found) == {sample.key for sample in ALL + ODD}
    one = found["videos/ä b.mp4"]
    assert one["__key__"] == "videos/ä b%2Emp4"
    np.testing.assert_array_equal(one["features.npy"], some_features(1), strict=True)
    assert one["times.npy"].shape == (3, 3)
    assert found["e.mp4"]["features.npy"].shape == (0, 8)
    assert found["t.mp4#t=1,2"]["features.npy"].shape == (2, 5, 8)
    assert "times.npy" not in found["t.mp4#t=1,2"]
    np.testing.assert_array_equal(found["two.mp4"]["a.1.features.npy"], some_features(3))


def test_the_same_samples_are_the_same_bytes(tmp_path):
    for name in ("a.tar", "b.tar"):
        write(tmp_path / name, ALL)
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()


def test_a_copy_leaves_samples_out(tmp_path):
    write(tmp_path / "a.tar", ALL)
    with open(tmp_path / "b.tar", "x+b") as file:
        WebdatasetFormat().copy(tmp_path / "a.tar", file, {ALL[0].key})
    assert as_told(WebdatasetFormat().read(tmp_path / "b.tar")) == as_told(ALL[1:])


def test_a_tar_without_its_end_is_told_wherever_it_was_cut(tmp_path):
    write(tmp_path / "a.tar", ALL)
    whole = (tmp_path / "a.tar").read_bytes()
    for size in range(0, len(whole), 512):
        (tmp_path / "b.tar").write_bytes(whole[:size])
        for read in (WebdatasetFormat().read, WebdatasetFormat().read_provenance):
            with pytest.raises(DamagedError):
                list(read(tmp_path / "b.tar"))


@pytest.mark.parametrize("content", ["text", "other"])
def test_what_is_no_pack_is_told(tmp_path, content):
    path = tmp_path / "a.tar"
    if content == "text":
        path.write_text("x" * 5000)
    else:
        (tmp_path / "x.json").write_text("{}")
        with tarfile.open(path, "w") as tar:
            tar.add(tmp_path / "x.json", "x.json")
    with pytest.raises(DamagedError):
        list(WebdatasetFormat().read(path))
    with pytest.raises(DamagedError):
        list(WebdatasetFormat().read_provenance(path))
