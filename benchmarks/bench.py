"""What every row is given: the text, the sizes, a folder, and a place to say what is going on."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from benchmarks.corpus import Corpus, Document
from benchmarks.sizes import Sizes


@dataclass
class Bench:
    """One run of the benchmark."""

    corpus: Corpus
    sizes: Sizes
    folder: Path
    """Temporary; each row makes one of its own in it."""
    say: Callable[[str], None]
    """Tells whoever waits what is being done."""
    million: bool = False
    """Whether the corpus of a million passages is filled too."""
    _folders: int = field(default=0, init=False)

    @cached_property
    def documents(self) -> list[Document]:
        """Documents for filling, of all packages."""
        return self.corpus.spread(self.sizes.fill_bytes)

    def new_folder(self) -> Path:
        """Make a folder for one stack."""
        self._folders += 1
        made = self.folder / f"{self._folders:02d}"
        made.mkdir(parents=True)
        return made
