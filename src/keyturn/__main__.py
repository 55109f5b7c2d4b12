"""`python -m keyturn` is the command line."""

from __future__ import annotations

from keyturn.cli.entry import main

main()
