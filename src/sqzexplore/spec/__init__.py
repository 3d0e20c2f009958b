"""The YAML file of a sweep, checked."""
