"""`vlc eval`: every measurement that the data allows, as `eval.json` and `report.html`."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vlc.data.record import Record, Source
from vlc.data.sources import Scenes, open_source
from vlc.errors import ConfigError
from vlc.evaluate.metrics.retrieval import both_retrievals
from vlc.evaluate.records import good_records, main_captions, readable
from vlc.evaluate.report import figures
from vlc.evaluate.report.page import Report, write_results
from vlc.evaluate.report.phrases import phrase_maps
from vlc.evaluate.tasks.guidance import SCALES, guidance_sweep
from vlc.evaluate.tasks.scene_regions import answered_boxes, caption_grounding, found_boxes, region_captions
from vlc.evaluate.tasks.scenes import (
    attribute_classification,
    edit_twin_accuracy,
    matched_gallery_recall,
    open_test_scenes,
    pointing_game,
    sentence_recall,
)
from vlc.evaluate.tasks.written_words import written_words
from vlc.inference import Model
from vlc.inference.comparison import all_scores, comparable, compared_by
from vlc.inference.word_maps import attends_to_patches


def _seen(model: Model, record: Record) -> np.ndarray:
    """What the model sees of a record, as a picture."""
    return model.preprocess.picture(model.preprocess(record.image))


def open_eval_source(model: Model, data: str, examples: int) -> Source:
    """The records to evaluate on: `data`, or the test split of scenes, or the dev data of the config.

    Raises:
        ConfigError: Nothing was named and the config has no dev data.
    """
    config = model.config.data
    spec = data or ("scenes" if config.train == "scenes" else config.dev)
    if not spec:
        raise ConfigError("No data to evaluate on: give --data PATH, or train with config.data.dev.")
    if spec == "scenes":
        return open_test_scenes(model, examples)
    return open_source(spec, columns="" if data else config.columns)


def evaluate(
    model: Model, workdir: Path, *, data: str = "", examples: int = 512, scales: Sequence[float] = SCALES
) -> dict[str, Any]:
    """Measures everything that the model and the data allow, and writes `eval.json` and `report.html`.

    Args:
        model: The model.
        workdir: Where the results go; `metrics.jsonl` there gives the loss curves.
        data: A source; empty for the default of the config.
        examples: The most records.
        scales: Guidance scales of the caption sweep.

    Returns:
        What `eval.json` holds.
    """
    source = open_eval_source(model, data, examples)
    records, skipped = readable(model, good_records(source, examples))
    results: dict[str, Any] = {"step": model.step, "examples": len(records), "skipped": skipped}
    report = Report("vlc evaluation", f"{workdir.name}, step {model.step}, {len(records)} held-out images")
    scenes = source if isinstance(source, Scenes) else None

    _training(report, workdir)
    if model.compares:
        texts = [main_captions(record) for record in records]
        _retrieval(model, report, results, records, texts)
        if scenes is not None:
            _scenes(model, report, results, records, scenes)
    if scenes is not None:
        _regions(model, report, results, scenes, min(200, len(records)))
    if model.config.model.decoder.layers:
        _captions(model, report, results, records, scales)

    write_results(workdir, results, report)
    return results


def _training(report: Report, workdir: Path) -> None:
    path = workdir / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    if any(name.startswith("loss/") for row in rows for name in row):
        report.figure("Training", "Each loss term without its weight, on training batches.", figures.loss_curves(rows))


def _retrieval(model: Model, report: Report, results: dict, records: Sequence[Record], texts: list) -> None:
    image = model.encode_image([record.image for record in records])
    owner = [i for i, captions in enumerate(texts) for _ in captions]
    flat = [caption for captions in texts for caption in captions]
    text = model.encode_text(flat)
    found = both_retrievals(image, text, owner, by=comparable(model), one_way=model.one_way)
    results["retrieval"] = found
    chance, main = 1 / len(records), found[compared_by(model)]
    report.tile(f"{100 * main['t2i_r1']:.1f}%", f"text to image R@1 (chance {100 * chance:.1f}%)")
    report.tile(f"{100 * main['i2t_r1']:.1f}%", "image to text R@1")
    report.table(
        "Retrieval",
        f"{len(flat)} captions of {len(records)} images; T→I: a text finds its image; I→T: an image finds any of "
        f"its captions; ties count as wrong. "
        f"Chance is {100 * chance:.1f}% at R@1.",
        ["scored by", *(f"{way} R@{k}" for way in ("T→I", "I→T") for k in (1, 5, 10))],
        [[name, *(found[name][f"{way}_r{k}"] for way in ("t2i", "i2t") for k in (1, 5, 10))] for name in found],
    )
    scores = all_scores(model, image, text)[1].T
    picked = np.linspace(0, len(flat) - 1, 6).astype(int)
    queries = [
        {
            "text": flat[q],
            "images": [(_seen(model, records[i]), i == owner[q]) for i in np.argsort(-scores[q])[:5]],
        }
        for q in picked
    ]
    report.figure(
        "What a caption finds", "The five nearest images; the right one is framed.", figures.retrieval_grid(queries)
    )
    if "tokens" not in found:
        return
    phrases = [_phrases_of(model, records[i], texts[i][0]) for i in np.linspace(0, len(records) - 1, 5).astype(int)]
    report.figure(
        "Words in the picture",
        "Similarity of the last token of each phrase with each patch, brightest where highest.",
        figures.word_maps(phrases),
    )


def _phrases_of(model: Model, record: Record, caption: str) -> dict[str, Any]:
    _, maps = model.word_maps(record.image, caption)
    return phrase_maps(record, caption, maps, model.tokenizer, model.preprocess)


def _scenes(model: Model, report: Report, results: dict, records: Sequence[Record], scenes: Scenes) -> None:
    pairs = min(100, len(records))
    may = comparable(model)
    results["novel"] = _novel(model, scenes, len(records))
    results["sentence"] = of_trained(sentence_recall(model, records), may)
    results["matched"] = of_trained(matched_gallery_recall(model, scenes, groups=pairs // 2), may)
    results["binding"] = binding = of_trained(edit_twin_accuracy(model, scenes, pairs), may)
    results["zero_shot"] = zero_shot = of_trained(attribute_classification(model, scenes, len(records)), may)
    if "tokens" in may:
        results["pointing"] = pointing = pointing_game(model, scenes, pairs)
        report.tile(
            f"{100 * pointing['accuracy']:.1f}%",
            f"words that point at their object (blind {100 * pointing['blind']:.0f}%)",
        )
    report.table(
        "Harder galleries",
        "A pair that no training scene shows; one sentence of the caption; and eight scenes that share colours, "
        "shapes or places (chance 12.5%).",
        ["gallery", "by embedding", "by tokens"],
        [
            [
                "unseen colour-shape pairs, R@1",
                *(results["novel"].get(how, {}).get("t2i_r1") for how in ("embed", "tokens")),
            ],
            ["one sentence, R@1", results["sentence"]["t2i_r1"], results["sentence"]["t2i_r1_tokens"]],
            *(
                [
                    f"same {keep}s, R@1 of 8",
                    results["matched"][f"same_{keep}_embed"],
                    results["matched"][f"same_{keep}_tokens"],
                ]
                for keep in ("colour", "shape", "place")
            ),
        ],
    )
    report.table(
        "Binding: scenes that differ in one thing",
        "Both captions and both images must be preferred rightly for `group` (chance 16.7%); ties count as wrong. "
        "After a swap both scenes hold the same words.",
        ["edit", "text", "image", "group", "text, tokens", "image, tokens", "group, tokens"],
        [[edit.replace("_", " "), *row.values()] for edit, row in binding.items()],
    )
    report.table(
        "Zero-shot classification of single objects",
        "Prompt ensembles: embeddings are averaged, similarities of tokens are averaged.",
        ["classes", "top-1", "top-5", "chance"],
        [[name.replace("_", ", by "), row["top1"], row["top5"], row["chance"]] for name, row in zero_shot.items()],
    )


def _regions(model: Model, report: Report, results: dict, scenes: Scenes, count: int) -> None:
    """What the model finds and says of the objects of scenes, where it was trained to."""
    rows: list[list[Any]] = []
    if model.config.model.regions.queries:
        results["found_boxes"] = found = found_boxes(model, scenes, count)
        rows += [[f"boxes that queries found: {name}", value] for name, value in found.items()]
    decoder = model.config.model.decoder
    if decoder.layers and (decoder.control.box or decoder.control.mask):
        results["region_captions"] = said = region_captions(model, scenes, count)
        rows += [
            [f"captions of given boxes: {name}", value] for name, value in said.items() if isinstance(value, float)
        ]
        rows += [[f"of the {words} words asked for", value] for words, value in said.get("length", {}).items()]
    if attends_to_patches(model):
        results["caption_grounding"] = looked = caption_grounding(model, scenes, count)
        rows += [[f"attention of written words: {name}", value] for name, value in looked.items() if name != "mentions"]
    if decoder.layers and model.config.data.captions.places:
        results["answered_boxes"] = answered = answered_boxes(model, scenes, count)
        rows += [[f"boxes that the captioner writes: {name}", value] for name, value in answered.items()]
    if rows:
        report.table(
            "Regions",
            "recall: objects that a query's box meets by an IoU of 0.5; precision, named: of the queries that chose a "
            "text, whether the box is an object's, and the text its own. Captions: whether they name the shape, say "
            "only what is true, say what is true of no other object of the scene; duplicates: equal ones of one "
            "scene; retrieved: whether one is most like its own region, whole: of captions that are not told it.",
            ["figure", "value"],
            rows,
        )


def _novel(model: Model, scenes: Scenes, count: int) -> dict[str, dict[str, float]]:
    """Retrieval among scenes with a colour-shape pair that training never showed."""
    novel = scenes.subset(split="novel")
    records = [novel[index] for index in range(count)]
    image = model.encode_image([record.image for record in records])
    text = model.encode_text([record.captions["long"][0] for record in records])
    return both_retrievals(image, text, range(count), by=comparable(model), one_way=model.one_way)


def of_trained(found: dict[str, Any], may: Sequence[str], by: str = "embed") -> dict[str, Any]:
    """Figures without those by heads that no loss ever saw, which become `None`; names that end in `tokens` are by
    tokens, all others by embedding."""
    kept: dict[str, Any] = {}
    for name, value in found.items():
        how = "tokens" if name.endswith("tokens") else by
        kept[name] = of_trained(value, may, how) if isinstance(value, dict) else value if how in may else None
    return kept


def _captions(model: Model, report: Report, results: dict, records: Sequence[Record], scales: Sequence[float]) -> None:
    reference = "reference" if "reference" in records[0].captions else next(iter(records[0].captions))
    sweep = guidance_sweep(model, records, reference, scales)
    results["captions"] = [{k: v for k, v in row.items() if k != "captions"} for row in sweep]
    results["caption_samples"] = [
        {"key": record.key, "captions": {f"{row['scale']:g}": row["captions"][i] for row in sweep}}
        for i, record in enumerate(records[:20])
    ]
    report.figure(
        "Guidance: from a safe caption to a specific one",
        "The same captioner at several guidance scales. Left: can the caption find its image (by the model's own "
        "embeddings), and how near is it to the reference. Right: how much is said, and how much of it is true.",
        figures.guidance_curve(sweep),
    )
    wanted = (
        "distinct",
        "reference_f1",
        "reference_exact",
        "self_r1",
        "self_r5",
        "attributes",
        "correct",
        "covered",
        "exact",
    )
    shares = [name for name in wanted if name in sweep[0]]
    numbers = [k for k in ("words", "named") if k in sweep[0]]
    report.table(
        "Captions by guidance scale",
        "named: attributes and relations claimed; attributes: those that some object has; correct: mentions true of "
        "one object as a whole (both among captions that mention objects); covered: objects mentioned; exact: all "
        "of it true and complete.",
        ["scale", *numbers, *(name.replace("_", " ") for name in shares)],
        [[f"{r['scale']:g}", *(f"{r[n]:.1f}" for n in numbers), *(r[s] for s in shares)] for r in sweep],
    )
    rows = [
        (figures.thumbnail(_seen(model, records[i])), [row["captions"][i] for row in sweep])
        for i in np.linspace(0, len(records) - 1, min(8, len(records))).astype(int)
    ]
    report.captions(
        "Samples", "Greedy captions of held-out images.", [f"scale {row['scale']:g}" for row in sweep], rows
    )
    written_words(report, model, [record.image for record in records[:4]])


def summary(results: dict[str, Any]) -> str:
    """The main numbers, for the terminal."""
    lines = [f"step {results['step']}, {results['examples']} images"]
    for by, found in results.get("retrieval", {}).items():
        rates = "  ".join(f"{name.replace('_r', ' R@')} {100 * value:.1f}%" for name, value in found.items())
        lines.append(f"retrieval by {by:7} {rates}")
    if "pointing" in results:
        pointing = results["pointing"]
        lines.append(f"pointing {100 * pointing['accuracy']:.1f}% (blind {100 * pointing['blind']:.1f}%)")
    if "binding" in results:
        lines.append("edit twins, caption chosen rightly (chance 50%)")
        for by, name in (("embed", "text"), ("tokens", "text_tokens")):
            known = {edit: row[name] for edit, row in results["binding"].items() if row[name] is not None}
            if known:
                lines.append(f"  by {by:7}" + "  ".join(f"{edit} {100 * value:.0f}%" for edit, value in known.items()))
    for row in results.get("captions", []):
        named = f"  facts {row['named']:.1f}" if "named" in row else ""
        if row.get("attributes") is not None:
            named += f"  true attributes {100 * row['attributes']:.0f}%"
        lines.append(
            f"captions at guidance {row['scale']:<4g} "
            + (f"self R@1 {100 * row['self_r1']:.1f}%  " if "self_r1" in row else "")
            + f"reference F1 {100 * row['reference_f1']:.1f}%{named}"
        )
    return "\n".join(lines)
