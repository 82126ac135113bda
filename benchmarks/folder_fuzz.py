"""Folders of other libraries with one setting changed, dropped or added: vlc gives what the library gives, or refuses.

    make peers
    python benchmarks/folder_fuzz.py [--only siglip,siglip2] [--out benchmarks/results/folder_fuzz.json]

The folders are those of `tests/peers/references.py` and `text_references.py`; the libraries, in their own environment,
are the judge.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.interop.fuzz import BASES, TEXT_BASES, try_all
from tests.peers.environment import run_peer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--only", default=",".join(BASES + TEXT_BASES), help="these folders; the file's figures of others stay"
    )
    parser.add_argument("--out", default="")
    options = parser.parse_args()
    known = Path(options.out)
    folders = json.loads(known.read_text())["by folder"] if options.out and known.is_file() else {}
    with tempfile.TemporaryDirectory() as scratch:
        for script in ("references", "text_references"):
            run_peer(script, f"{scratch}/{script}")
        for name in options.only.split(","):
            script = "text_references" if name in TEXT_BASES else "references"
            found = try_all(Path(scratch) / script / name, Path(scratch) / name)
            folders[name] = dict(found.counts) | {"silently different": found.wrong}
            print(name, folders[name], flush=True)
    cases = sum(len(count) if isinstance(count, list) else count for one in folders.values() for count in one.values())
    wrong = sum(len(one["silently different"]) for one in folders.values())
    result = {"cases": cases, "silently different": wrong, "by folder": folders}
    print(json.dumps(result, indent=1))
    if options.out:
        known.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
