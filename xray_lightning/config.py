"""Configuration: where it lies, resolvers that the YAML files use, and building what it names."""

import hashlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from traceback import walk_tb
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from xray_lightning.errors import XRayError

CONF = Path(__file__).resolve().parent.parent / "conf"
LONGEST_SLUG = 60  # letters
LONGEST_FOLDER = 200  # bytes, of 255 that file systems take: the time may come before it


def slug(value: Any) -> str:
    """A name that is safe as one folder on any file system; long ones end in a digest."""
    text = "-".join(map(str, value)) if isinstance(value, list | tuple | ListConfig) else str(value)
    safe = re.sub(r"[^\w.+=-]+", "-", text).strip("-.") or "none"
    if len(safe) > LONGEST_SLUG:
        safe = f"{safe[: LONGEST_SLUG - 9]}-{_digest(text)}"  # 60 in all: the slug of a slug is itself
    return safe


def is_folder_name(text: str) -> bool:
    """Whether it is one folder that no file system and no command takes for anything else, such as `..` or `-x`."""
    return bool(re.fullmatch(r"[\w+=][\w.+=-]*", text))


def folder_name(text: str) -> str:
    """A name made of slugs, cut to what any file system takes; what is cut off is told apart by a digest."""
    whole = text.encode(errors="surrogateescape")
    if len(whole) <= LONGEST_FOLDER:
        return text
    return f"{whole[: LONGEST_FOLDER - 9].decode(errors='ignore')}-{_digest(text)}"


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=4).hexdigest()


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
        return "bf16-mixed" if _cpu_prefers_bfloat16() else "32-true"
    return "32-true"


def _cpu_prefers_bfloat16() -> bool:
    """Whether the processor multiplies matrices in bfloat16 faster than in float32.

    With AMX it does. AVX-512's instruction for it is twice as fast on AMD (Zen 4 and later), but slower on Intel since
    Sapphire Rapids, where it starts four times less often than one for float32. Measured on two such cores with AMX
    hidden: 166 GFLOPS in bfloat16 and 307 in float32, 18 and 26 images/s of ResNet-50.
    """
    import torch

    can: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # PyTorch 2.10 does not tell
    is_amd = str(can.get("cpu_name")).startswith("AMD ")
    return bool(can.get("amx_bf16") or (is_amd and can.get("avx512_bf16")))


def register_resolvers() -> None:
    for resolver in (slug, folder_name, user_cache, auto_precision):
        OmegaConf.register_new_resolver(resolver.__name__, resolver, replace=True)


def refuse_cut_path(url: str, key: str) -> None:
    """Raises XRayError for a path in the URL of a SQLite file that would be read as another file's: queries begin at
    a question mark, and MLflow reads percent signs and number signs as those of a web address."""
    if url.startswith("sqlite:///") and any(mark in url for mark in "?#%"):
        raise XRayError(f"{key}={url} would be another file: it has a ?, # or %. Set {key}=sqlite:///<file>.")


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


def build(cfg: Any, expects: type = object, **more: Any) -> Any:
    """Calls what a node's `_target_` names, with plain arguments and `more`, which is passed on as it is: Hydra would
    take a name such as ${x} in it for an interpolation. An XRayError in there arrives as one.

    Raises XRayError for a call that does not fit what is called, and where it does not give what it `expects`.
    """
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    if not isinstance(cfg, dict | DictConfig):
        raise XRayError(f"{cfg!r} cannot be built: it has no keys, of which _target_ says what to make.")
    try:
        made = instantiate(cfg, _convert_="all", **{"_partial_": True} if more else {})
        made = made(**more) if more and callable(made) else made
    except (InstantiationException, TypeError) as error:
        cause = error.__cause__ if isinstance(error, InstantiationException) else error
        if isinstance(cause, XRayError):
            raise cause from cause.__cause__
        if isinstance(cause, TypeError) and _is_refusal(cause):
            raise XRayError(f"{cfg['_target_']} cannot be called as configured: {cause}.") from error
        raise
    if not isinstance(made, expects):
        raise XRayError(
            f"_target_={cfg.get('_target_')} gives a {type(made).__name__}, where a {expects.__name__} is needed."
        )
    return made


def _is_refusal(error: TypeError) -> bool:
    """Whether a call itself did not fit, such as for an argument that is missing, and nothing that was called ran."""
    *_, (frame, _) = walk_tb(error.__traceback__)
    return frame.f_globals["__name__"] == __name__ or frame.f_globals["__name__"].startswith("hydra.")
