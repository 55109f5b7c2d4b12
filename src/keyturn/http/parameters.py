"""The parameters a route declares, its dependencies' included."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from functools import cache
from typing import TYPE_CHECKING

from litestar.enums import ParamType
from litestar.params import ParameterKwarg

if TYPE_CHECKING:
    from litestar.handlers import HTTPRouteHandler
    from litestar.typing import FieldDefinition


def declared_parameters(handler: HTTPRouteHandler) -> Iterable[FieldDefinition]:
    """Yield the parameters of a route and of the dependencies it takes."""
    provided = handler.resolve_dependencies()
    for name, parameter in handler.parsed_fn_signature.parameters.items():
        if name in provided:
            yield from provided[name].parsed_fn_signature.parameters.values()
        elif name != "data":
            yield parameter


@cache
def query_names(handler: HTTPRouteHandler) -> frozenset[str]:
    """Return the query parameters a route knows."""
    return frozenset(
        parameter.kwarg_definition.name or parameter.name
        for parameter in declared_parameters(handler)
        if isinstance(parameter.kwarg_definition, ParameterKwarg)
        and parameter.kwarg_definition.param_type is ParamType.QUERY
    )


@cache
def repeated_names(handler: HTTPRouteHandler) -> frozenset[str]:
    """Return the query parameters that may be given more than once."""
    return frozenset(
        parameter.kwarg_definition.name or parameter.name
        for parameter in declared_parameters(handler)
        if isinstance(parameter.kwarg_definition, ParameterKwarg) and parameter.is_non_string_sequence
    )


@cache
def wire_names(handler: HTTPRouteHandler) -> dict[str, str]:
    """Map the Python name of each parameter to the name a caller knows."""
    return {
        parameter.name: parameter.kwarg_definition.name or parameter.name
        for parameter in declared_parameters(handler)
        if isinstance(parameter.kwarg_definition, ParameterKwarg)
    }


@cache
def untextual_names(handler: HTTPRouteHandler) -> frozenset[str]:
    """Return the optional query parameters that hold no free text: the word `null` would be taken for nothing there."""
    return frozenset(
        parameter.kwarg_definition.name or parameter.name
        for parameter in declared_parameters(handler)
        if isinstance(parameter.kwarg_definition, ParameterKwarg)
        and parameter.kwarg_definition.param_type is ParamType.QUERY
        and parameter.is_optional
        and (not parameter.has_inner_subclass_of(str) or parameter.has_inner_subclass_of(Enum))
    )
