"""What figures of captions tell apart on real captions: Flickr8k's, each against the other four of its image.

    python benchmarks/caption_figures.py 'flickr8k-dev-00000.tar' --out benchmarks/results/caption_figures.json

For each figure: how often a caption that a person wrote of the image scores more than one of another image, and than
the same caption made wrong by a rule (two parts exchanged, a word replaced: `vlc.curate.edits`); ties count by half, so
that a figure that sees nothing has 50%. No model takes part, but `--soft MODEL` makes claims nearly alike.
"""

import argparse
import json
from pathlib import Path

import numpy as np

import vlc
from vlc.curate.edits import edits_of, find_reader
from vlc.data.sources import open_source
from vlc.evaluate.metrics.intervals import Figure
from vlc.evaluate.metrics.reference_based import reference_figures
from vlc.evaluate.tasks.detail import DetailOptions, DetailScorer, Known

METRICS = ("units", "capture", "dnli", "events", "entities")


def figures(
    records, captions: list[str], references: list[tuple[str, ...]], options: DetailOptions
) -> dict[str, Figure]:
    """All that are means over captions."""
    known = [Known.of(record, told) for record, told in zip(records, references, strict=True)]
    found = reference_figures(captions, references)[0] | DetailScorer(options, known).score(captions)
    return {name: figure for name, figure in found.items() if figure.by_image is not None}


def preferred(right: Figure, wrong: Figure) -> dict[str, float]:
    """How often the right one scores more, of the images where both have a score."""
    assert right.by_image is not None
    assert wrong.by_image is not None
    gap = right.by_image - wrong.by_image
    known = gap[~np.isnan(gap)]
    return {"preferred": float(((known > 0) + 0.5 * (known == 0)).mean()), "images": len(known)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--soft", default="")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    soft = vlc.load(options.soft) if options.soft else None
    asked = DetailOptions(METRICS, soft=(lambda texts: soft.encode_text(texts).embed) if soft else None)
    source, reader = open_source(options.data), find_reader()
    records = [source[i] for i in range(min(options.images, len(source)))]
    told = [record.all_captions() for record in records]
    own, others = [texts[0] for texts in told], [texts[1:] for texts in told]
    edits = [edits_of(record, reader, 1, ()).get(text) for record, text in zip(records, own, strict=True)]
    edited = [number for number, some in enumerate(edits) if some]
    right = figures(records, own, others, asked)
    elsewhere = figures(records, [*own[1:], own[0]], others, asked)
    wrong_texts = [edits[i][0].text if edits[i] else own[i] for i in range(len(own))]
    wrong = figures(records, wrong_texts, others, asked)
    result = {
        name: {
            "value": right[name].value,
            "of another image": preferred(right[name], elsewhere[name]),
            "made wrong": preferred(
                Figure.where_known(right[name].by_image[edited]), Figure.where_known(wrong[name].by_image[edited])
            ),
        }
        for name in right
    }
    result["reader"], result["images"], result["edited"] = reader.name, len(records), len(edited)
    print("| figure | of the image | above one of another image | above the same made wrong |")
    for name, row in result.items():
        if isinstance(row, dict):
            cells = (row["value"], row["of another image"]["preferred"], row["made wrong"]["preferred"])
            print(f"| {name} | {cells[0]:.3f} | {100 * cells[1]:.1f} | {100 * cells[2]:.1f} |")
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
