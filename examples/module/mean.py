"""The mean of a video's features, of length 1."""

import numpy as np

path = snakemake.input[0]
features = np.load(path)
if path.endswith(".npz"):
    features = features["features"]
mean = features.astype(np.float32).mean(axis=0)
with open(snakemake.output[0], "wb") as file:
    np.save(file, mean / np.linalg.norm(mean))
