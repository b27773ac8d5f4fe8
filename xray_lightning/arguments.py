"""Values of a configuration, checked against the constructors they go to."""

import inspect
from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args, get_origin, get_type_hints

from omegaconf import DictConfig

from xray_lightning.config import plain
from xray_lightning.errors import XRayError, did_you_mean

HYDRA_KEYS = {
    "_target_": str,
    "_partial_": bool,
    "_convert_": Literal["none", "partial", "object", "all"],
    "_recursive_": bool,
    "_args_": list,
}


def check_arguments(cfg: DictConfig) -> None:
    """Checks each node that has a `_target_` against the constructor it names.

    Raises XRayError for a key that is no argument and for a value of the wrong type, naming valid ones.
    """
    _check_node(plain(cfg), "")


def _check_node(node: Any, where: str) -> None:
    if isinstance(node, list):
        for index, item in enumerate(node):
            _check_node(item, f"{where}{index}.")
    if not isinstance(node, dict):
        return
    for key, value in node.items():
        _check_node(value, f"{where}{key}.")
    if "_target_" in node:
        _check_call(node, where)


def _check_call(node: dict[str, Any], where: str) -> None:
    from hydra.utils import get_object

    try:
        target = get_object(node["_target_"])
    except Exception as error:
        raise XRayError(f"{where}_target_={node['_target_']} cannot be imported: {error}") from error
    if not callable(target):
        raise XRayError(f"{where}_target_={node['_target_']} cannot be called: give a class or a function.")
    for key in node.keys() & HYDRA_KEYS.keys():
        _check_value(node[key], HYDRA_KEYS[key], f"{where}{key}")
    check_call(
        target,
        {key: value for key, value in node.items() if key not in HYDRA_KEYS},
        node["_target_"],
        where,
        nodes=True,
    )


def check_call(target: Any, arguments: Mapping[str, Any], name: str, where: str = "", *, nodes: bool = False) -> None:
    """Checks the arguments of a call, of which nothing is imported. `name` is what messages call the target.

    With `nodes` some may have a `_target_` of their own, against which they are checked. Raises XRayError as
    `check_arguments` does.
    """
    hints = _arguments(target)
    for key, value in arguments.items():
        if key not in hints and "**" not in hints:
            raise XRayError(f"{where}{key} is not an argument of {name}. {did_you_mean(key, hints)}")
        if not (nodes and _is_node(value)):
            _check_value(value, hints.get(key, Any), f"{where}{key}")


def _arguments(target: Any) -> dict[str, Any]:
    """Names and types of the arguments a call takes; ** stands for any name.

    A constructor that passes **keywords on takes what the constructors above it take.
    """
    if not inspect.isclass(target):
        return _signature(target)
    hints: dict[str, Any] = {}
    for kind in target.__mro__[:-1]:  # without object
        if "__init__" in vars(kind):
            hints.pop("**", None)
            hints = _signature(vars(kind)["__init__"]) | hints
            if "**" not in hints:
                break
    return hints


def _signature(function: Any) -> dict[str, Any]:
    try:
        hints = get_type_hints(function)
    except (NameError, TypeError):  # annotations that cannot be resolved at run time say nothing
        hints = {}
    parameters = inspect.signature(function).parameters.values()
    named = {p.name: hints.get(p.name, Any) for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
    named.pop("self", None)
    return named | ({"**": Any} if any(p.kind is p.VAR_KEYWORD for p in parameters) else {})


def _is_node(value: Any) -> bool:
    return any(isinstance(v, dict) and "_target_" in v for v in (value if isinstance(value, list) else [value]))


def _check_value(value: Any, hint: Any, name: str) -> None:
    from pydantic import ConfigDict, TypeAdapter, ValidationError
    from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError

    cause: Exception | None = None
    try:
        read = TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True)).validate_python(value)
    except ValidationError as error:
        read, cause = None, error
    except (PydanticSchemaGenerationError, PydanticUserError):
        return  # a type that pydantic cannot describe, such as a protocol
    if cause is not None or _turned_into_another(value, read):
        choices = list(_literals(hint))
        advice = did_you_mean(value, choices) if choices else f"Expected {_readable(hint)}."
        raise XRayError(f"{name}={value!r} is not valid. {advice}") from cause


def _turned_into_another(given: Any, read: Any) -> bool:
    """Whether pydantic made a number or an object of what the constructor will get as it is: '16', 1e15, {scale: 1}."""
    if isinstance(given, list) and isinstance(read, list | tuple):
        return any(map(_turned_into_another, given, read))
    if isinstance(given, dict):
        return not isinstance(read, Mapping)
    return isinstance(read, int | float) and type(given) not in (type(read), int)


def _literals(hint: Any) -> Iterator[Any]:
    if get_origin(hint) is Literal:
        yield from get_args(hint)
    else:
        for inner in get_args(hint):
            yield from _literals(inner)


def _readable(hint: Any) -> str:
    text = hint.__name__ if inspect.isclass(hint) and not get_args(hint) else str(hint)
    return text.replace("typing.", "").replace("NoneType", "null").replace("None", "null")
