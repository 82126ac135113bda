"""What can be asked of a caption: its length, how well it should fit the image, what kind of text it should be.

One mechanism for three: each control has a slot before the words of a caption, whose token is learned in training and
set when a caption is written. 0 in a slot leaves the control out. Training leaves out a share of them, so that
a model can also be asked for nothing.

- `length`: words, `LENGTH-k` of FlexCap (Dwibedi et al., 2024, arXiv 2403.12026, section 3.1).
- `alignment`: the bin of the similarity of image and caption, 1 the worst (NoC, Kang et al., ICCV 2023, arXiv
  2212.13563, section 3.2).
- `source`: the caption source, `alt`, `short`, `long`.
"""

import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from vlc.errors import ConfigError

KINDS = ("length", "alignment", "source")
LEARNT_CONTROLS = ("edges", "best", "lengths", "bins", "present")  # settings that are filled in from data


def sources_of(control: Any) -> tuple[str, ...]:
    """The caption sources that are told apart, of `config.model.decoder.control`."""
    return tuple(filter(None, (name.strip() for name in control.sources.split(","))))


def slot_sizes(control: Any) -> tuple[int, ...]:
    """Values of each slot, 0 (left out) included, of `config.model.decoder.control`."""
    sizes = (control.length, control.alignment, len(sources_of(control)))
    return tuple(size + 1 for size in sizes if size)


@dataclass(frozen=True)
class Controls:
    """The controls of a captioner.

    Attributes:
        length: The longest caption that is asked for by length, in words; 0: no such control.
        bins: Of alignment; 0: no such control.
        edges: Between the bins, `bins - 1` similarities, rising.
        best: The bin that `alignment=best` asks for; 0: the highest.
        sources: Caption sources that are told apart; names may end in `*`.
        dropout: Chance in training that a control is left out.
        lengths: Lengths that training showed; empty: not known.
        shown_bins: Bins that training showed; empty: not known.
        present: Names of `sources` that training showed; empty: not known.
    """

    length: int = 0
    bins: int = 0
    edges: tuple[float, ...] = ()
    best: int = 0
    sources: tuple[str, ...] = ()
    dropout: float = 0.1
    lengths: tuple[int, ...] = ()
    shown_bins: tuple[int, ...] = ()
    present: tuple[str, ...] = ()

    @classmethod
    def of(cls, config: Any) -> "Controls":
        """From a whole config."""
        control = config.model.decoder.control
        return cls(
            control.length, control.alignment, tuple(control.edges), control.best, sources_of(control),
            config.objectives.caption.control_dropout, tuple(map(int, control.lengths)),
            tuple(map(int, control.bins)), tuple(control.present),
        )  # fmt: skip

    @property
    def kinds(self) -> tuple[str, ...]:
        """Those that this captioner has, in the order of their slots."""
        return tuple(
            kind for kind, size in zip(KINDS, (self.length, self.bins, len(self.sources)), strict=True) if size
        )

    def describe(
        self, text: str, source: str, score: float, rng: np.random.Generator, *, cut: bool = False
    ) -> np.ndarray:
        """The slots of a caption that is trained on, `[S]` int32.

        Args:
            text: The caption.
            source: Its caption source.
            score: Similarity with its image; NaN where it is not known.
            rng: Chooses which are left out.
            cut: The model will not see all of it, so its length is not said.
        """
        words = len(text.split())
        values = {
            "length": words if words <= self.length and not cut else 0,
            "alignment": 0 if not np.isfinite(score) else 1 + bisect_right(self.edges, score),
            "source": next((i + 1 for i, name in enumerate(self.sources) if fnmatchcase(source, name)), 0),
        }
        said = rng.random(len(self.kinds)) >= self.dropout
        return np.asarray([values[kind] for kind in self.kinds], np.int32) * said

    def encode(self, request: Mapping[str, Any]) -> np.ndarray:
        """The slots of what a caption is asked to be, `[S]` int32.

        Args:
            wanted: `length` in words, `alignment` as a bin from 1 or "best", `source` by name; what is not named is
                left out.

        Raises:
            ConfigError: The captioner has no such control, or the value is not one that it has learned.
        """
        for kind in request:
            if kind not in self.kinds:
                known = ", ".join(self.kinds) or "none: it was trained with config.model.decoder.control empty"
                raise ConfigError(f'control "{kind}" is not one that this captioner has; it has {known}.')
        slots = np.zeros(len(self.kinds), np.int32)
        for kind, value in request.items():
            slots[self.kinds.index(kind)] = self._slot(kind, value)
        return slots

    def _slot(self, kind: str, value: Any) -> int:
        if kind == "source":
            names = [name for name in self.sources if fnmatchcase(str(value), name)]
            if not names:
                raise ConfigError(f'control source="{value}": this captioner knows {", ".join(self.sources)}.')
            if self.present and names[0] not in self.present:
                raise ConfigError(
                    f'control source="{value}": training showed no caption of this source, only of '
                    f"{', '.join(self.present)}."
                )
            return 1 + self.sources.index(names[0])
        most = self.length if kind == "length" else self.bins
        number = (self.best or self.bins) if kind == "alignment" and value == "best" else value
        if not str(number).isdigit() or not 1 <= int(number) <= most:
            best = ' or "best"' if kind == "alignment" else ""
            raise ConfigError(f"control {kind}={value}: it must be a whole number from 1 to {most}{best}.")
        shown = self.lengths if kind == "length" else self.shown_bins
        if shown and int(number) not in shown:
            raise ConfigError(
                f"control {kind}={value}: training showed no caption of this {kind}, so the captioner would ignore it. "
                f"It showed {_as_ranges(shown)}."
            )
        return int(number)


def _as_ranges(numbers: Sequence[int]) -> str:
    """`2, 3, 4, 9` as `2 to 4, 9`."""
    groups: list[list[int]] = []
    for number in numbers:
        if groups and number == groups[-1][-1] + 1:
            groups[-1].append(number)
        else:
            groups.append([number])
    return ", ".join(str(g[0]) if len(g) == 1 else f"{g[0]} to {g[-1]}" for g in groups)


def parse_control(text: str) -> dict[str, Any]:
    """Reads `length=8,alignment=best,source=long`.

    Raises:
        ConfigError: It is not of this form.
    """
    control: dict[str, Any] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        if not re.fullmatch(r"\w+\s*=\s*[^=]+", part):
            raise ConfigError(f'--control "{text}": "{part}" is not of the form length=8.')
        name, _, value = (piece.strip() for piece in part.partition("="))
        control[name] = int(value) if value.isdigit() else value
    return control


def even_bins(scores: Sequence[float], bins: int) -> tuple[tuple[float, ...], int]:
    """Bins of one width from the lowest to the highest score, as NoC has them.

    Returns:
        The edges between them, and the highest bin that has at least half of an even share of the captions: of those
        above it a captioner sees too few to write like them.

    Raises:
        ConfigError: There are no scores, or all are the same.
    """
    scores = [score for score in scores if np.isfinite(score)]
    if not len(scores) or min(scores) == max(scores):
        raise ConfigError(
            f"config.model.decoder.control.alignment={bins}: the captions of the training data have "
            f"{'one score, all of them' if len(scores) else 'no scores'}. "
            "`vlc caption MODEL --data DATA --out DIR --num-return-sequences 0` writes them beside the captions."
        )
    edges = np.linspace(min(scores), max(scores), bins + 1)[1:-1]
    filled = np.bincount(np.digitize(scores, edges), minlength=bins) >= len(scores) / (2 * bins)
    return tuple(map(float, edges)), 1 + int(np.flatnonzero(filled)[-1])
