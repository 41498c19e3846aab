"""What Forefill costs and saves, measured beside what people would do instead: `python -m benchmarks`, in the checkout.

Both sides of a row run in turn in one process, on the same text, so that a busy machine slows both. Nothing is claimed
that this does not print.
"""
