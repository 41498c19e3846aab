"""Embeddings and the vector index: protocols, Qdrant, an in-memory twin, and the embedded engine's owner process."""
