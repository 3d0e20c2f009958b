"""A design space: axes, constraints, enumeration. Knows no Optuna."""
