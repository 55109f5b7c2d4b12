"""The format of a keyspace's keys as rules of other scanners, so that they find them too.

    github        the fields of a custom pattern of GitHub's secret scanning, as JSON
    gitleaks      a rule file to extend the default one with
    trufflehog    a custom detector
    kingfisher    a rule file for `--rules-path`

None of them can check the check; `keyturn scan` does, and so reports no key that only looks like one.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from keyturn.kernel.tokenformat import BODY_LENGTH, check_prefix, check_tag
from keyturn.wire.leak_intakes import PatternFormat

if TYPE_CHECKING:
    from collections.abc import Callable


def pattern_of(prefix: str, tag: str, form: PatternFormat) -> str:
    """Return the rule for keys of this prefix and tag; raises ValueError when either is malformed."""
    check_prefix(prefix)
    check_tag(tag)
    return _WRITERS[form](prefix, tag)


def _secret(prefix: str, tag: str) -> str:
    return f"{prefix}_{tag}_[0-9A-Za-z]{{{BODY_LENGTH}}}"


def _title(prefix: str, tag: str) -> str:
    return f"{prefix} API key ({tag})"


def _github(prefix: str, tag: str) -> str:
    fields = {
        "name": _title(prefix, tag),
        "secret_format": _secret(prefix, tag),
        "before_secret": r"\A|[^0-9A-Za-z_]",
        "after_secret": r"\z|[^0-9A-Za-z]",
    }
    return json.dumps(fields, indent=2) + "\n"


def _gitleaks(prefix: str, tag: str) -> str:
    return f"""\
title = "{_title(prefix, tag)}"

[extend]
useDefault = true

[[rules]]
id = "{prefix}-{tag}-key"
description = "{_title(prefix, tag)}"
regex = '''\\b({_secret(prefix, tag)})\\b'''
keywords = ["{prefix}_{tag}_"]
"""


def _trufflehog(prefix: str, tag: str) -> str:
    return f"""\
detectors:
  - name: {prefix}-{tag}-key
    keywords:
      - {prefix}_{tag}_
    regex:
      key: '\\b({_secret(prefix, tag)})\\b'
"""


def _kingfisher(prefix: str, tag: str) -> str:
    return f"""\
rules:
  - name: {_title(prefix, tag)}
    id: custom.{prefix}.{tag}
    pattern: '\\b({_secret(prefix, tag)})\\b'
    min_entropy: 3.5
    confidence: high
"""


_WRITERS: Final[dict[PatternFormat, Callable[[str, str], str]]] = {
    PatternFormat.GITHUB: _github,
    PatternFormat.GITLEAKS: _gitleaks,
    PatternFormat.TRUFFLEHOG: _trufflehog,
    PatternFormat.KINGFISHER: _kingfisher,
}
