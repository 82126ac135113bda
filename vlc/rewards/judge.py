"""The dual encoder that judges captions: what training needs of it."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np


class Judge(Protocol):
    """A frozen model, such as `vlc.Model`, that encodes pictures and texts into one space."""

    @property
    def compares(self) -> Sequence[str]:
        """Whether it compares by `embed`."""
        ...

    @property
    def preprocess(self) -> Any:
        """Whose `size` is that of its pictures."""
        ...

    @property
    def scales(self) -> Any:
        """Whose `logit_scale` is its multiplier of similarities."""
        ...

    def encode_pixels(self, pixels: np.ndarray) -> Any:
        """Pictures `[B, size, size, 3]` uint8; the result has `embed` `[B, D]` of unit length."""
        ...

    def encode_text(self, texts: Sequence[str]) -> Any:
        """Texts; the result has `embed` `[N, D]` of unit length, and `grammar` `[N]`, log-odds that they are well
        formed, or `None`."""
        ...
