from grimp import ImportGraph
from importlinter import ContractCheck, configuration

from tools.import_contracts import ForbiddenWherePresentContract, OwnStoreContract

configuration.configure()


def _graph(*imports: tuple[str, str]) -> ImportGraph:
    graph = ImportGraph()
    for module in {"keyturn"} | {module for pair in imports for module in pair}:
        graph.add_module(module)
    for importer, imported in imports:
        graph.add_import(importer=importer, imported=imported, line_number=1, line_contents=f"import {imported}")
    return graph


def _check_stores(*imports: tuple[str, str]) -> ContractCheck:
    options = {"allowed_importers": ["keyturn.bootstrap"]}
    contract = OwnStoreContract(name="stores", session_options={}, contract_options=options)
    return contract.check(_graph(*imports), verbose=False)


def _check_forbidden(*imports: tuple[str, str]) -> ContractCheck:
    options = {
        "source_modules": ["keyturn.client", "keyturn.verify"],
        "forbidden_modules": ["keyturn.storage", "keyturn.not_written_yet"],
    }
    session = {"root_packages": ["keyturn"], "include_external_packages": True}
    contract = ForbiddenWherePresentContract(name="base", session_options=session, contract_options=options)
    return contract.check(_graph(*imports), verbose=False)


def test_a_store_may_be_imported_by_its_feature_and_by_bootstrap() -> None:
    check = _check_stores(("keyturn.keys.service", "keyturn.keys.store"), ("keyturn.bootstrap", "keyturn.keys.store"))
    assert check.kept


def test_a_store_imported_by_another_feature_breaks_the_contract() -> None:
    check = _check_stores(("keyturn.usage.service", "keyturn.keys.store"))
    assert not check.kept
    assert check.metadata["illegal"] == [("keyturn.usage.service", "keyturn.keys.store")]


def test_an_absent_module_does_not_hide_a_breach_by_a_present_one() -> None:
    assert not _check_forbidden(("keyturn.verify", "keyturn.storage")).kept
    assert _check_forbidden(("keyturn.verify", "keyturn.kernel")).kept
