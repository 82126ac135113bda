"""Given regions: their class, their attributes, and which of them a text is about."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from vlc.data.boxes import box_iou
from vlc.data.regions import Region
from vlc.errors import DataError
from vlc.evaluate.embeddings import Cache
from vlc.evaluate.metrics.intervals import Figure, interval
from vlc.evaluate.metrics.regions import given_boxes_map, labelled_ap, r_precision
from vlc.evaluate.metrics.retrieval import token_scores
from vlc.evaluate.metrics.zero_shot import accuracy, class_scores
from vlc.evaluate.report.figures import DrawnRegion, contact_sheet
from vlc.evaluate.report.page import Report
from vlc.evaluate.tasks.base import Options, Outcome, left_out_text, read_lines
from vlc.evaluate.tasks.region_data import RegionData, Seen
from vlc.evaluate.tasks.templates import read_templates
from vlc.inference import Model
from vlc.models import ImageEncoding, TextEncoding

_DRAWN = 8  # images that are drawn, and regions of each
ATTRIBUTE_PROMPTS = ("{}", "something {}", "a {} object")


def run_regions(cache: Cache, options: Options, task: str, by: Sequence[str]) -> Outcome:
    model, spec = cache.model, options.path(task)
    data = RegionData(model, spec, options)
    templates = read_templates(options.templates)
    classes = read_lines(options.classes) if options.classes else data.labels
    figures: dict[str, Any] = {"images": 0, "regions": 0}
    found: dict[str, Scores] = {how: Scores() for how in by}
    drawn: list[tuple[np.ndarray, list[DrawnRegion]]] = []
    finds = bool(model.config.model.regions.queries) and "embed" in by
    for seen in data.seen():
        drawn = drawn or drawn_regions(model, seen, by[0], classes, templates)
        figures["images"] += len(seen.image.embed)
        figures["regions"] += len(seen.told)
        for how, scores in found.items():
            scores.add(model, seen, how, classes, data.attributes, templates)
        if finds:
            found["embed"].locate(model, seen)
    figures["skipped"] = data.skipped
    rows = []
    for how, scores in found.items():
        figures[how] = scores.figures(classes, data.attributes)
        rows += [(how, name, value) for name, value in figures[how].items() if isinstance(value, float)]
    if not rows:
        raise DataError(f"{spec}: its regions have neither classes, attributes nor texts.")
    note = (
        f"{figures['regions']:,} given regions of {figures['images']:,} images; {len(classes)} classes, "
        f"{len(data.attributes)} attributes{left_out_text(data.skipped)}. Ties count as wrong."
        + (" Each was cut out and looked at as a picture of its own." if options.crops else "")
    )

    def draw(report: Report) -> None:
        report.figure(
            f"{task}: given regions", f"What each is, and the class that it is taken for by {by[0]}.",
            contact_sheet([picture for picture, _ in drawn], [""] * len(drawn), regions=[some for _, some in drawn]),
        )  # fmt: skip
        for how in by:
            table = figures[how].get("attribute_ap_of")
            if table:
                report.table(
                    f"{task}: average precision of attributes by {how}", "Of the regions of which it is known.",
                    ["attribute", "AP"], sorted(([name, value] for name, value in table.items()), key=lambda r: r[1]),
                )  # fmt: skip

    return Outcome(figures, rows, note, draw)


def drawn_regions(
    model: Model, seen: Seen, how: str, classes: Sequence[str], templates: Sequence[str]
) -> list[tuple[np.ndarray, list[DrawnRegion]]]:
    """The first images with their regions, what each is, and the class that it is taken for."""
    drawn = []
    for number, picture in enumerate(seen.pictures[:_DRAWN]):
        rows = np.flatnonzero(seen.owner == number)
        taken: list[str] = [""] * len(rows)
        if classes and len(rows):
            scores = class_scores(model, _rows(seen.regions, rows), classes, templates, by=how)
            taken = [f": {classes[int(best)]}" for best in scores.argmax(axis=1)]
        patch = model.config.model.image.patch
        grid = picture.shape[0] // patch, picture.shape[1] // patch
        regions = [
            DrawnRegion(
                seen.boxes[row], seen.cover[row, : grid[0] * grid[1]].reshape(grid),
                (seen.told[row].label or " ".join(_first_text(seen.told[row]))) + said,
            )
            for row, said in zip(rows, taken, strict=True)
        ]  # fmt: skip
        drawn.append((picture, regions[:_DRAWN]))
    return drawn


class Scores:
    """Scores of all regions, gathered a part at a time."""

    def __init__(self) -> None:
        self.classes: list[np.ndarray] = []
        self.labels: list[int] = []
        self.attributes: list[np.ndarray] = []
        self.known: list[np.ndarray] = []
        self.found: dict[int, list[bool]] = {}  # of each image, whether a text finds its region among the others
        self.chance: list[float] = []
        self.pointed: dict[int, list[bool]] = {}
        self.located: dict[int, list[bool]] = {}
        self._images = 0

    def add(
        self, model: Model, seen: Seen, how: str, classes: Sequence[str], attributes: Sequence[str],
        templates: Sequence[str],
    ) -> None:  # fmt: skip
        """Those of more images; none of whose regions are seen count for nothing."""
        if seen.told:
            self._add(model, seen, how, classes, attributes, templates)
        self._images += len(seen.pictures)

    def _add(
        self, model: Model, seen: Seen, how: str, classes: Sequence[str], attributes: Sequence[str],
        templates: Sequence[str],
    ) -> None:  # fmt: skip
        number = {name: i for i, name in enumerate(classes)}
        labelled = [i for i, region in enumerate(seen.told) if region.label in number]
        if labelled:
            self.classes.append(class_scores(model, _rows(seen.regions, labelled), classes, templates, by=how))
            self.labels += [number[seen.told[i].label] for i in labelled]
        if attributes:
            self.attributes.append(class_scores(model, seen.regions, attributes, ATTRIBUTE_PROMPTS, by=how))
            self.known.append(np.stack([_known(region, attributes) for region in seen.told]))
        told = [(i, text) for i, region in enumerate(seen.told) for text in _first_text(region)]
        if told:
            self._ground(model, seen, how, told)

    def _ground(self, model: Model, seen: Seen, how: str, told: Sequence[tuple[int, str]]) -> None:
        text = model.encode_text([words for _, words in told])
        scores = _scores(model, seen.regions, text, how)  # [regions, texts]
        for column, (row, words) in enumerate(told):
            owner = int(seen.owner[row])
            same = np.flatnonzero(seen.owner == owner)
            others = [i for i in same if i != row and words not in _first_text(seen.told[i])]
            if others:
                answers = self.found.setdefault(self._images + owner, [])
                answers.append(bool(scores[row, column] > scores[others, column].max()))
                self.chance.append(1 / (1 + len(others)))
            heat = _heat(model, seen.image, text, owner, column, how)
            if heat is not None:
                answers = self.pointed.setdefault(self._images + owner, [])
                answers.append(bool(seen.cover[row, heat.argmax()] >= 0.25))

    def locate(self, model: Model, seen: Seen) -> None:
        """Whether the box of the query that is most like each text is its region's, by an IoU of 0.5; after `add`."""
        told = [(row, text) for row, region in enumerate(seen.told) for text in _first_text(region)]
        if not told:
            return
        queries, text = model.find_region_rows(seen.image), model.encode_text([words for _, words in told]).embed
        for column, (row, _) in enumerate(told):
            owner = int(seen.owner[row])
            best = int((np.asarray(queries.embed)[owner] @ text[column]).argmax())
            iou, _ = box_iou(np.asarray(queries.boxes)[owner, best], seen.boxes[row])
            self.located.setdefault(self._images - len(seen.pictures) + owner, []).append(bool(iou >= 0.5))

    def figures(self, classes: Sequence[str], attributes: Sequence[str]) -> dict[str, Any]:
        made: dict[str, Any] = {}
        if self.labels:
            scores, labels = np.concatenate(self.classes), np.asarray(self.labels)
            right = accuracy(scores, labels)
            made |= {
                "class_top1": right["top1"],
                "class_mean": right["mean_class"],
                "class_map": given_boxes_map(scores, labels),
            }
            relevant = labels[None] == np.unique(labels)[:, None]
            made["class_r_precision"] = float(r_precision(scores.T[np.unique(labels)], relevant).mean())
        if attributes:
            by_attribute = labelled_ap(np.concatenate(self.attributes), np.concatenate(self.known))
            if by_attribute:
                made["attribute_ap"] = float(np.mean(list(by_attribute.values())))
                made["attribute_ap_of"] = {attributes[i]: value for i, value in by_attribute.items()}
        for name, answers in (("grounding", self.found), ("pointing", self.pointed), ("located", self.located)):
            if answers:
                figure = Figure.ratio(
                    [sum(some) for some in answers.values()], [len(some) for some in answers.values()]
                )
                made |= {name: figure.value, f"{name}_interval": interval(figure, len(answers))}
        if self.chance:
            made["grounding_chance"] = float(np.mean(self.chance))
        return made


