"""One training: an Architecture, a recipe and a seed -> accuracy and how it came about."""
