"""Feature files of many videos in one file, or in a few, for programs that train.

plan ─► keys, kinds ─► sample ─► hdf5_format, webdataset_format ─► shard_files
"""
