"""CNN features for large video collections.

rows → jobs → frames → clips → batches → features → files

A room for each step: see `scripts/README.md`. Nothing here knows Snakemake.
"""

__version__ = "0.7.1"
