"""How many requests it takes to look at objects, and that each is found."""

from __future__ import annotations

import pytest

pytest.importorskip("s3fs")
pytest.importorskip("moto")

from videofeatures import listing, remote
from videofeatures.errors import UserError
from videofeatures.listing import list_objects, look_at, look_at_all
from videofeatures.remote import open_store


@pytest.fixture
def pages_of_ten(s3_server, monkeypatch):
    """A server that names ten objects in an answer."""
    monkeypatch.setattr(remote, "WAIT_SECONDS", 0.01)
    monkeypatch.setattr(listing, "MIN_EACH", 5)
    monkeypatch.setattr(listing, "USUAL_PAGE", 10)
    monkeypatch.setattr(open_store("s3"), "_page_size", 10)
    return s3_server


def fill(server, *keys: str) -> list[str]:
    urls = [server.put(key, b"x" * len(key)) for key in keys]
    server.forget()
    return urls


def sizes(urls: list[str]) -> dict[str, int]:
    return {url: state.st_size for url, state in list_objects(urls).items()}


def test_full_folders_are_listed_one_by_one(pages_of_ten):
    keys = [f"p/{k}/{j}.npy" for k in range(3) for j in range(9)]
    urls = fill(pages_of_ten, *keys, "p/0/deep/x.npy", "other/x.npy")
    asked = [*urls[:-2], "s3://bucket/p/0/none.npy"]
    assert sizes(asked) == {f"s3://bucket/{key}": len(key) for key in keys}
    # Two to find out that answers are small.
    assert pages_of_ten.counts == {"GET": 2 + 3}


def test_a_storage_that_names_much_at_a_time_is_listed_as_a_whole(pages_of_ten, monkeypatch):
    monkeypatch.setattr(listing, "USUAL_PAGE", 8)
    urls = fill(pages_of_ten, *(f"p/{k}/{j}.npy" for k in range(3) for j in range(9)))
    assert len(sizes(urls)) == 27
    assert pages_of_ten.counts == {"GET": 3}


def test_folders_with_little_in_each_are_listed_together(pages_of_ten):
    urls = fill(pages_of_ten, *(f"p/{k}/video.mp4" for k in range(19)))
    assert len(sizes(urls)) == 19
    assert pages_of_ten.counts == {"GET": 2}


def test_a_listing_of_far_more_than_is_asked_for_ends(pages_of_ten):
    """Two of three folders hold what nobody asks for; one, all that is asked for, and more."""
    keys = [f"p/{k}/{j:02d}.mp4" for k in range(3) for j in range(60)]
    urls = fill(pages_of_ten, *keys)
    asked = [urls[7], urls[100], urls[101], urls[102], urls[103]]
    assert set(sizes(asked)) == set(asked)
    # Two pages of all and one look behind, one object by itself, and the four of a folder: as
    # many pages, a look behind, and then those that were not found.
    assert pages_of_ten.counts.total() <= 3 + 1 + 5 + 4


def test_few_objects_are_asked_for_by_themselves(pages_of_ten):
    urls = fill(pages_of_ten, *(f"{j}.mp4" for j in range(50)))
    assert set(sizes(urls[3:6])) == set(urls[3:6])
    assert pages_of_ten.counts == {"HEAD": 3}


def test_files_on_a_disk_are_looked_at_beside(pages_of_ten, tmp_path):
    (url,) = fill(pages_of_ten, "a.mp4")
    (tmp_path / "a.mp4").write_bytes(b"abc")
    look = look_at_all([url, str(tmp_path / "a.mp4"), "s3://bucket/none"])
    assert look(url).st_size == 5
    assert look(str(tmp_path / "a.mp4")).st_size == 3
    assert look("s3://bucket/none") is None
    assert look(str(tmp_path / "none")) is None
    assert look_at(url) == look(url)._replace(st_mtime_ns=look_at(url).st_mtime_ns)


@pytest.mark.parametrize("code", ["AccessDenied", "ExpiredToken"])
def test_what_cannot_be_listed_stops_a_plan(pages_of_ten, code):
    urls = fill(pages_of_ten, *(f"{j}.mp4" for j in range(20)))
    pages_of_ten.fault = lambda request: request.fail(403, code)
    with pytest.raises(UserError, match="s3://bucket/: cannot be listed: bucket: "):
        list_objects(urls)
