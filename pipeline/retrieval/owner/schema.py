"""Shape of a collection: which vectors it has. Decides what may enter a shard, because the engine does not."""

from collections.abc import Iterable
from typing import Any, Self
from uuid import UUID

import numpy as np
import qdrant_edge as edge
from pydantic import BaseModel, ConfigDict
from qdrant_client.http import models

from pipeline.errors import InvalidInput

MAX_DIMENSION = 65_536
MAX_SPARSE_WEIGHT = 1e15
"""Products of two weights, summed over a vector, stay finite in 32 bits below this."""
MAX_INDEX = 2**32 - 1
MAX_ID = 2**64 - 1


class CollectionSchema(BaseModel):
    """Named vectors of a collection; stored as JSON beside its shard."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dense: dict[str, int]
    """Name to dimension; all are compared by cosine."""
    sparse: dict[str, bool]
    """Name to whether weights are scaled by inverse document frequency."""

    @classmethod
    def parse(cls, request: models.CreateCollection) -> Self:
        """Read a request to create a collection.

        Raises:
            InvalidInput: It asks for something that the embedded engine would not do.
        """
        _refuse_others(request, {"vectors", "sparse_vectors"}, "create collection")
        vectors = request.vectors
        if isinstance(vectors, models.VectorParams):
            vectors = {"": vectors}
        schema = cls(
            dense={name: _dimension(name, params) for name, params in (vectors or {}).items()},
            sparse={name: _has_idf(name, params) for name, params in (request.sparse_vectors or {}).items()},
        )
        if not schema.dense and not schema.sparse:
            raise InvalidInput("A collection needs at least one vector")
        if shared := schema.dense.keys() & schema.sparse.keys():
            raise InvalidInput(f"Vector names must be unique: {sorted(shared)}")
        return schema

    def to_edge(self) -> edge.EdgeConfig:
        """Return the engine's configuration of a new shard with its log on."""
        return edge.EdgeConfig(
            vectors={
                name: edge.EdgeVectorParams(size=size, distance=edge.Distance.Cosine)
                for name, size in self.dense.items()
            },
            sparse_vectors={
                name: edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf if idf else None)
                for name, idf in self.sparse.items()
            },
            max_search_threads=1,
            wal_enabled=True,
        )

    def to_params(self) -> dict[str, Any]:
        """Return the `params` object of Qdrant's description of a collection."""
        dense = {name: {"size": size, "distance": "Cosine"} for name, size in self.dense.items()}
        return {
            "vectors": dense[""] if list(dense) == [""] else dense,
            "sparse_vectors": {name: {"modifier": "idf" if idf else "none"} for name, idf in self.sparse.items()},
            "shard_number": 1,
            "replication_factor": 1,
            "write_consistency_factor": 1,
            "on_disk_payload": True,
        }

    def point_vectors(self, vector: models.VectorStruct) -> dict[str, Any]:
        """Check the vectors of one point and return them as the engine takes them.

        Raises:
            InvalidInput: Unknown name, wrong kind or dimension, not finite, all zero, or a malformed sparse vector.
        """
        named = vector if isinstance(vector, dict) else {"": vector}
        return {name: self.vector(name, value) for name, value in named.items()}

    def vector(self, name: str, value: object) -> Any:
        """Check one vector, stored or asked for, and return it as the engine takes it.

        Raises:
            InvalidInput: As `point_vectors`.
        """
        if name in self.dense:
            return _dense(name, value, dimension=self.dense[name])
        if name in self.sparse:
            return _sparse(name, value)
        raise InvalidInput(f"Not existing vector name: {name!r}")


def point_key(point_id: object) -> int | UUID:
    """Return a point id in its one canonical form.

    Raises:
        InvalidInput: It is neither an unsigned integer below 2**64 nor a UUID.
    """
    if isinstance(point_id, UUID):
        return point_id
    if isinstance(point_id, int) and 0 <= point_id <= MAX_ID:
        return point_id
    if isinstance(point_id, str):
        try:
            return UUID(point_id)
        except ValueError:
            pass
    raise InvalidInput(f"Point id {str(point_id)[:80]!r} is neither an unsigned integer nor a UUID")


def point_keys(point_ids: Iterable[object], *, at_most: int) -> list[int | UUID | str]:
    """Return canonical point ids, refusing too many of them."""
    keys: list[int | UUID | str] = [point_key(point_id) for point_id in point_ids]
    if len(keys) > at_most:
        raise InvalidInput(f"At most {at_most} point ids in one request, not {len(keys)}")
    return keys


def _refuse_others(request: BaseModel, known: set[str], what: str) -> None:
    """Refuse parameters that have no effect here: ignoring them would be a lie."""
    for name in type(request).model_fields:
        if name not in known and getattr(request, name) not in (None, {}, []):
            raise InvalidInput(f"The embedded engine does not support {name!r} ({what}); run a Qdrant server for it")


def _dimension(name: str, params: models.VectorParams) -> int:
    _refuse_others(params, {"size", "distance"}, f"vector {name!r}")
    if params.distance is not models.Distance.COSINE:
        raise InvalidInput(f"The embedded engine compares by Cosine only, not {params.distance} (vector {name!r})")
    if not 1 <= params.size <= MAX_DIMENSION:
        raise InvalidInput(f"Vector {name!r}: size must be 1 to {MAX_DIMENSION}")
    return params.size


def _has_idf(name: str, params: models.SparseVectorParams) -> bool:
    _refuse_others(params, {"modifier"}, f"sparse vector {name!r}")
    return params.modifier is models.Modifier.IDF


def _dense(name: str, value: object, *, dimension: int) -> list[float]:
    if not isinstance(value, list) or (value and isinstance(value[0], list)):
        raise InvalidInput(f"Vector {name!r} must be one list of {dimension} numbers")
    if len(value) != dimension:
        raise InvalidInput(f"Vector dimension error: vector {name!r} has {dimension} dimensions, not {len(value)}")
    with np.errstate(over="ignore"):
        array = np.asarray(value, dtype=np.float32)
        squared_length = float(np.dot(array, array))
    if not (np.isfinite(squared_length) and squared_length > 0):
        raise InvalidInput(f"Vector {name!r} is zero, too small, too large or not finite")
    return value


def _sparse(name: str, value: object) -> edge.SparseVector:
    if not isinstance(value, models.SparseVector):
        raise InvalidInput(f"Vector {name!r} must be sparse: indices and values")
    if len(value.indices) != len(value.values):
        raise InvalidInput(f"Vector {name!r} has {len(value.indices)} indices, but {len(value.values)} values")
    if len(set(value.indices)) != len(value.indices):
        raise InvalidInput(f"Vector {name!r}: indices must be unique")
    if any(not 0 <= index <= MAX_INDEX for index in value.indices):
        raise InvalidInput(f"Vector {name!r}: indices must be 0 to {MAX_INDEX}")
    if any(not -MAX_SPARSE_WEIGHT <= weight <= MAX_SPARSE_WEIGHT for weight in value.values):
        raise InvalidInput(f"Vector {name!r}: values must be finite and at most {MAX_SPARSE_WEIGHT:g}")
    return edge.SparseVector(value.indices, value.values)
