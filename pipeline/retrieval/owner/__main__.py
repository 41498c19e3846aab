"""`python -m pipeline.retrieval.owner`: run the embedded Qdrant engine. The key comes from FOREFILL_QDRANT_API_KEY."""

from pipeline.ending import end_at_once

if __name__ == "__main__":
    end_at_once()

import argparse  # whatever is loaded, even this, after the line above
import sys
from pathlib import Path

from pipeline.loading import collector_at_rest

with collector_at_rest():
    from pipeline.errors import ForefillError
    from pipeline.listening import limits_of
    from pipeline.retrieval.owner.server import OwnerOptions, run_owner
    from pipeline.settings import load_settings
    from pipeline.telemetry.logs import start_logging


def main() -> int:
    """Parse arguments, serve, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.retrieval.owner", description=__doc__)
    parser.add_argument("--data-dir", type=Path, help="folder of the shards (default: FOREFILL_QDRANT_DATA_DIR)")
    parser.add_argument("--host", default="127.0.0.1", help="loopback address to listen on")
    parser.add_argument("--port", type=int, default=6333, help="port to listen on; 0 takes a free one")
    parser.add_argument("--socket", type=Path, help="Unix socket to listen on instead of a port")
    arguments = parser.parse_args()
    try:
        settings = load_settings()
        start_logging("qdrant", level=settings.log_level)
        key = settings.qdrant_api_key
        run_owner(
            OwnerOptions(
                data_dir=arguments.data_dir or settings.qdrant_data_dir,
                api_key="" if key is None else key.get_secret_value(),
                host=arguments.host,
                port=arguments.port,
                socket_path=arguments.socket,
                limits=limits_of(settings),
            )
        )
    except ForefillError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201  # the one sentence a user reads
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
