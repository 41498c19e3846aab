"""A clock that stands still until a test moves it."""


class ManualClock:
    """Callable like `time.monotonic`."""

    def __init__(self, now_s: float = 1000.0) -> None:
        self.now_s = now_s
        """What it shows, seconds."""

    def __call__(self) -> float:
        return self.now_s

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now_s += seconds
