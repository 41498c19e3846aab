"""Runs and jobs: what is to be done, who owns it, what became of it. SQL decides; the broker only wakes workers."""
