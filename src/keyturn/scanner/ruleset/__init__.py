"""Rules: what a leaked key looks like."""
