"""`vlc data stats`: what a data set consists of, in numbers."""

from collections import Counter
from typing import Any

import numpy as np

from vlc.curate import duplicates
from vlc.curate.survey import Survey, scripts_of
from vlc.data.captions import split_sentences
from vlc.data.record import WORDS, Source, add_counts

_PERCENTILES = (0, 5, 50, 95, 100)
_SHOWN = 3  # problems that are shown word by word
_NEAR = 6  # bits that hashes of duplicates may differ by


def summarise(survey: Survey, source: Source) -> dict[str, Any]:
    """Numbers of a survey, as plain values.

    Args:
        survey: Of the records that the source has.
        source: What it left out when it was indexed is counted too.

    Returns:
        `records`, `usable`, `left out` by reason; by caption source, `captions` with their count, words and sentences
        (percentiles 0, 5, 50, 95 and 100) and `scripts`; `images` with sides, aspect, bytes and formats; `duplicates`
        by perceptual hash, and captions that several images share.
    """
    usable = survey.usable
    return {
        "records": len(survey) + sum(source.skipped.values()),
        "usable": int(usable.sum()),
        "left out": {WORDS.get(name, name): n for name, n in add_counts(source.skipped, survey.skipped()).items()},
        "problems": [*source.problems, *survey.messages(_SHOWN)][:_SHOWN],
        "captions": {source: _captions(survey, source) for source in _sources(survey)},
        "images": _images(survey, usable) if usable.any() else {},
        "duplicates": _duplicates(survey, usable) if usable.any() else {},
    }


def caption_words(survey: Survey, source: str) -> np.ndarray:
    """Words of every caption of a source."""
    return np.array([len(survey.texts[i].split()) for i in np.flatnonzero(survey.sources == source)])


def _sources(survey: Survey) -> list[str]:
    return sorted(set(survey.sources.tolist()))


def _captions(survey: Survey, source: str) -> dict[str, Any]:
    chosen = np.flatnonzero(survey.sources == source)
    scripts: dict[str, int] = {}
    different: set[int] = set()
    sentences = []
    for text in (survey.texts[i] for i in chosen):
        counts = scripts_of(text)
        script = max(counts, key=lambda name: counts[name]) if counts else "none"
        scripts[script] = scripts.get(script, 0) + 1
        different.add(hash(text))
        sentences.append(max(1, len(split_sentences(text))))
    return {
        "count": len(chosen),
        "images": len(np.unique(survey.owner[chosen])),
        "different": len(different),
        "words": _spread(caption_words(survey, source)),
        "sentences": _spread(np.array(sentences)),
        "scripts": dict(sorted(scripts.items(), key=lambda pair: -pair[1])),
    }


def _images(survey: Survey, usable: np.ndarray) -> dict[str, Any]:
    width, height = survey.numbers("width")[usable], survey.numbers("height")[usable]
    formats, counts = np.unique(np.array(survey.table.column("format").to_pylist())[usable], return_counts=True)
    return {
        "shorter side": _spread(np.minimum(width, height)),
        "longer side": _spread(np.maximum(width, height)),
        "aspect": _spread(np.maximum(width, height) / np.maximum(np.minimum(width, height), 1)),
        "bytes": _spread(survey.numbers("bytes")[usable]),
        "formats": dict(zip(formats.tolist(), counts.tolist(), strict=True)),
    }


def _duplicates(survey: Survey, usable: np.ndarray) -> dict[str, Any]:
    groups = duplicates.groups(survey.numbers("hash")[usable], _NEAR)
    _, sizes = np.unique(groups, return_counts=True)
    pairs = {(hash(text.casefold()), owner) for owner, text in zip(survey.owner.tolist(), survey.texts, strict=True)}
    shared = Counter(text for text, _ in pairs)
    keys = np.array(survey.table.column("key").to_pylist(), object)[usable]
    return {
        "groups that look alike": int((sizes > 1).sum()),
        "images in them": int(sizes[sizes > 1].sum()),
        "largest": int(sizes.max()),
        "keys that occur again": len(keys) - len(set(keys.tolist())),
        "captions of several images": sum(images > 1 for images in shared.values()),
    }


def _spread(values: np.ndarray) -> list[float]:
    return [round(float(value), 3) for value in np.percentile(values, _PERCENTILES)] if len(values) else []


def as_table(found: dict[str, Any]) -> str:
    """The numbers as text to read."""
    lines = [f"{found['usable']:,} of {found['records']:,} records can be used"]
    lines += [f"  {count:,} left out: {reason}" for reason, count in found["left out"].items()]
    lines += [f"    {problem}" for problem in found["problems"]]
    head = f"{'captions':16}{'count':>10}{'images':>10}{'different':>11}  words 5% 50% 95%   sentences 50% 95%  scripts"
    lines += ["", head]
    for source, row in found["captions"].items():
        words, sentences = row["words"], row["sentences"]
        scripts = ", ".join(f"{name} {count / row['count']:.1%}" for name, count in list(row["scripts"].items())[:3])
        lines.append(
            f"{source:16}{row['count']:10,}{row['images']:10,}{row['different']:11,}  "
            f"{words[1]:8.0f}{words[2]:4.0f}{words[3]:4.0f}   {sentences[2]:13.0f}{sentences[3]:4.0f}  {scripts}"
        )
    if found["images"]:
        lines += ["", f"{'images':16}{'least':>10}{'5%':>10}{'50%':>10}{'95%':>10}{'most':>10}"]
        for name in ("shorter side", "longer side", "aspect", "bytes"):
            lines.append(f"{name:16}" + "".join(f"{value:10,.4g}" for value in found["images"][name]))
        lines.append("formats         " + ", ".join(f"{n:,} {name}" for name, n in found["images"]["formats"].items()))
        lines += ["", *(f"{count:10,}  {name}" for name, count in found["duplicates"].items())]
    return "\n".join(lines)
