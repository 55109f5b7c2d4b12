"""Edges that speak other products' dialects, so that their clients work with another address only."""
