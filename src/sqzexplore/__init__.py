"""Design-space exploration of small convolutional networks, starting from SqueezeNet's Fire.

The names are those of `__init__.pyi`; each is imported when it is first used.
"""

import lazy_loader

from .provenance import __version__ as __version__

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
