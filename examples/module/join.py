"""One vector for each video, in one file."""

import numpy as np

vectors = [np.load(path) for path in snakemake.input]
np.savez(snakemake.output[0], names=snakemake.params.names, vectors=vectors)
