"""The tables of a result folder: their columns, how complete they are, what they answer first."""
