"""Captions against reference captions: BLEU, METEOR, ROUGE-L and CIDEr, each by `pycocoevalcap`'s own scorer.

Its `COCOEvalCap` is not used: it also starts SPICE, which downloads half a gigabyte when it is first called.
"""

import contextlib
import functools
import io
import itertools
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from vlc.errors import ConfigError, DataError
from vlc.evaluate.metrics.intervals import Figure
from vlc.evaluate.metrics.ptb import NAMES, tokenize

_ORDER = 4
_SPICE_NEEDS = "stanford-corenlp-3.6.0.jar"


def reference_figures(
    captions: Sequence[str], references: Sequence[Sequence[str]], *, tokenizer: str = "auto"
) -> tuple[dict[str, Figure], dict[str, str]]:
    """`bleu1` to `bleu4`, `meteor`, `rouge_l`, `cider` and `spice`, as far as they can be had.

    CIDEr's document frequencies are those of all the references given, also where images are drawn again for an
    interval. METEOR and BLEU are of the corpus, not means over images.

    Args:
        captions: One of each image.
        references: Those of each image, at least one.
        tokenizer: See `tokenize`.

    Returns:
        The figures, and what to know of them: by what words were cut, and why a figure is missing.

    Raises:
        ConfigError: `pycocoevalcap` is not installed.
    """
    try:
        from pycocoevalcap.cider.cider import Cider
        from pycocoevalcap.rouge.rouge import Rouge
    except ImportError as error:
        raise ConfigError(f"Caption metrics need pycocoevalcap ({error}): pip install 'vlc-jax[eval]'.") from error
    if not captions or not all(references):
        without = sum(not some for some in references)
        raise DataError(
            f"Captions are compared with references, but {without} of {len(captions)} images have none."
            if captions
            else "There is no caption to be scored."
        )
    counts = [1, *map(len, references)]
    flat, used = tokenize([*captions, *(text for some in references for text in some)], use=tokenizer)
    hyps = {i: [text] for i, text in enumerate(flat[: len(captions)])}
    ends = np.cumsum([len(captions), *counts[1:]])
    refs = {i: flat[start:end] for i, (start, end) in enumerate(itertools.pairwise(ends))}

    figures = {f"bleu{n + 1}": figure for n, figure in enumerate(bleu(refs, hyps))}
    notes = {"words": NAMES[used]}
    meteor = _meteor(refs, hyps)
    if isinstance(meteor, Figure):
        figures["meteor"] = meteor
    else:
        notes["meteor"] = meteor
    figures["rouge_l"] = Figure.mean(Rouge().compute_score(refs, hyps)[1])
    figures["cider"] = Figure.mean(Cider().compute_score(refs, hyps)[1])
    if len({tuple(some) for some in refs.values()}) == 1:  # every word is then in all documents, and weighs log 1
        notes["cider"] = (
            "CIDEr is 0 by its definition: it weighs words by how few images' references have them, and here "
            + ("there is one image." if len(refs) == 1 else "all images have the same references.")
        )
    spice = _spice(refs, hyps)
    if isinstance(spice, Figure):
        figures["spice"] = spice
    else:
        notes["spice"] = spice
    return figures, notes


def bleu(refs: Mapping[int, list[str]], hyps: Mapping[int, list[str]]) -> list[Figure]:
    """BLEU-1 to BLEU-4 (Papineni et al., ACL 2002), by the counts of `pycocoevalcap`; the nearest reference's length.

    Args:
        refs: References of each image, words with spaces between.
        hyps: A list with the one caption of each.
    """
    from pycocoevalcap.bleu.bleu_scorer import BleuScorer

    scorer = BleuScorer(n=_ORDER)
    for i in hyps:
        scorer += (hyps[i][0], refs[i])
    counts = scorer.ctest
    correct, guess = (np.asarray([row[key] for row in counts], np.float64) for key in ("correct", "guess"))
    length = np.asarray([row["testlen"] for row in counts], np.float64)
    nearest = np.asarray([min((abs(n - row["testlen"]), n) for n in row["reflen"])[1] for row in counts], np.float64)

    def score(rows: Int[np.ndarray, " N"], order: int) -> float:
        precision = (correct[rows].sum(axis=0) + 1e-15) / (guess[rows].sum(axis=0) + 1e-9)  # as pycocoevalcap
        ratio = (length[rows].sum() + 1e-15) / (nearest[rows].sum() + 1e-9)
        brevity = np.exp(1 - 1 / ratio) if ratio < 1 else 1.0
        return float(np.prod(precision[:order]) ** (1 / order) * brevity)

    everything = np.arange(len(counts))
    return [
        Figure(score(everything, order), lambda rows, order=order: score(rows, order)) for order in range(1, _ORDER + 1)
    ]


def meteor_scores(captions: Sequence[str], references: Sequence[Sequence[str]]) -> Float[np.ndarray, " N"] | str:
    """METEOR of each caption, 0 of one without references; or why there is none."""
    told = [i for i, some in enumerate(references) if some]
    flat, _ = tokenize([*(captions[i] for i in told), *(text for i in told for text in references[i])])
    ends = np.cumsum([len(told), *(len(references[i]) for i in told)])
    refs = {i: flat[start:end] for i, (start, end) in enumerate(itertools.pairwise(ends))}
    scores = np.zeros(len(captions))
    if told:
        found = _run_meteor(refs, {i: [flat[i]] for i in refs})
        if isinstance(found, str):
            return found
        scores[told] = found[1]
    return scores


def _meteor(refs: dict, hyps: dict) -> Figure | str:
    """METEOR of the corpus, or why there is none."""
    found = _run_meteor(refs, hyps)
    return found if isinstance(found, str) else Figure(float(found[0]))


def _run_meteor(refs: dict, hyps: dict) -> tuple[float, Sequence[float]] | str:
    if shutil.which("java") is None:
        return "METEOR needs Java, which is not on the PATH."
    try:
        return _meteor_program().compute_score(refs, hyps)
    except ImportError:
        return "METEOR needs pycocoevalcap: pip install 'vlc-jax[eval]'."
    except (OSError, ValueError) as error:
        _meteor_program.cache_clear()
        return f"METEOR's Java program failed ({error})."


@functools.cache
def _meteor_program() -> Any:
    """Started once: it reads its tables for seconds."""
    from pycocoevalcap.meteor.meteor import Meteor

    return Meteor()


def _spice(refs: dict, hyps: dict) -> Figure | str:
    """SPICE, where its parser was downloaded before, or why there is none."""
    from pycocoevalcap.spice import spice

    if not (Path(str(spice.__file__)).parent / "lib" / _SPICE_NEEDS).is_file():
        return "SPICE is left out: its parser, Stanford CoreNLP 3.6.0, is not there (pycocoevalcap downloads it)."
    if shutil.which("java") is None:
        return "SPICE needs Java, which is not on the PATH."
    with contextlib.redirect_stdout(io.StringIO()):
        by_image = spice.Spice().compute_score(refs, hyps)[1]
    return Figure.mean(np.asarray([row["All"]["f"] for row in by_image]))
