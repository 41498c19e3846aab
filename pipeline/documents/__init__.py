"""What callers own and what becomes of it: documents, the passages they are cut into, and where they are read from."""
