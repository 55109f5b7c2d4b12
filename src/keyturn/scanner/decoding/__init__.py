"""Decoding: what a text hides."""
