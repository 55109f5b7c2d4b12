"""`python -m keyturn` is the command line."""

from __future__ import annotations

from keyturn.cli.main import main

main()
