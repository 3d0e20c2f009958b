"""`python -m sqzexplore`."""

from .cli import main

main()