def _rows(image: ImageEncoding, rows: Sequence[int] | np.ndarray) -> ImageEncoding:
    return ImageEncoding(image.tokens[rows], image.embed[rows], image.features[rows])


def _first_text(region: Region) -> tuple[str, ...]:
    """The first caption of a region; none where it has none."""
    return next((texts[:1] for texts in region.captions.values() if texts), ())


def _known(region: Region, attributes: Sequence[str]) -> np.ndarray:
    has, lacks = set(region.attributes), set(region.absent)
    return np.array([1 if name in has else 0 if name in lacks else -1 for name in attributes])


def _scores(model: Model, regions: ImageEncoding, text: TextEncoding, how: str) -> np.ndarray:
    if how == "embed":
        return regions.embed @ text.embed.T
    return token_scores(regions.tokens, text, one_way=model.one_way)[1]


def _heat(model: Model, image: ImageEncoding, text: TextEncoding, row: int, column: int, how: str) -> np.ndarray | None:
    """How similar each patch is to a text, pads least; `None` where patches are not comparable with embeddings."""
    if how == "tokens":
        heat = (image.tokens[row] @ text.tokens[column][text.mask[column]].T).mean(axis=1)
    elif model.config.model.token_head == "pooled":
        heat = image.tokens[row] @ text.embed[column]
    else:
        return None
    return heat if image.mask is None else np.where(image.mask[row], heat, -np.inf)
