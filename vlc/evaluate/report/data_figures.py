"""`vlc data stats` as a picture."""

import matplotlib.pyplot as plt
import numpy as np

from vlc.curate.stats import caption_words
from vlc.curate.survey import Survey
from vlc.evaluate.report.figures import ACCENT, GOOD, INK, MUTED, SECOND, to_png

_COLOURS = (ACCENT, SECOND, GOOD, "#805ad5", "#b7791f", MUTED)
_SHOWN = 6


def stats_figure(survey: Survey, found: dict) -> bytes:
    """Caption lengths by source, scripts by source, image sizes, and what was left out or looks alike."""
    figure, axes = plt.subplots(2, 2, figsize=(10, 6.4), constrained_layout=True)
    sources = sorted(found["captions"], key=lambda name: -found["captions"][name]["count"])[:_SHOWN]
    _lengths(axes[0, 0], survey, sources)
    _scripts(axes[0, 1], found, sources)
    _sizes(axes[1, 0], survey)
    _losses(axes[1, 1], found)
    return to_png(figure)


def _lengths(axis, survey: Survey, sources: list[str]) -> None:
    longest = max((np.percentile(caption_words(survey, name), 99) for name in sources), default=1)
    edges = np.arange(-0.5, max(longest, 4) + 1.5, max(1, round(longest / 40)))
    for name, colour in zip(sources, _COLOURS, strict=False):
        words = caption_words(survey, name)
        axis.hist(
            words,
            edges,
            weights=np.full(len(words), 100 / len(words)),
            histtype="step",
            lw=1.8,
            label=name,
            color=colour,
        )
    axis.set(title="Words in a caption", xlabel="words", ylabel="% of the source's captions")
    if sources:
        axis.legend(frameon=False)


def _scripts(axis, found: dict, sources: list[str]) -> None:
    total: dict[str, int] = {}
    for name in sources:
        for script, count in found["captions"][name]["scripts"].items():
            total[script] = total.get(script, 0) + count
    shown = sorted(total, key=lambda script: -total[script])[:5]
    for row, name in enumerate(sources):
        start = 0.0
        captions = found["captions"][name]
        for script, colour in zip(shown, _COLOURS, strict=False):
            share = 100 * captions["scripts"].get(script, 0) / captions["count"]
            axis.barh(row, share, left=start, color=colour, height=0.6, label=script if row == 0 else None)
            start += share
        axis.barh(row, 100 - start, left=start, color="#e2e8f0", height=0.6)
    axis.set_yticks(range(len(sources)), sources)
    axis.invert_yaxis()
    axis.set(title="Scripts", xlabel="% of captions", xlim=(0, 100))
    axis.legend(frameon=False, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.2))


def _sizes(axis, survey: Survey) -> None:
    width, height = survey.numbers("width")[survey.usable], survey.numbers("height")[survey.usable]
    some = np.linspace(0, len(width) - 1, min(len(width), 5000)).astype(int) if len(width) else []
    axis.scatter(width[some], height[some], s=6, alpha=0.4, color=ACCENT, linewidths=0)
    top = 1.05 * max(width.max(initial=1), height.max(initial=1))
    axis.plot([0, top], [0, top], color=MUTED, lw=0.8, ls=":")
    axis.set(title="Image sizes", xlabel="width (pixels)", ylabel="height (pixels)", xlim=(0, top), ylim=(0, top))


def _losses(axis, found: dict) -> None:
    rows = {f"left out: {reason}": count for reason, count in found["left out"].items()}
    alike = found["duplicates"]
    if alike:
        rows["look like another image"] = alike["images in them"] - alike["groups that look alike"]
        rows["captions of several images"] = alike["captions of several images"]
    values = list(rows.values())
    axis.barh(range(len(rows)), values, color=SECOND, height=0.6)
    for row, value in enumerate(values):
        axis.text(value, row, f" {value:,}", va="center", color=INK)
    axis.set_yticks(range(len(rows)), rows)
    axis.invert_yaxis()
    axis.set(
        title=f"{found['usable']:,} of {found['records']:,} records can be used", xlim=(0, 1.2 * max([*values, 1]))
    )
