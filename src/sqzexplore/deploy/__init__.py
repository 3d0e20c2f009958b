"""A network as files of other programs, compared before they are written."""
