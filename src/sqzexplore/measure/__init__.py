"""Throughput and latency of a network on a device, and what limits them."""
