"""Kinds of import contract that import-linter does not have; `pyproject.toml` names them.

Both pass over modules that do not exist, so a contract can be written before the package it is about.
"""

from typing import Any

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, fields, output
from importlinter.contracts.forbidden import ForbiddenContract
from importlinter.domain.imports import ModuleExpression


class ForbiddenWherePresentContract(ForbiddenContract):
    """A `forbidden` contract whose modules may be absent."""

    type_name = "forbidden_where_present"

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:  # noqa: FBT001 - the signature of the base class
        """Check only the modules that exist; third-party modules are always kept."""
        options: Any = self  # the fields declared on the class hold parsed values on the instance
        options.source_modules = {e for e in options.source_modules if _may_match(e, graph)}
        options.forbidden_modules = {
            e for e in options.forbidden_modules if not e.expression.startswith("keyturn.") or _may_match(e, graph)
        }
        return super().check(graph, verbose)


class OwnStoreContract(Contract):
    """Every `<root>.<feature>.store` is imported by its own feature and by the allowed importers alone."""

    type_name = "own_store"

    allowed_importers: Any = fields.SetField(subfield=fields.StringField())

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:  # noqa: ARG002, FBT001 - as above
        """Collect each direct import of a store by another feature."""
        illegal = sorted(
            (importer, store)
            for store in graph.modules
            if store.count(".") == 2 and store.endswith(".store")
            for importer in graph.find_modules_that_directly_import(store)
            if not _is_within(importer, store.removesuffix(".store"))
            and not any(_is_within(importer, allowed) for allowed in self.allowed_importers)
        )
        return ContractCheck(kept=not illegal, metadata={"illegal": illegal})

    def render_broken_contract(self, check: ContractCheck) -> None:
        """Name each import that breaks the contract."""
        for importer, store in check.metadata["illegal"]:
            output.print_error(f"{importer} imports {store}", bold=False)


def _may_match(expression: ModuleExpression, graph: ImportGraph) -> bool:
    return expression.has_wildcard_expression() or expression.expression in graph.modules


def _is_within(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")
