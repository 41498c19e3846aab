"""A randomized fault campaign against a whole stack: `python -m tests.campaign` (docs/campaign.md)."""
