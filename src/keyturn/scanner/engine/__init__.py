"""The engine: where in some bytes a rule matches."""
