"""How well the perceptual hash tells copies from other photographs.

    python benchmarks/duplicates.py --photos 'PATH/*.tar' --out benchmarks/results/duplicates.json

Distances, in bits of 64, between each of 400 photographs and copies of it that were changed, and between all pairs of
3,000 photographs; the pairs within 8 bits are drawn, to be looked at.
"""

import argparse
import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from vlc.curate.duplicates import perceptual_hash
from vlc.data.decoding import decode
from vlc.data.sources import open_source

DISTANCES = (2, 4, 6, 8, 10)


def saved(picture: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    picture.save(buffer, "jpeg", quality=quality)
    return Image.open(io.BytesIO(buffer.getvalue()))


def cut(picture: Image.Image, share: float) -> Image.Image:
    across, down = round(share * picture.width / 2), round(share * picture.height / 2)
    return picture.crop((across, down, picture.width - across, picture.height - down))


CHANGES = {
    "half size, quality 60": lambda p: saved(p.resize((p.width // 2, p.height // 2)), 60),
    "twice the size, quality 80": lambda p: saved(p.resize((p.width * 2, p.height * 2)), 80),
    "another aspect (5:3), quality 85": lambda p: saved(p.resize((200, 120)), 85),
    "darker by a fifth": lambda p: Image.fromarray((np.asarray(p) * 0.8).astype(np.uint8)),
    "grey": lambda p: p.convert("L"),
    "4% cut off, half on each side": lambda p: cut(p, 0.04),
    "8% cut off": lambda p: cut(p, 0.08),
    "quality 20": lambda p: saved(p, 20),
    "mirrored": lambda p: p.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", required=True)
    parser.add_argument("--records", type=int, default=3000)
    parser.add_argument("--copies", type=int, default=400)
    parser.add_argument("--pairs", type=Path, help="a PNG of the pairs within 8 bits")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    source = open_source(options.photos)
    count = min(options.records, len(source))
    pictures = [decode(source[i].image, where=str(i)) for i in range(count)]
    hashes = np.array([perceptual_hash(picture) for picture in pictures], np.uint64)
    first, second = np.triu_indices(count, 1)
    apart = np.bitwise_count(hashes[first] ^ hashes[second])
    results: dict = {"pairs": len(apart), "pairs within": {d: int((apart <= d).sum()) for d in DISTANCES}}
    for name, change in CHANGES.items():
        changed = np.array([perceptual_hash(change(picture)) for picture in pictures[: options.copies]], np.uint64)
        distance = np.bitwise_count(changed ^ hashes[: options.copies])
        results[name] = {d: round(float((distance <= d).mean()), 4) for d in DISTANCES}
    near = np.flatnonzero(apart <= 8)
    if options.pairs and len(near):
        rows = [
            np.hstack([np.asarray(pictures[i].resize((160, 160))) for i in (first[n], second[n])]) for n in near[:20]
        ]
        Image.fromarray(np.vstack(rows)).save(options.pairs)
    options.out.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
