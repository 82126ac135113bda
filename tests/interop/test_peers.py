"""Models of transformers, open_clip and big_vision give here what they give there, and again when exported."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

import vlc
from tests.conftest import read_config
from tests.interop.mutations import link, replace_file
from tests.peers import inputs
from tests.peers.environment import needs_peers, run_peer
from vlc.data.naflex import pack
from vlc.errors import CheckpointError, ConfigError
from vlc.inference import load_initial
from vlc.inference.captioning import CaptionRequest, generate_ids
from vlc.inference.comparison import logits_of
from vlc.interop import Imported, export_model, merge_lora
from vlc.interop.load import abstract_params, fill, paths_of
from vlc.similarity import max_sim
from vlc.train import train

TWO_TOWERS = [
    "clip_quick_16",
    "clip_gelu_14",
    "clip_gelu_32",
    "siglip",
    "siglip2",
    "siglip2_naflex",
    "open_clip_gelu_32",
    "open_clip_quick_14",
    "open_clip_siglip",
    "open_clip_coca",
    "open_clip_coca_same_width",
    "big_vision_scanned",
    "big_vision_unrolled",
]
NEAR = 1e-4  # asked of embeddings and logits; what is found is about 1e-6

pytestmark = needs_peers


def load(references: Path, name: str) -> tuple[vlc.Model, dict]:
    reference = dict(np.load(references / f"{name}.npz"))
    folder = references / name
    return vlc.load(folder / "model.npz" if name.startswith("big_vision") else folder), reference


def their_ids(model: vlc.Model, texts) -> np.ndarray:
    """With the id that the family pads with."""
    ids = model.token_ids(texts)
    return np.where(ids == model.tokenizer.pad_id, model.tokenizer.rules.pad, ids)


def levels(model: vlc.Model, pixels: np.ndarray) -> np.ndarray:
    """Their normalised pixels as 0 to 255; patches of pictures of any shape `[B, P, p * p * 3]` as they are."""
    image = model.config.data.image
    patches = pixels.ndim == 3
    pixels = pixels.reshape(*pixels.shape[:2], -1, 3) if patches else pixels.transpose(0, 2, 3, 1)
    return 255 * (pixels * np.asarray(image.std) + np.asarray(image.mean))


def as_ours(model: vlc.Model, reference: dict) -> np.ndarray:
    """Their pixels as the model takes them."""
    theirs = levels(model, reference["pixels"]).round().astype(np.uint8)
    if "shapes" not in reference:
        return theirs
    patch, size = model.config.model.image.patch, model.preprocess.size
    pictures = (
        patches[: rows * columns]
        .reshape(rows, columns, patch, patch, 3)
        .swapaxes(1, 2)
        .reshape(rows * patch, columns * patch, 3)
        for patches, (rows, columns) in zip(theirs, reference["shapes"], strict=True)
    )
    return np.stack([pack(picture, patch, size) for picture in pictures])


@pytest.mark.slow
@pytest.mark.parametrize("name", TWO_TOWERS)
def test_an_imported_model_gives_the_same(references, name):
    model, reference = load(references, name)
    assert np.array_equal(their_ids(model, inputs.TEXTS), reference["ids"])

    theirs = as_ours(model, reference)
    if not name.startswith("big_vision"):  # whose reference is given pixels
        pixels = np.stack([model.preprocess(inputs.encoded(image)) for image in inputs.images()])
        assert np.abs(pixels.astype(int) - theirs).max() <= 1

    image, text = model.encode_pixels(theirs), model.encode_text(inputs.TEXTS)
    assert np.abs(image.embed - reference["image"]).max() < NEAR
    assert np.abs(text.embed - reference["text"]).max() < NEAR
    assert np.abs(logits_of(model, image, text) - reference["logits"]).max() < NEAR

    # The token at the end of a text is what is compared, so its token is the embedding.
    if model.config.model.text.pool == "last":
        last = text.mask.sum(axis=1) - 1
        assert np.allclose(text.tokens[np.arange(len(last)), last], text.embed, atol=1e-6)


@pytest.mark.slow
def test_coca_writes_the_same_captions(references):
    model, reference = load(references, "open_clip_coca")
    pixels = levels(model, reference["pixels"]).round().astype(np.uint8)
    logits = model.caption_logits(pixels, inputs.TEXTS[: len(pixels)])[:, :-1]
    assert np.abs(logits - reference["caption_logits"]).max() < NEAR
    written = generate_ids(model, pixels, CaptionRequest()).ids[:, 0, : reference["caption_ids"].shape[1]]
    assert np.array_equal(written, reference["caption_ids"])


@pytest.mark.slow
def test_minilm_embeds_sentences_as_the_reference(references):
    reference = dict(np.load(references / "minilm.npz"))
    model = vlc.load(str(reference["where"]))
    ids = their_ids(model, inputs.TEXTS)
    width = reference["ids"].shape[1]
    assert ids.shape[1] == 256
    assert np.array_equal(ids[:, :width], reference["ids"]) and (ids[:, width:] == 0).all()
    assert np.abs(model.encode_text(inputs.TEXTS).embed - reference["text"]).max() < 1e-5
    assert model.notes == ("pooler.*: the mean of the tokens is compared",)
    with pytest.raises(vlc.errors.ConfigError, match="text tower alone"):
        model.encode_image(np.zeros((8, 8, 3), np.uint8))


@pytest.mark.slow
def test_an_export_gives_the_same_in_the_other_library(references, tmp_path):
    models, exported = {}, []
    for name in TWO_TOWERS:
        models[name], _ = load(references, name)
        for form in ("huggingface", "open_clip"):
            try:
                export_model(models[name].as_imported(), tmp_path / form / name, form)
                exported.append((form, name))
            except CheckpointError as error:
                assert "has no model" in str(error) or "no resizing" in str(error) or "timm's names" in str(error)
    held = {form: {name for its, name in exported if its == form} for form in ("huggingface", "open_clip")}
    models["lora"] = vlc.Model.of(with_lora(models["clip_gelu_32"].as_imported()))
    for form in held:  # LoRA goes out merged
        export_model(merge_lora(models["lora"].as_imported()), tmp_path / form / "lora", form)
        exported.append((form, "lora"))
    assert held["huggingface"] >= {name for name in TWO_TOWERS if name.startswith(("clip", "siglip"))}
    assert held["open_clip"] >= {name for name in TWO_TOWERS if name.startswith("open_clip")} | {"clip_gelu_32"}
    run_peer("exported", tmp_path)
    for form, name in exported:
        there = dict(np.load(tmp_path / form / f"{name}.npz"))
        if name.startswith("open_clip" if form == "open_clip" else ("clip", "siglip")):  # to where it came from
            before = dict(np.load(references / f"{name}.npz"))
            for part in ("ids", "pixels", "image", "text", "logits"):
                assert np.abs(there[part] - before[part]).max() < 1e-5, (form, name, part)
            continue
        image = models[name].encode_pixels(as_ours(models[name], there))
        assert np.abs(image.embed - there["image"]).max() < 1e-5, (form, name)
        plain = [place for place, text in enumerate(inputs.TEXTS) if "&eacute;" not in text]  # that need no mending
        ours = models[name].encode_text(inputs.TEXTS).embed
        assert np.abs(ours - there["text"])[plain].max() < 1e-5, (form, name)
    for form, name in exported:
        back = vlc.load(tmp_path / form / name)  # and here again
        plain = [text for text in inputs.TEXTS if "&eacute;" not in text]
        theirs, ours = (model.encode_text(plain).embed for model in (back, models[name]))
        assert np.abs(theirs - ours).max() < 1e-5, (form, name)


def with_lora(model: Imported) -> Imported:
    """The model with LoRA of rank 2 that changes it."""
    config = model.config.copy_and_resolve_references()
    config.model.lora.update({"rank": 2, "alpha": 4.0})
    shapes, known, rng = abstract_params(config, model.tokenizer), paths_of(model.params), np.random.default_rng(0)
    arrays = {
        path: known[path] if path in known else 0.1 * rng.normal(size=x.shape) for path, x in paths_of(shapes).items()
    }
    return replace(model, config=config, params=fill(shapes, arrays))


@pytest.mark.slow
def test_texts_are_read_as_queries_and_documents(text_references):
    """sentence-transformers' prompts and linear layer, PyLate's folder, ColBERT's, and a multi-vector encoder."""
    expected = dict(np.load(text_references / "sentences.npz"))
    for role, name in (("", "text"), ("query", "query")):
        model = vlc.load(text_references / "sentences", role=role)
        assert np.abs(model.encode_text(inputs.TEXTS).embed - expected[name]).max() < 1e-5
    for name in ("pylate", "multi_vector", "colbert"):
        expected = dict(np.load(text_references / f"{name}.npz"))
        texts = {}
        for role in ("query", "document"):
            model = vlc.load(text_references / name, role=role)
            texts[role] = model.encode_text(inputs.TEXTS)
            assert texts[role].mask.sum(axis=1).tolist() == expected[f"{role}_lengths"].tolist()
            assert np.abs(texts[role].tokens[texts[role].mask] - expected[role]).max() < 1e-5
            assert model.compares == ("tokens",)
        query, document = texts["query"], texts["document"]
        scores = max_sim(query.tokens, query.mask, document.tokens, document.mask)
        assert np.abs(scores - expected["scores"]).max() < 1e-4
        with pytest.raises(ConfigError, match="must be query or document"):
            vlc.load(text_references / name, role="passage")


