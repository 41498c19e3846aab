"""Bodies: read once the caller may do what they ask for, by the reader that reads files, too."""

import json
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute

from api.access import authorize
from pipeline.errors import InvalidInput
from pipeline.json_input import read_json
from pipeline.services.presenting import to_json


class JsonRequest(Request):
    """A request whose body is read by `read_json`."""

    refusal: InvalidInput | None = None
    """Why the body was not taken."""

    async def json(self) -> Any:
        """Return the parsed body.

        Raises:
            json.JSONDecodeError: It cannot be taken; the framework hears of nothing else, `refusal` says why.
        """
        try:
            return read_json(await self.body())
        except InvalidInput as error:
            self.refusal = error if error.item is not None else InvalidInput(f"the body {error}")
            raise json.JSONDecodeError(str(error), "", 0) from error


class JsonRoute(APIRoute):
    """A route that asks `authorize` first, and whose bodies are then read by `read_json`."""

    def get_route_handler(self) -> Any:
        """Return the framework's handler, given a `JsonRequest`, for callers who may do this."""
        handle = super().get_route_handler()

        async def handle_json(request: Request) -> Response:
            authorize(request, self.path)
            read = JsonRequest(request.scope, request.receive)
            try:
                return await handle(read)
            except RequestValidationError:
                if read.refusal is not None:
                    raise read.refusal from None
                raise

        return handle_json


def json_answer(value: object, *, status: int = 200) -> Response:
    """Return an answer; numpy arrays in it become lists of numbers."""
    return Response(to_json(value), status_code=status, media_type="application/json")
