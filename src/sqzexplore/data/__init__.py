"""Image data sets, split into train, validation and test, ready to train on.

`open.open_data` finds a set by what a spec or `--data` says, with its labels, and decodes one image
of each split: class folders are listed, parquet and IDX files read. `images.load` decodes the rest,
or arranges for that to happen while training.
"""