@pytest.mark.slow
def test_a_model_of_token_vectors_is_kept_and_started_from(text_references, tmp_path):
    """Written as vlc's own folder it reads alike, and a run's text tower can start from it."""
    model = vlc.load(text_references / "pylate")
    export_model(model.as_imported(), tmp_path / "own", "safetensors")
    again = vlc.load(tmp_path / "own").encode_text(inputs.TEXTS)
    assert np.array_equal(again.tokens[again.mask], model.encode_text(inputs.TEXTS).tokens[again.mask])
    with pytest.raises(ConfigError, match="one way in which it reads"):
        vlc.load(tmp_path / "own", role="query")
    made = read_config("quickstart", "smoke")
    made.steps, made.init = 1, str(text_references / "pylate")
    made.objectives.caption.weight, made.model.decoder.layers = 0.0, 0
    assert train(made, tmp_path / "run", load_initial=load_initial) == 0
    assert list(vlc.load(tmp_path / "run").config.model.text.skip) == list(model.config.model.text.skip)


def minilm(references, tmp_path, **files):
    """MiniLM's folder with other settings: `None` takes a file away."""
    folder = tmp_path / "model"
    link(Path(str(np.load(references / "minilm.npz")["where"])), folder)
    (folder / "1_Pooling" / "config.json").unlink(missing_ok=True)
    (folder / "1_Pooling").mkdir(exist_ok=True)
    pooling = {"word_embedding_dimension": 384, "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(files.pop("pooling", pooling)))
    for name, content in files.items():
        replace_file(folder, f"{name}.json", None if content is None else json.dumps(content))
    return folder


@pytest.mark.slow
def test_what_sentence_transformers_does_around_a_tower(references, tmp_path):
    wanted = np.load(references / "minilm.npz")["text"]
    today = minilm(references, tmp_path / "a", pooling={"pooling_mode": "mean", "embedding_dimension": 384},
                   sentence_bert_config={"max_seq_length": None, "do_lower_case": False})  # fmt: skip
    assert np.abs(vlc.load(today).encode_text(inputs.TEXTS).embed - wanted).max() < 1e-5
    apart = tmp_path / "b"
    (apart / "1_Pooling").mkdir(parents=True)
    minilm(references, tmp_path / "c").rename(apart / "0_Transformer")
    (apart / "1_Pooling" / "config.json").write_text('{"pooling_mode": "mean"}')
    modules = [{"path": f"{place}_{kind}", "type": f"sentence_transformers.models.{kind}"}
               for place, kind in enumerate(("Transformer", "Pooling", "Normalize"))]  # fmt: skip
    (apart / "modules.json").write_text(json.dumps(modules))
    assert np.abs(vlc.load(apart).encode_text(inputs.TEXTS).embed - wanted).max() < 1e-5

    longer = vlc.load(minilm(references, tmp_path / "d", sentence_bert_config={"max_seq_length": 4096}))
    assert "texts are cut to those" in longer.notes[1] and np.isfinite(longer.encode_text(["a cat " * 900]).embed).all()
    first = vlc.load(minilm(references, tmp_path / "e", pooling={"pooling_mode_cls_token": True}))
    assert first.config.model.text.pool == "first" and "first token" in first.notes[0]
    dense = [*modules[:2], {"path": "2_Dense", "type": "sentence_transformers.models.Dense"}]
    for number, (files, said) in enumerate((
        ({"modules": [*dense, *dense[2:]]}, "the modules are Transformer, Pooling, Dense, Dense"),
        ({"modules": None}, "1_Pooling is there, but no modules.json"),
        ({"pooling": {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}}, "cls_token and mean_tokens"),
        ({"pooling": {"pooling_mode": "max"}}, "pooling by max is not known"),
        ({"config_sentence_transformers": {"default_prompt_name": "query"}}, "prompts has none"),
        ({"sentence_bert_config": {"max_seq_length": "256"}}, "a whole number or null is meant"),
        ({"tokenizer_config": {"do_lower_case": False, "tokenizer_class": "BertTokenizer"}}, "which is it"),
    )):  # fmt: skip
        with pytest.raises(CheckpointError, match=said):
            vlc.load(minilm(references, tmp_path / str(number), **files))


@pytest.mark.slow
def test_other_layouts_of_open_clips_folders(references, tmp_path):
    """Both libraries' settings in one folder, a text tower apart, hidden units that are cut to whole ones."""
    both = tmp_path / "both"
    link(references / "open_clip_gelu_32", both)
    replace_file(both, "config.json", (references / "clip_quick_16" / "config.json").read_text())
    assert vlc.load(both).config.model.embed_dim == 48 and vlc.load(both).config.model.image.patch == 32
    other = tmp_path / "other"
    link(references / "clip_quick_16", other)
    replace_file(
        other, "open_clip_config.json", (references / "open_clip_gelu_32" / "open_clip_config.json").read_text()
    )
    assert vlc.load(other).config.model.image.patch == 16
    apart = tmp_path / "apart"
    link(references / "open_clip_gelu_32", apart)
    weights = safetensors.numpy.load_file(apart / "open_clip_model.safetensors")
    text = ("token_embedding", "positional_embedding", "transformer.", "ln_final", "text_projection")
    named = {f"text.{name}" if name.startswith(text) else name: value for name, value in weights.items()}
    (apart / "open_clip_model.safetensors").unlink()
    safetensors.numpy.save_file(named, apart / "open_clip_model.safetensors")
    given = json.loads((apart / "open_clip_config.json").read_text())
    given["model_cfg"]["custom_text"] = True
    replace_file(apart, "open_clip_config.json", json.dumps(given))
    there = np.load(references / "open_clip_gelu_32.npz")["text"]
    assert np.abs(vlc.load(apart).encode_text(inputs.TEXTS).embed - there).max() < NEAR
