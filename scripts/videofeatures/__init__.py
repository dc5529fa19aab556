"""CNN features for large video collections.

rows → jobs → frames → clips → batches → features → files

One module for each step, in the order in which a row meets them: `rows`, `plan`, `jobs`;
`video`, `clips`; `pipeline` (with `backbones`, `weights` and `network`); `gather`,
`writer`, `storage`. `settings` and `records` serve them all. Nothing here knows Snakemake,
and planning imports neither torch nor ffmpeg, so that it is quick.
"""

__version__ = "0.1.0"
