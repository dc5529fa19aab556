"""CNN features for large video collections.

rows → jobs → frames → clips → batches → features → files

One module per step of the way, in the order in which a row meets them: `rows`,
`plan`, `video`, `clips`, `pipeline` (with `backbones`, `weights` and `network`),
`storage` and `records`. Nothing here knows Snakemake. Modules up to `clips`
import neither torch nor torchvision, so that planning stays quick.
"""

__version__ = "0.1.0"
