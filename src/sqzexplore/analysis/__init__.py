"""What the tables say: fronts, rankings, populations, effects, differences between architectures.

Every function takes tables that `load_results` gives, or columns of them, says what it needs, and
raises `UserError` where there is too little. The names are those of `__init__.pyi`; each is
imported when it is first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
