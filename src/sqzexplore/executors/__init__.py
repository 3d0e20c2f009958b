"""Where tasks are done: in this process, in several of this machine, on a Ray cluster."""
