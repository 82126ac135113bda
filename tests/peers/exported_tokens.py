"""Run in the peers' environment: ids of the texts of `tokens.py` by transformers, from tokenizers that vlc exported.

`python exported_tokens.py TEXTS EXPORTS` reads `EXPORTS/NAME/` and writes `EXPORTS/NAME.npy`.
"""

import json
import os
import sys
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}

import numpy as np
import transformers

LENGTH = 24


def main(texts, exports):
    given = json.loads(Path(texts).read_text())
    for folder in sorted(path for path in Path(exports).iterdir() if path.is_dir()):
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        options = {"padding": "max_length", "truncation": True, "max_length": LENGTH, "return_tensors": "np"}
        np.save(f"{folder}.npy", tokenizer(given, **options)["input_ids"].astype(np.int32))


if __name__ == "__main__":
    main(*sys.argv[1:])
