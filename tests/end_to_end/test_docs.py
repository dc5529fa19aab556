"""Every command of the documentation is run as it stands there; what it says of code is done."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from conftest import PROJECT, ROOT, Workflow, make_clip, run_ffmpeg, write_csv
from videofeatures.files import hash_file
from videofeatures.networks.backbones import BACKBONES
from videofeatures.packing.hdf5_format import Hdf5Format
from videofeatures.packing.sample import Part, Sample
from videofeatures.packing.webdataset_format import WebdatasetFormat

PAGES = sorted(
    path.relative_to(ROOT)
    for path in ROOT.rglob("*.md")
    if not any(part.startswith(".") for part in path.relative_to(ROOT).parts[:-1])
    and path.relative_to(ROOT).parts[0] not in ("demo", "bench", "results")
)
BACKBONE_PAGE = Path("scripts/videofeatures/networks/backbones/README.md")

HERE = "tests/end_to_end/"
ELSEWHERE = {
    r"make (test|test-browser|test-slurm|lint)": ".ci/run",
    r"make bench(-memory|-plan|-buckets|-several|-decoding|-pack)?": HERE
    + "test_benchmarks.py",  # in the smallest setting
    r"make csv VIDEOS=s3:.*": HERE + "test_buckets.py",  # where there is a server
    r"make (test-gpu|bench-gpu)": "tests/gpu/test_on_gpu.py",
    r"make (env|env-pack|env-remote|env-cloud|clean)": "Makefile",  # what these tests use
    r"snakemake .*--profile slurm.*|srun .*": HERE + "test_slurm.py",
    r"snakemake --profile profiles/pbs": HERE + "test_workflow.py",  # with a stand-in for qsub
    # With clients of clouds that submit to nobody.
    r"snakemake --profile profiles/(kubernetes|googlebatch|aws-batch)": HERE + "test_clouds.py",
    # With a small network: the page's own has to be fetched.
    r"python (scripts/encode_text|examples/find_sentence)\.py .*": "tests/networks/test_text.py",
    r"snakemake --sdm conda": None,  # there is no conda here, and the page says so
}
"""Commands that are not run here, and the file whose tests or lines run them."""


def commands_of(page: Path) -> list[str]:
    """Commands of a page, in blocks of `sh` and in the text, in their order."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = []
    for match in re.finditer(r"```(\w*)\n(.*?)```|`([^`\n]+)`", text, re.DOTALL):
        language, block, inline = match.groups()
        if language == "sh":
            found += [line.split("  #")[0].strip() for line in block.splitlines()]
        elif inline and re.match(r"(snakemake|make|python|srun) [-\w]", inline):
            found.append(inline)
    return [command for command in found if command]


def is_run_elsewhere(command: str) -> bool:
    return any(re.fullmatch(pattern, command) for pattern in ELSEWHERE)


@pytest.fixture(scope="module")
def site(tmp_path_factory, seeded_weights, real_weights, real_clips) -> Path:
    """A folder as users have it: a clone, an environment, videos, weights that were fetched."""
    folder = tmp_path_factory.mktemp("site")
    for name in (*PROJECT, "examples", "Makefile"):
        source = ROOT / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, folder / name)
    # The environment is that of these tests, which have shown that it can be made.
    (folder / ".venv").mkdir()
    for path in Path(sys.prefix).iterdir():
        (folder / ".venv" / path.name).symlink_to(path)
    (folder / ".venv" / "installed").unlink(missing_ok=True)
    (folder / ".venv" / "installed").touch()
    make_clip(folder / "videos" / "a.mp4")
    run_ffmpeg("-i", folder / "videos" / "a.mp4", "-c:v", "libvpx", folder / "videos" / "b.webm")
    (folder / "demo").mkdir()
    (folder / "demo" / "clips").symlink_to(real_clips["bikes"].parent)
    write_csv(folder / "both.csv", [("videos/a.mp4", "both/{backbone}/a.npy")])
    # Weights whose real files cannot be shipped: their names are what a download would leave.
    verified = folder / "resources" / "weights"
    verified.mkdir(parents=True)
    (verified / real_weights.name).symlink_to(real_weights)
    # Weights are known by their content: here the published ones are others.
    identity = hash_file(seeded_weights["resnet152"])[:8]
    module = folder / "scripts" / "videofeatures" / "networks" / "backbones" / "__init__.py"
    module.write_text(module.read_text().replace("394f9c45", identity))
    (verified / f"resnet152-{identity}.pth").symlink_to(seeded_weights["resnet152"])
    (folder / "model").mkdir()
    (folder / "model" / "resnext101.pth").symlink_to(seeded_weights["resnext101"])
    return folder


