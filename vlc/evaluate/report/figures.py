"""The pictures of the report, each as a PNG in memory."""

import base64
import io
import itertools
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

INK, ACCENT, SECOND, GOOD, MUTED = "#22303c", "#2b6cb0", "#c05621", "#2f855a", "#a0aec0"
REGION_COLOURS = ("#d53f8c", "#3182ce", "#38a169", "#dd6b20", "#805ad5", "#319795", "#b7791f", "#e53e3e")
plt.rcParams.update(
    {
        "font.size": 9, "axes.edgecolor": MUTED, "axes.labelcolor": INK, "text.color": INK, "xtick.color": INK,
        "ytick.color": INK, "axes.spines.top": False, "axes.spines.right": False, "figure.facecolor": "white",
    }
)  # fmt: skip


def to_png(figure: Figure) -> bytes:
    """Renders and closes a figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130, bbox_inches="tight")
    plt.close(figure)
    return buffer.getvalue()


def data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


def loss_curves(rows: Sequence[dict[str, Any]]) -> bytes:
    """Every loss term, and the dev score, against the step."""
    names = sorted({name for row in rows for name in row if name.startswith("loss/")})
    dev = [(row["step"], row["dev/score"]) for row in rows if "dev/score" in row]
    both = len(dev) > 1
    figure, axes = plt.subplots(1, 1 + both, figsize=(9 if both else 6, 2.8), squeeze=False)
    for name in names:
        points = [(row["step"], row[name]) for row in rows if name in row]
        axes[0, 0].plot(*zip(*points, strict=True), label=name.removeprefix("loss/"), lw=1.6)
    axes[0, 0].set(xlabel="step", ylabel="loss (nats)", ylim=(0, None))
    axes[0, 0].legend(frameon=False)
    if both:
        axes[0, 1].plot(*zip(*dev, strict=True), "o-", color=ACCENT, lw=1.6, ms=4)
        axes[0, 1].set(xlabel="step", ylabel="dev score (mean R@1)", ylim=(0, None))
    return to_png(figure)


def retrieval_grid(queries: Sequence[dict[str, Any]]) -> bytes:
    """A caption a row, its best five images after it, the right one framed."""
    columns = 5
    figure = plt.figure(figsize=(10, 1.5 * len(queries)))
    grid = figure.add_gridspec(len(queries), columns + 2, wspace=0.08, hspace=0.12)
    for row, query in enumerate(queries):
        words = figure.add_subplot(grid[row, :2])
        words.axis("off")
        words.text(0, 0.5, _wrap(query["text"], 34), va="center", fontsize=8)
        for column, (image, right) in enumerate(query["images"][:columns]):
            axis = figure.add_subplot(grid[row, column + 2])
            axis.imshow(image)
            axis.set(xticks=[], yticks=[])
            for spine in axis.spines.values():
                spine.set(visible=True, color=GOOD if right else "#e2e8f0", linewidth=3 if right else 1)
    return to_png(figure)


def word_maps(examples: Sequence[dict[str, Any]]) -> bytes:
    """An image a row, then for each phrase the patches that it is found in."""
    columns = 1 + max(len(example["maps"]) for example in examples)
    figure, axes = plt.subplots(
        len(examples),
        columns,
        figsize=(1.55 * columns, 1.8 * len(examples)),
        squeeze=False,
        gridspec_kw={"wspace": 0.06},
    )
    for axis in axes.flat:
        axis.axis("off")
    for row, example in zip(axes, examples, strict=True):
        image = example["image"]
        row[0].imshow(image)
        for axis, (phrase, heat) in zip(row[1:], example["maps"], strict=False):
            axis.imshow(image)
            axis.imshow(_enlarge(heat, *image.shape[:2]), cmap="inferno", alpha=0.62, interpolation="nearest")
            axis.set_title(_wrap(phrase, 18), fontsize=7.5, pad=3)
    return to_png(figure)


def _enlarge(heat: np.ndarray, height: int, width: int) -> np.ndarray:
    low, high = heat.min(), heat.max()
    scaled = (heat - low) / (high - low + 1e-9)
    return np.kron(scaled, np.ones((height // heat.shape[0], width // heat.shape[1])))


def guidance_curve(rows: Sequence[dict[str, Any]]) -> bytes:
    """What rises and what falls with the guidance scale."""
    scales = [row["scale"] for row in rows]
    figure, axes = plt.subplots(1, 2, figsize=(9, 2.8))
    if "self_r1" in rows[0]:
        axes[0].plot(scales, [row["self_r1"] for row in rows], "o-", color=ACCENT, label="caption-to-image R@1")
    axes[0].plot(scales, [row["reference_f1"] for row in rows], "s-", color=SECOND, label="word F1 with the reference")
    axes[0].set(xlabel="guidance scale", ylim=(0, 1))
    axes[0].legend(frameon=False)
    if "named" in rows[0]:
        axes[1].plot(scales, [row["named"] for row in rows], "o-", color=ACCENT, label="facts named a caption")
        axes[1].set(xlabel="guidance scale", ylabel="facts", ylim=(0, None))
        right = axes[1].twinx()
        true = [(row["scale"], row["attributes"]) for row in rows if row["attributes"] is not None]
        if true:
            right.plot(*zip(*true, strict=True), "s-", color=GOOD, label="attributes that are true")
        right.set(ylim=(0, 1))
        lines = axes[1].get_lines() + right.get_lines()
        axes[1].legend(lines, [str(line.get_label()) for line in lines], frameon=False)
    else:
        axes[1].plot(scales, [row["words"] for row in rows], "o-", color=ACCENT, label="words a caption")
        axes[1].set(xlabel="guidance scale", ylim=(0, None))
        axes[1].legend(frameon=False)
    return to_png(figure)


def pareto(curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> bytes:
    """Reference-based against reference-free figures, a curve a model, a point a guidance scale with its interval."""
    pairs = [("cider", "r1", "CIDEr", "caption-to-image R@1 (%)", 100), ("cider", "clip_s", "CIDEr", "CLIP-S", 1)]
    figure, axes = plt.subplots(1, len(pairs), figsize=(10, 3.8))
    for axis, (x, y, x_name, y_name, unit) in zip(axes, pairs, strict=True):
        for (name, rows), colour in zip(curves.items(), itertools.cycle((ACCENT, SECOND, GOOD, INK, MUTED))):
            across, up = _with_bars(rows, x, 100), _with_bars(rows, y, unit)
            axis.errorbar(
                across[0], up[0], xerr=across[1], yerr=up[1], fmt="o-", color=colour, ecolor=colour, elinewidth=0.6,
                lw=1.4, ms=4, label=name,
            )  # fmt: skip
            for row, *place in zip(rows, across[0], up[0], strict=True):
                axis.annotate(
                    f"{row['guidance_scale']:g}", place, xytext=(4, 4), textcoords="offset points", fontsize=7
                )
        axis.set(xlabel=x_name, ylabel=y_name)
    if len(curves) > 1:
        axes[0].legend(frameon=False, fontsize=7)
    return to_png(figure)


def _with_bars(rows: Sequence[Mapping[str, Any]], name: str, unit: int) -> tuple[list[float], np.ndarray]:
    """Values, and how far their intervals reach below and above, `[2, N]`."""
    values = [unit * row[name]["value"] for row in rows]
    bounds = [row[name].get("interval", [row[name]["value"]] * 2) for row in rows]
    reach = [[v - unit * low for v, (low, _) in zip(values, bounds, strict=True)],
             [unit * high - v for v, (_, high) in zip(values, bounds, strict=True)]]  # fmt: skip
    return values, np.maximum(reach, 0)


class DrawnRegion(NamedTuple):
    """A region in a picture.

    Attributes:
        box: As shares of the picture.
        cover: The share of each patch that it covers, `[rows, columns]`.
        text: What is said of it.
    """

    box: np.ndarray
    cover: np.ndarray
    text: str


def contact_sheet(
    images: Sequence[np.ndarray], titles: Sequence[str], columns: int = 4,
    regions: Sequence[Sequence[DrawnRegion]] = (),
) -> bytes:  # fmt: skip
    """Pictures with their captions, and with their regions where these are given."""
    rows = -(-len(images) // columns)
    lines = max(map(len, regions), default=0)  # of text below a picture
    figure, axes = plt.subplots(
        rows, columns, figsize=(2.7 * columns, (3.3 + 0.17 * lines) * rows), squeeze=False,
        gridspec_kw={"hspace": 0.2 + 0.05 * lines} if lines else None,
    )  # fmt: skip
    for axis in axes.flat:
        axis.axis("off")
    for axis, image, title in zip(axes.flat, images, titles, strict=False):
        axis.imshow(image)
        axis.set_title(title, fontsize=7, loc="left", pad=4)
    for axis, image, some in zip(axes.flat, images, regions, strict=False):
        draw_regions(axis, image, some)
    return to_png(figure)


def draw_regions(axis: Any, image: np.ndarray, regions: Sequence[DrawnRegion]) -> None:
    """Outlines boxes, tints the patches that each covers, and numbers them; what is said of them stands below."""
    height, width = image.shape[:2]
    for number, (region, colour) in enumerate(zip(regions, itertools.cycle(REGION_COLOURS))):
        left, top, right, bottom = region.box * np.array([width, height, width, height])
        tint = np.zeros((*region.cover.shape, 4))
        tint[..., :3], tint[..., 3] = to_rgb(colour), 0.2 * region.cover
        axis.imshow(tint, extent=(-0.5, width - 0.5, height - 0.5, -0.5), interpolation="nearest")
        axis.add_patch(
            Rectangle((left - 0.5, top - 0.5), right - left, bottom - top, fill=False, edgecolor=colour, linewidth=1.4)
        )
        axis.text(
            left, top, str(number + 1), fontsize=6, color="white", va="top",
            bbox={"facecolor": colour, "edgecolor": "none", "pad": 1},
        )  # fmt: skip
        axis.text(
            0, -0.04 - 0.055 * number, f"{number + 1} {region.text[:52]}", fontsize=6, color=colour,
            transform=axis.transAxes, va="top",
        )  # fmt: skip


def thumbnail(image: np.ndarray) -> bytes:
    """One image as it is."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="png")
    return buffer.getvalue()


def _wrap(text: str, width: int) -> str:
    return "\n".join(textwrap.wrap(text, width))
