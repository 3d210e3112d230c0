"""Readers of what the kernel says: synchronous, text in, values out; the root path is an argument."""
