"""Telemetry: structured logs in which no secret can appear, and metrics without key ids."""
