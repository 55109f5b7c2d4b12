"""Hooks: what git runs, and how it is installed."""