def run(command: str, folder: Path) -> subprocess.CompletedProcess:
    """Run a command as a user types it, in the environment of the tests."""
    environment = os.environ | {"PATH": f"{folder}/.venv/bin:{os.environ['PATH']}"}
    result = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, f"{command}\n{result.stdout}{result.stderr}"
    return result


def test_the_commands_of_the_pages_are_found():
    found = {str(page): commands_of(page) for page in PAGES}
    assert "make csv VIDEOS=videos FEATURES=features CSV=my.csv" in found["README.md"]
    assert "snakemake --cores 8 features/a.npy --config videos=my.csv" in found["README.md"]
    assert "make demo" in found["README.md"]
    assert len(found["README.md"]) > 15
    for page in ("config/README.md", "profiles/README.md", "examples/README.md"):
        assert found[page]


@pytest.mark.parametrize("target", sorted({t for t in ELSEWHERE.values() if t}))
def test_what_is_run_elsewhere_is_run_there(target):
    text = (ROOT / target).read_text(encoding="utf-8")
    for words in {
        ".ci/run": ["make test", "make test-browser", "make test-slurm", "make lint"],
        HERE + "test_benchmarks.py": [
            f"{name}.py"
            for name in ("speed", "plan", "plan_buckets", "several", "decoding", "packing")
        ],
        HERE + "test_buckets.py": ["make_csv.py"],
        "tests/gpu/test_on_gpu.py": ['"gpu.py"'],
        HERE + "test_slurm.py": ['"--profile", "slurm"', "srun --gpus=1 python scripts/check.py"],
        HERE + "test_workflow.py": ["profiles/pbs"],
        HERE + "test_clouds.py": [
            f'"{name}"' for name in ("kubernetes", "googlebatch", "aws-batch")
        ],
        "Makefile": ["env:", "env-pack:", "env-remote:", "env-cloud:", "clean:"],
        "tests/networks/test_text.py": ["encode_text.py", "find_sentence.py"],
    }[target]:
        assert words in text


def test_the_readme_s_commands_and_then_those_of_the_other_pages(site):
    # In one go, as the later pages use what the first one's commands have made.
    pages = [Path("README.md"), *(page for page in PAGES if page != Path("README.md"))]
    pages.remove(BACKBONE_PAGE)
    done = set()
    for page in pages:
        for command in commands_of(page):
            if not is_run_elsewhere(command) and command not in done:
                done.add(command)
                run(command, site)
    assert sorted(path.name for path in (site / "features").iterdir()) == ["a.npy", "b.npy"]
    assert np.load(site / "features" / "a.npy").shape == (2, 2048)
    assert np.load(site / "both" / "resnet152" / "a.npy").shape == (2, 2048)
    assert np.load(site / "both" / "resnext101" / "a.npy").shape == (3, 2048)
    for results in ("results", "results/both", "demo/results"):
        assert (site / results / "report.html").exists()


def test_the_example_finds_the_moment_itself(site, real_clips):
    if not (site / "demo" / "features").exists():
        run("make demo", site)
    # A copy of a part of the clip is another video; its 3rd second is the clip's 6th.
    run_ffmpeg("-ss", "3", "-i", real_clips["bikes"], site / "videos" / "part.mp4")
    write_csv(site / "part.csv", [("videos/part.mp4", "part.npz")])
    run("snakemake --cores 2 --config videos=part.csv backbone=efficientnet_lite0", site)
    found = run("python examples/find_moment.py demo/videos.csv part.npz 2.5", site).stdout
    cosine, path, _, seconds, _ = found.splitlines()[0].split()
    assert (path, seconds) == ("demo/clips/bikes.mp4", "5.5")
    assert float(cosine) > 0.9


def test_the_python_of_the_examples_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    features = np.random.default_rng(0).normal(size=(10, 2048)).astype(np.float16)
    for folder, num_rows in (("features", 7), ("features_3d", 10)):
        Path(folder).mkdir()
        np.save(f"{folder}/a.npy", features[:num_rows])
    times = {name: np.arange(10.0) for name in ("start_seconds", "timestamps", "end_seconds")}
    np.savez("features/b.npz", features=features, **times, provenance="{}")
    told = {"key": "videos/b.mp4", "video_path": "videos/b.mp4", "features": {"n": {}}}
    parts = (Part("n", features, np.stack(list(times.values()), axis=1)),)
    sample = Sample("videos/b.mp4", parts, json.dumps(told))
    Path("shards").mkdir()
    for pack_format, path in ((Hdf5Format(), "features.h5"), (WebdatasetFormat(), "shards/0.tar")):
        with open(path, "x+b") as file:
            pack_format.write(file, iter([sample]))
    names: dict = {}
    text = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(block, names)
    for name in ("from_hdf5", "from_shards"):
        assert names[name].shape == (10, 2048)
    assert len(names["rows_2d"]) == 2  # seconds 0 and 1
    assert len(names["rows_3d"]) == 3  # rows 0 to 2: up to second 2
    assert names["clip"].shape == (4096,)
    np.testing.assert_allclose(np.linalg.norm(names["clip"]), np.sqrt(2), rtol=1e-6)
    assert list(names["nearest"]) == [0, 2, 3, 5, 6, 8, 9]
    assert names["both"].shape == (7, 4096)


