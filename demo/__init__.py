"""`make demo`: the main job shown on the embedded default, every claim checked.

It uses only what a user has: the `forefill` command line, the HTTP API, and tiktoken itself to check every id. Nothing
of Forefill's own code is imported.
"""
