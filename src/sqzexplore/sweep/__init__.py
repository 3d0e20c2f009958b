"""A sweep: which architecture is next, who evaluates it, what is written when. Driven by Optuna."""
