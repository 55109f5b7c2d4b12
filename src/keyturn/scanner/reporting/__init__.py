"""Reporting: the same findings in the forms that others read.

    text      for people
    json      everything there is, in a schema with a version
    sarif     SARIF 2.1.0, for code scanning
    junit     for what shows tests
    csv       for spreadsheets, which must not take a value for a formula
    github    annotations of GitHub Actions

None holds a secret, or who made a commit and what they wrote.  Text, JSON and CSV hold secrets when asked to.
No build machine takes a name or a line of what was scanned, in any of them, for a command to itself.
"""

from __future__ import annotations

import re
from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from keyturn.scanner.model import Report
    from keyturn.scanner.reporting.options import Options

FORMATS: Final = ("text", "json", "sarif", "junit", "csv", "github")
"""Every form; each is a module of this package with a function `render`."""

_COMMAND: Final = re.compile(r"##(?=(?:vso|teamcity)?\[)")
"""What Azure Pipelines, GitHub Actions and TeamCity obey wherever it is printed, as `##vso[task.setvariable …]`."""
_ESCAPED: Final = {"json": r"\\u0023#", "sarif": r"\\u0023#", "junit": "&#35;#"}
_LINES: Final = frozenset({"text", "junit"})
_AT_BEGINNING: Final = re.compile(r"^([ \t]*):(?=:)", re.MULTILINE)
"""What GitHub Actions obeys at the beginning of a line, such as `::stop-commands::…`."""


def render(report: Report, form: str, options: Options) -> str:
    """Return a report in one of `FORMATS`."""
    text: str = import_module(f"{__name__}.{form}").render(report, options)
    if "##" in text:
        text = _COMMAND.sub(_ESCAPED.get(form, "# #"), text)
    return _AT_BEGINNING.sub(r"\1: ", text) if form in _LINES else text
