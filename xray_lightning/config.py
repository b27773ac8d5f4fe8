"""Configuration: resolvers that the YAML files use, and a check of values against constructors."""

import hashlib
import inspect
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from omegaconf import DictConfig, ListConfig, OmegaConf

from xray_lightning.errors import XRayError, did_you_mean

CONF = Path(__file__).resolve().parent.parent / "conf"
LONGEST_SLUG = 60


def slug(value: Any) -> str:
    """A name that is safe as one folder on any file system; long ones end in a digest."""
    text = "-".join(map(str, value)) if isinstance(value, list | tuple | ListConfig) else str(value)
    safe = re.sub(r"[^\w.+=-]+", "-", text).strip("-.") or "none"
    if len(safe) > LONGEST_SLUG:
        digest = hashlib.blake2b(text.encode(), digest_size=4).hexdigest()
        safe = f"{safe[:LONGEST_SLUG]}-{digest}"
    return safe


def user_cache() -> str:
    """The user's cache folder for this program, by the rules of the operating system."""
    from platformdirs import user_cache_dir

    return user_cache_dir("xray-lightning", appauthor=False)


def auto_precision(accelerator: str) -> str:
    """Lightning's name of the fastest precision the device has hardware for; 32-true elsewhere."""
    import torch

    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"
    if accelerator in ("auto", "cpu") and not torch.backends.mps.is_available():
        native = torch.cpu.get_capabilities().get("avx512_bf16", False)
        return "bf16-mixed" if native else "32-true"
    return "32-true"


def register_resolvers() -> None:
    for resolver in (slug, user_cache, auto_precision):
        OmegaConf.register_new_resolver(resolver.__name__, resolver, replace=True)


def plain(cfg: Any) -> Any:
    """Resolved plain dicts, lists, numbers and strings, which checkpoints can hold safely."""
    return OmegaConf.to_container(cfg, resolve=True) if OmegaConf.is_config(cfg) else cfg


def dotted_keys(cfg: DictConfig) -> Iterator[str]:
    """Every key of a nested configuration, inner ones joined by dots."""
    nodes: Mapping[str, Any] = OmegaConf.to_container(cfg, resolve=False)  # type: ignore[assignment]
    yield from _dotted(nodes, "")


def _dotted(nodes: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for key, value in nodes.items():
        yield f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _dotted(value, f"{prefix}{key}.")


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
    function = target.__init__ if inspect.isclass(target) else target
    parameters = inspect.signature(target).parameters
    try:
        hints = get_type_hints(function)
    except (NameError, TypeError):  # annotations that cannot be resolved at run time say nothing
        hints = {}
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for key, value in node.items():
        if key in ("_target_", "_partial_", "_convert_", "_recursive_", "_args_"):
            continue
        if key not in parameters and not open_ended:
            raise XRayError(f"{where}{key} is not an argument of {node['_target_']}. {did_you_mean(key, parameters)}")
        if key in hints:
            _check_value(value, hints[key], f"{where}{key}")


def _check_value(value: Any, hint: Any, name: str) -> None:
    from pydantic import ConfigDict, TypeAdapter, ValidationError
    from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError

    if isinstance(value, dict) or (isinstance(value, list) and any(isinstance(v, dict) for v in value)):
        return  # nodes of their own, checked against their own targets
    try:
        TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True)).validate_python(value)
    except ValidationError as error:
        choices = list(_literals(hint))
        advice = did_you_mean(value, choices) if choices else f"Expected {_readable(hint)}."
        raise XRayError(f"{name}={value!r} is not valid. {advice}") from error
    except (PydanticSchemaGenerationError, PydanticUserError):
        return  # a type that pydantic cannot describe, such as a protocol


def _literals(hint: Any) -> Iterator[Any]:
    if get_origin(hint) is Literal:
        yield from get_args(hint)
    else:
        for inner in get_args(hint):
            yield from _literals(inner)


def _readable(hint: Any) -> str:
    text = hint.__name__ if inspect.isclass(hint) and not get_args(hint) else str(hint)
    return text.replace("typing.", "").replace("NoneType", "null").replace("None", "null")
