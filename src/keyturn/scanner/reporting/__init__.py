"""Reporting: the same findings in the forms that others read.

    text      for people
    json      everything there is, in a schema with a version
    sarif     SARIF 2.1.0, for code scanning
    junit     for what shows tests
    csv       for spreadsheets, which must not take a value for a formula
    github    annotations of GitHub Actions

None holds a secret, or who made a commit and what they wrote.  Text, JSON and CSV hold secrets when asked to.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from keyturn.scanner.model import Report
    from keyturn.scanner.reporting.options import Options

FORMATS: Final = ("text", "json", "sarif", "junit", "csv", "github")
"""Every form; each is a module of this package with a function `render`."""


def render(report: Report, form: str, options: Options) -> str:
    """Return a report in one of `FORMATS`."""
    text: str = import_module(f"{__name__}.{form}").render(report, options)
    return text
