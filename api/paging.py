"""How long a page is, and after which item it begins."""

from typing import Annotated

from fastapi import Depends, Query

from pipeline.errors import InvalidInput


def _after(after: Annotated[str, Query(description="The `next` of the page before.")] = "") -> str:
    if "\0" in after:
        raise InvalidInput("after: holds a NUL character", item="after")
    return after


Limit = Annotated[int, Query(ge=1, le=1000, description="Items of a page at most.")]
After = Annotated[str, Depends(_after)]
