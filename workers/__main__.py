"""Celery's commands on our application: `python -m workers worker … · beat … · flower …`."""

from pipeline.ending import end_at_once

if __name__ == "__main__":
    end_at_once()

import sys  # whatever is loaded, even this, after the line above

from pipeline.loading import collector_at_rest

with collector_at_rest():
    from celery.bin.celery import main

if __name__ == "__main__":
    sys.argv[1:1] = ["-A", "workers.main"]
    sys.exit(main())
