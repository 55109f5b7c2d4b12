"""The references list exactly what the code has: settings, actions, error codes, verdicts."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from keyturn.audit.findings import FindingKind
from keyturn.config import SETTINGS
from keyturn.wire.actions import GRANTABLE_ACTIONS, SYSTEM_ACTIONS
from keyturn.wire.verification import Code

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
SOURCE = ROOT / "src" / "keyturn"


def rows(page: str, section: str | None = None) -> list[list[str]]:
    """Return the cells of every table row whose first cell is code, of a page or of one of its sections."""
    text = (DOCS / page).read_text()
    if section is not None:
        found = re.search(rf"^## {re.escape(section)}$(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
        assert found is not None, f"{page} has no section {section!r}"
        text = found[1]
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def named(page: str, section: str | None = None) -> list[str]:
    """Return the first cells of those rows, without the code marks."""
    return [row[0].strip("`") for row in rows(page, section)]


def _codes_in(tree: ast.Module) -> Iterator[str]:
    """Yield every error code of a module: class attributes, arguments `code`, and the tables of storage and router."""
    constants = {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign | ast.AnnAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }
    found: list[ast.expr | None] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == "code":
            found.append(constants.get(node.value.id) if isinstance(node.value, ast.Name) else node.value)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "_Fault":
            found.append(node.args[0])
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found += [node.value for target in targets if isinstance(target, ast.Name) and target.id == "code"]
    if isinstance(table := constants.get("_ROUTER_CODES"), ast.Dict):
        found += table.values
    for value in found:
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            yield value.value


def test_every_setting_is_listed_with_its_default() -> None:
    listed = {row[0].strip("`"): (row[1].strip("`"), row[2]) for row in rows("operations/settings.md")}
    assert listed == {s.variable: (s.default, "yes" if s.secret else "no") for s in SETTINGS}


def test_every_action_is_listed() -> None:
    assert sorted(named("reference/actions.md", "Actions that can be granted")) == sorted(GRANTABLE_ACTIONS)
    assert sorted(named("reference/actions.md", "Actions of the system")) == sorted(SYSTEM_ACTIONS)


def test_every_verdict_is_listed() -> None:
    assert sorted(named("reference/errors.md", "Verdicts")) == sorted(Code)


def test_every_error_code_is_listed() -> None:
    found = {code for path in sorted(SOURCE.rglob("*.py")) for code in _codes_in(ast.parse(path.read_text()))}
    assert sorted(named("reference/errors.md", "Problems")) == sorted(found)


def test_every_audit_finding_is_listed() -> None:
    assert sorted(named("security/audit.md", "Verifying")) == sorted(FindingKind)
