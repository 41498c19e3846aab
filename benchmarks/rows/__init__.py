"""The rows of the table, one module a subject: each has `measure(bench)`, which returns its rows."""
