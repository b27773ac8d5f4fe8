"""A page on this computer to try a checkpoint on. See python -m xray_lightning.serve --help."""

import logging
import socket
from ipaddress import ip_address
from typing import Any

from omegaconf import DictConfig

from xray_lightning.cli import command
from xray_lightning.errors import XRayError

log = logging.getLogger(__name__)
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
MOST_AT_ONCE = 8  # requests: so many files can be in memory


@command("serve")
def main(cfg: DictConfig) -> None:
    try:
        import uvicorn

        from xray_lightning.web.app import application
    except ModuleNotFoundError as error:
        raise XRayError(
            f'The page needs {error.name}, which is not installed: pip install "xray-lightning[serve]".'
        ) from error
    limit = cfg.upload_limit
    if isinstance(limit, bool) or not isinstance(limit, int | float) or not 0 < limit <= 1000:
        raise XRayError(f"upload_limit={limit} is not valid. Give megabytes, above 0 and up to 1000.")
    point = None if cfg.operating_point is None else str(cfg.operating_point)
    with _bound(cfg.host, cfg.port) as listening:
        from xray_lightning.predict import texts  # PyTorch takes seconds to import, which an error need not wait for
        from xray_lightning.predictor import load
        from xray_lightning.web.answers import Answers, page_of

        predictor = load(texts(cfg.ckpt), device=str(cfg.device), operating_point=point)
        port = listening.getsockname()[1]
        shown = f"[{cfg.host}]" if ":" in cfg.host else cfg.host
        app = application(
            Answers(predictor),
            page_of(predictor, limit),
            most_bytes=int(limit * 1e6),
            hosts=LOOPBACK if _is_loopback(cfg.host) else ("*",),
        )
        if not _is_loopback(cfg.host):
            log.warning(
                "Whoever can reach this computer can use the page: it asks for no password and is not encrypted."
            )
        log.info("Open http://%s:%d in a browser. Ctrl-C ends it.", shown, port)
        settings: dict[str, Any] = {"log_level": "warning", "access_log": False, "server_header": False}
        config = uvicorn.Config(app, lifespan="off", limit_concurrency=MOST_AT_ONCE, **settings)
        uvicorn.Server(config).run(sockets=[listening])


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _bound(host: Any, port: Any) -> socket.socket:
    """A socket that listens, so that a port that is taken shows before anything is loaded."""
    if not isinstance(host, str) or not host:  # an empty one would be every address of this computer
        raise XRayError(f"host={host} is not valid. Give an address, such as 127.0.0.1 for this computer alone.")
    if isinstance(port, bool) or not isinstance(port, int) or not 0 <= port <= 65535:
        raise XRayError(f"port={port} is not valid. Give a number from 0 to 65535; 0 takes one that is free.")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise XRayError(
            f"host={host} port={port} cannot be listened on ({error.strerror}). Give an address of this computer, and "
            "another port=<number>; port=0 takes one that is free."
        ) from error
    return listening


if __name__ == "__main__":
    main()
