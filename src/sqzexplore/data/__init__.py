"""Image data sets, split into train, validation and test, ready to train on.

`open_data` finds a set by what a spec or `--data` says and reads no more of it than its listing;
`load` decodes it, or arranges for that to happen while training.
"""

from .feed import Feed
from .images import ImageData, Split, load
from .sources import Source, check_data_name, open_data
from .stream import StreamedSplit

__all__ = [
    "Feed",
    "ImageData",
    "Source",
    "Split",
    "StreamedSplit",
    "check_data_name",
    "load",
    "open_data",
]
