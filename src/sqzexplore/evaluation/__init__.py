"""One trial: the tasks that measure it, and the row that they give. Knows no Optuna."""
