"""Damaged inputs of every kind, with what must be said of each."""

import io
import json
import tarfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image


def picture(seed: int, size=(60, 40), kind: str = "jpeg") -> bytes:
    """A picture of its own, so that no two look alike."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 255, (10, 15, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    small.resize(size, Image.Resampling.BICUBIC).save(buffer, kind)
    return buffer.getvalue()


def huge_png() -> bytes:
    """30,000 x 30,000 pixels, one bit each, in a few hundred kilobytes."""
    side = 30_000
    packer = zlib.compressobj(9)
    row = bytes(1 + side // 8)
    data = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()

    def chunk(kind: bytes, body: bytes) -> bytes:
        return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")

    head = side.to_bytes(4, "big") * 2 + bytes([1, 0, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


# name -> (image bytes from a seed, caption, reason); a reason of None: it is used.
HUGE = huge_png()
KINDS = {
    "good": (lambda seed: picture(seed), "a caption", None),
    "png named jpg": (lambda seed: picture(seed, kind="png"), "a caption", None),
    "truncated": (lambda seed: picture(seed)[:-300], "a caption", "image"),
    "text named jpg": (lambda seed: b"<html>404</html>" * (1 + seed % 3), "a caption", "image"),
    "empty": (lambda seed: b"", "a caption", "image"),
    "huge": (lambda seed: HUGE, "a caption", "image too large"),
    "not utf-8": (lambda seed: picture(seed), b"caf\xe9 au lait", "encoding"),
    "no caption": (lambda seed: picture(seed), "", "captions"),
}


def kind_of(index: int) -> str:
    """Every other input is good, the others take turns."""
    bad = list(KINDS)[1:]
    return "good" if index % 2 == 0 else bad[index // 2 % len(bad)]


def write_folder(folder: Path, count: int) -> None:
    """A folder with captions.jsonl, in which a missing file, a malformed line and a line of another type come too."""
    lines = []
    for index in range(count):
        make, caption, _ = KINDS[kind_of(index)]
        (folder / f"{index}.jpg").write_bytes(make(index))
        text = caption if isinstance(caption, bytes) else caption.encode()
        if not caption:
            lines.append(json.dumps({"image": f"{index}.jpg"}).encode())
        else:
            lines.append(b'{"image": "%d.jpg", "caption": "%s %d"}' % (index, text, index))
    lines += [b'{"image": "missing.jpg", "caption": "x"}', b'{"image": "a.jpg", ', b"[1, 2]"]
    (folder / "captions.jsonl").write_bytes(b"\n".join(lines))


def write_shards(folder: Path, count: int, shards: int) -> None:
    """Tar shards; the first has members that lead out of it, the last is cut in the middle of its last sample."""
    for shard in range(shards):
        path = folder / f"{shard:03d}.tar"
        with tarfile.open(path, "w") as tar:
            for index in range(shard * count // shards, (shard + 1) * count // shards):
                make, caption, _ = KINDS[kind_of(index)]
                text = caption if isinstance(caption, bytes) else caption.encode()
                add(tar, f"{index}.jpg", make(index))
                if caption:
                    add(tar, f"{index}.txt", text)
                else:
                    add(tar, f"{index}.json", b"{}")
            if shard == 0:
                add(tar, "../../outside.jpg", picture(1))
                add(tar, "/etc/outside.jpg", picture(2))
                link = tarfile.TarInfo("link.jpg")
                link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
                tar.addfile(link)
            if shard == shards - 1:
                add(tar, "last.txt", b"cut")
                add(tar, "last.jpg", picture(3, size=(300, 300)))
        if shard == shards - 1:
            data = path.read_bytes()
            path.write_bytes(data[: data.rindex(b"\xff\xd8") + 500])


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """One member."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def expected(count: int) -> dict[str, int]:
    """Inputs by reason; `ok` are used."""
    reasons: dict[str, int] = {}
    for index in range(count):
        reason = KINDS[kind_of(index)][2] or "ok"
        reasons[reason] = reasons.get(reason, 0) + 1
    return reasons
