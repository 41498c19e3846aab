import numpy as np
import orjson

from api.bodies import json_answer


def test_token_ids_are_written_from_their_array() -> None:
    ids = np.array([1, 2, 4_294_967_295], dtype=np.uint32)
    ids.setflags(write=False)
    assert orjson.loads(json_answer({"token_ids": ids}).body) == {"token_ids": [1, 2, 4_294_967_295]}
