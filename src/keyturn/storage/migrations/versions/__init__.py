"""Revisions in order; each expands only, so that a release runs beside the one before it."""