def test_a_backbone_is_added_as_the_page_says(workflow: Workflow, real_clips):
    page = (ROOT / BACKBONE_PAGE).read_text(encoding="utf-8")
    (entry,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    module = workflow.folder / BACKBONE_PAGE.parent / "__init__.py"
    before = module.read_text(encoding="utf-8")
    start = "BACKBONES: dict[str, Backbone] = {\n"
    module.write_text(before.replace(start, start + entry), encoding="utf-8")
    (workflow.folder / "my.csv").write_text(
        f"video_path,feature_path\n{real_clips['bikes']},features/bikes.npy\n"
    )
    (command,) = (c for c in commands_of(BACKBONE_PAGE) if c.startswith("snakemake"))
    (workflow.folder / "resources").unlink()  # weights are made here, not where tests share them
    (workflow.folder / ".venv").symlink_to(sys.prefix)
    run(command + " half_precision=false report=false", workflow.folder)
    found = workflow.features()["bikes"]
    assert found.shape == (10, 576)

    # The same by torchvision alone, of the frames that ffmpeg gives.
    from torchvision.models import mobilenet_v3_small

    (weights,) = (workflow.folder / "resources" / "weights").glob("mobilenet_v3_small-*.pth")
    network = mobilenet_v3_small().eval()
    network.load_state_dict(torch.load(weights))
    network.classifier = torch.nn.Identity()
    run_ffmpeg(
        *("-i", real_clips["bikes"], "-vf", "fps=1,scale=527:224:flags=bilinear"),
        *("-f", "rawvideo", "-pix_fmt", "rgb24", workflow.folder / "frames"),
    )
    frames = np.fromfile(workflow.folder / "frames", np.uint8).reshape(-1, 224, 527, 3)
    mean, std = (torch.tensor(v) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    pixels = (torch.from_numpy(frames).float() / 255 - mean) / std
    with torch.inference_mode():
        expected = network(pixels.movedim(-1, 1)).numpy()
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    cosines = (found * expected).sum(axis=1)
    assert cosines.min() > 0.9999


def test_every_backbone_is_in_the_readme():
    table = (ROOT / "README.md").read_text(encoding="utf-8")
    for name, backbone in BACKBONES.items():
        (line,) = re.findall(rf"^\| `{name}`.*$", table, re.MULTILINE)
        rate = backbone.view.num_rows(16) / 16
        assert f"{rate:g} a second, {backbone.feature_dim}" in line


def test_every_key_is_in_the_configuration_s_page_with_its_default():
    page = (ROOT / "config" / "README.md").read_text(encoding="utf-8")
    config = yaml.safe_load((ROOT / "config" / "config.yaml").read_text(encoding="utf-8"))
    schema = yaml.safe_load((ROOT / "config" / "schema.yaml").read_text(encoding="utf-8"))
    assert config == {key: entry["default"] for key, entry in schema["properties"].items()}
    for key, value in config.items():
        default = {True: "true", False: "false", None: "null"}.get(value, str(value))
        if isinstance(value, int) and not isinstance(value, bool):
            default = str(value)
        assert f"| `{key}` | `{default}` |" in page, key


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_lead_somewhere(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            anchors = [re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings]
            assert anchor in anchors, target


def test_the_tree_of_the_code_names_every_module():
    text = (ROOT / "scripts" / "README.md").read_text(encoding="utf-8")
    for path in (ROOT / "scripts" / "videofeatures").rglob("*.py"):
        name = path.parent.name if path.name == "__init__.py" else path.stem
        is_network = path.parent.name == "backbones"  # its own page names these
        assert is_network or re.search(rf"\b{name}\b", text), name
    for path in (ROOT / "scripts").glob("*.py"):
        if path.name not in (
            "prepare_weights.py",
            "fetch_clips.py",
            "make_config.py",
        ):  # called by rules, and make
            assert path.name in text
