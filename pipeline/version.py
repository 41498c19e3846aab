"""Which Forefill this is: one place that the package's metadata, the command line, the API and the log are told by."""

__version__ = "0.1.0"
