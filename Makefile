# What each target does, and when to use it, is in README.md.
.PHONY: env env-pack env-remote env-cloud csv demo test test-slurm test-browser test-gpu lint docs bench bench-memory bench-decoding bench-several bench-plan bench-buckets bench-pack bench-gpu clean

PYTHON ?= python3
CSV ?= config/videos.csv
PIP_INSTALL = .venv/bin/python -m pip install --disable-pip-version-check --quiet --constraint envs/constraints.txt

env: .venv/installed

.venv/installed: envs/requirements.txt envs/constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11 env"; exit 1; }
	$(PYTHON) -m venv .venv
	$(PIP_INSTALL) --requirement envs/requirements.txt
	touch $@

# What scripts/pack.py needs on top.
env-pack: .venv/installed-pack

.venv/installed-pack: .venv/installed envs/requirements-pack.txt
	$(PIP_INSTALL) --requirement envs/requirements-pack.txt
	touch $@

# What rows in buckets need on top.
env-remote: .venv/installed-remote

.venv/installed-remote: .venv/installed envs/requirements-remote.txt
	$(PIP_INSTALL) --requirement envs/requirements-remote.txt
	touch $@

# What the profiles for clouds need on top.
env-cloud: .venv/installed-cloud

.venv/installed-cloud: .venv/installed envs/requirements-cloud.txt
	$(PIP_INSTALL) --requirement envs/requirements-cloud.txt
	touch $@

# What tests and checks need on top.
.venv/installed-dev: .venv/installed envs/requirements-dev.txt
	$(PIP_INSTALL) --requirement envs/requirements-dev.txt
	touch $@

# make csv VIDEOS=folder FEATURES=folder [CSV=my.csv]
csv: .venv/installed
	@test -n "$(VIDEOS)" -a -n "$(FEATURES)" \
		|| { echo "Say where they are: make csv VIDEOS=folder FEATURES=folder"; exit 1; }
	.venv/bin/python scripts/make_csv.py "$(VIDEOS)" --features "$(FEATURES)" --csv "$(CSV)"

demo: .venv/installed
	.venv/bin/python scripts/fetch_clips.py --folder demo/clips --csv demo/videos.csv --features demo/features
	.venv/bin/snakemake --cores all --resources gpu=1 \
		--config videos=demo/videos.csv results=demo/results backbone=efficientnet_lite0

# A process for each core, up to four: each needs some gigabytes of memory.
test: .venv/installed-dev
	.venv/bin/python -m pytest --numprocesses logical --maxprocesses 4 \
		--dist loadfile --no-loadscope-reorder

# On a SLURM cluster of this machine alone, started for the tests. As root of a Debian, this
# installs SLURM; where it cannot be started, the tests are skipped, and say why.
test-slurm: .venv/installed-dev
	@command -v slurmctld > /dev/null || [ "$$(id -u)" != 0 ] || ! command -v apt-get > /dev/null \
		|| { apt-get update --quiet=2; DEBIAN_FRONTEND=noninteractive apt-get install --quiet=2 \
			--yes --no-install-recommends slurm-wlm munge > /dev/null; } \
		|| echo "SLURM could not be installed"
	.venv/bin/python -m pytest -m slurm tests/end_to_end/test_slurm.py

# The report, opened in Chromium, which is installed as SLURM is.
test-browser: .venv/installed-dev
	@command -v chromium google-chrome chromium-browser > /dev/null || [ "$$(id -u)" != 0 ] \
		|| ! command -v apt-get > /dev/null \
		|| { apt-get update --quiet=2; DEBIAN_FRONTEND=noninteractive apt-get install --quiet=2 \
			--yes --no-install-recommends chromium fonts-dejavu-core > /dev/null; } \
		|| echo "Chromium could not be installed"
	.venv/bin/python -m pytest -m browser tests/end_to_end/test_report_in_browser.py

# All that a GPU changes. Needs neither a network connection nor Snakemake, but where there is no
# environment yet; where there is no GPU, it is skipped, and says so.
test-gpu: .venv/installed-dev
	.venv/bin/python -m pytest -m gpu tests/gpu

lint: .venv/installed-dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/snakefmt --check Snakefile rules
	.venv/bin/snakemake --lint --config videos=tests/data/lint.csv results=/nonexistent/results

# config.yaml, schema.yaml and the tables of keys in config/, from settings.py.
docs: .venv/installed
	.venv/bin/python scripts/make_config.py

# Speed beside the original's flow and beside the limits; what each precision, and each
# resizer, costs and gives; shapes of batches in a lucky and in an unlucky order.
bench: .venv/installed
	.venv/bin/python benchmarks/speed.py

# Peak memory for a video of 10 s and one of an hour.
bench-memory: .venv/installed
	.venv/bin/python benchmarks/memory.py

# What it saves to decode videos once for several backbones.
bench-several: .venv/installed
	.venv/bin/python benchmarks/several.py

# What decoding takes of the processor, beside ffmpeg alone.
bench-decoding: .venv/installed
	.venv/bin/python benchmarks/decoding.py

# What planning takes, for a thousand to a million rows.
bench-plan: .venv/installed
	.venv/bin/python benchmarks/plan.py

# What planning takes where videos and features are in a bucket, of a server on this machine.
bench-buckets: .venv/installed-dev
	.venv/bin/python benchmarks/plan_buckets.py

# Reading features from single files, HDF5 and WebDataset; what packing takes.
bench-pack: .venv/installed-pack
	.venv/bin/python benchmarks/packing.py

# A GPU's limits side by side: the network, decoding by the CPU and by the device, whole jobs.
bench-gpu: .venv/installed
	.venv/bin/python benchmarks/gpu.py

clean:
	rm -rf demo bench .mypy_cache .pytest_cache .ruff_cache
