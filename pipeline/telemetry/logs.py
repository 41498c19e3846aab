"""Structured logs: an event name and fields, one JSON object a line on standard error.

Document text, questions and secrets are never logged.
"""

import logging
import platform
import sys

import structlog

from pipeline.version import __version__


def start_logging(process: str, *, level: str) -> None:
    """Configure the log of a service, and say in its first line which process of which version this is.

    Args:
        process: What users call it: `api`, `worker` and so on.
        level: Lowest level that is written: `DEBUG`, `INFO`, `WARNING` or `ERROR`.
    """
    configure_logging(level)
    python = platform.python_version()
    get_logger(__name__).info("process.started", process=process, version=__version__, python=python)


def configure_logging(level: str = "INFO") -> None:
    """Send every log line, the standard library's included, to standard error as JSON.

    Args:
        level: Lowest level that is written: `DEBUG`, `INFO`, `WARNING` or `ERROR`.
    """
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=level, force=True)
    for chatty in ("httpx", "alembic.runtime.migration"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, logging.getLevelName(level)))
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """Return the logger of a module; configure nothing."""
    logger: structlog.stdlib.BoundLogger = structlog.get_logger(name)
    return logger
