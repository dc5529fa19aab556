"""CNN features for large video collections.

rows → jobs → frames → clips → batches → features → files

One module for each step, in the order in which a row meets them: `rows`, `plan`, `jobs`;
`pipeline`, which runs at the same time `decoding` (with `claims`, `probing`, `video`, `clips`),
`batching` (with `network`, `backbones`, `weights`) and `writer` (with `gather`, `storage`);
and `manifest`. `settings` and `records` serve them all. Nothing here knows Snakemake, and
planning imports neither torch nor ffmpeg, so that it is quick.
"""

__version__ = "0.3.0"
