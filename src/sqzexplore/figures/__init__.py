"""The figures of a sweep, of its analyses, of throughput, of a census."""
