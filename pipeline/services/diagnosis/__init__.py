"""Is the deployment sound: one check per thing that has to hold, each with what to do when it does not."""

from pipeline.services.diagnosis.examination import examine
from pipeline.services.diagnosis.findings import Finding, Level

__all__ = ["Finding", "Level", "examine"]
