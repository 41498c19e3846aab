"""The rows of the table, one module a subject: each has `measure(bench)`, which yields rows as they are measured."""
