"""Image data sets, split into train, validation and test, ready to train on.

`open.open_data` finds a set by what a spec or `--data` says and reads no more of it than its
listing; `images.load` decodes it, or arranges for that to happen while training.
"""
