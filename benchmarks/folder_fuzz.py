"""Folders of other libraries with one setting changed, dropped or added: vlc gives what the library gives, or refuses.

    make peers
    python benchmarks/folder_fuzz.py [--out benchmarks/results/folder_fuzz.json]

The folders are those of `tests/peers/references.py`; the libraries, in their own environment, are the judge.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.interop.fuzz import BASES, try_all
from tests.peers.environment import run_peer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="")
    options = parser.parse_args()
    result: dict = {"cases": 0, "wrong": [], "by folder": {}}
    with tempfile.TemporaryDirectory() as scratch:
        run_peer("references", f"{scratch}/references")
        for name in BASES:
            found = try_all(Path(scratch) / "references" / name, Path(scratch) / name)
            result["by folder"][name] = dict(found.counts)
            result["cases"] += sum(found.counts.values()) + len(found.wrong)
            result["wrong"] += found.wrong
            print(name, dict(found.counts), found.wrong, flush=True)
    result["silently different"] = len(result["wrong"])
    if options.out:
        Path(options.out).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
