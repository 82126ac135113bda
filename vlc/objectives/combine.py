"""The training loss: any of the objectives, weighted, over one encoding of the batch.

It comes in two halves, so that gradient accumulation can cut between them: `encode_batch` encodes each image and text
by itself, `total_loss` compares them all.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vlc.models import DualEncoder, ImageEncoding, Scales
from vlc.objectives.attribute_mil import ATTRIBUTE_MIL, best_of_regions
from vlc.objectives.base import DUPLICATES, Encoded, Objective
from vlc.objectives.captioning import CAPTION, caption_nll
from vlc.objectives.contrastive import CLIP, SIGLIP
from vlc.objectives.cycle import CYCLE
from vlc.objectives.distillation import DISTILL
from vlc.objectives.duplicates import class_digests, digest, first_of_their_kind, image_digests, text_digests
from vlc.objectives.grammar import GRAMMAR
from vlc.objectives.grouping import GROUPING
from vlc.objectives.hard_margin import HARD_MARGIN
from vlc.objectives.hard_texts import HARD_CLIP, HARD_FILIP
from vlc.objectives.late_interaction import FILIP
from vlc.objectives.multi_positive import MULTI_POSITIVE
from vlc.objectives.policy import POLICY, token_divergence, token_log_probs
from vlc.objectives.preference import BEST_OF, PREFERENCE
from vlc.objectives.region_hard import REGION_HARD
from vlc.objectives.region_queries import REGION_BOXES
from vlc.objectives.regions import REGION, REGION_CAPTION
from vlc.objectives.same_class import REGION_SAME_CLASS, SAME_CLASS
from vlc.objectives.self_distillation import LOCAL_GLOBAL, MASKED
from vlc.objectives.sequence import SEQUENCE

TAUGHT = ("teacher_image", "teacher_text", "teacher_scale", "teacher_whole", "teacher_hidden")

_ALL = (
    CLIP, SIGLIP, FILIP, MULTI_POSITIVE, GROUPING, CAPTION, HARD_CLIP, HARD_FILIP, HARD_MARGIN, DISTILL, LOCAL_GLOBAL,
    MASKED, REGION, REGION_HARD, REGION_BOXES, REGION_CAPTION, ATTRIBUTE_MIL, CYCLE, SAME_CLASS,
    REGION_SAME_CLASS, SEQUENCE, POLICY, PREFERENCE, BEST_OF, GRAMMAR,
)  # fmt: skip
OBJECTIVES: dict[str, Objective] = {objective.name: objective for objective in _ALL}


def weighted(objectives: Any) -> list[Objective]:
    """The objectives that have weight in `config.objectives`."""
    return [objective for name, objective in OBJECTIVES.items() if objectives[name].weight]


def parts_used(objectives: Any) -> set[str]:
    """Parts of the encoding that the objectives with weight read."""
    used = {part for objective in weighted(objectives) for part in objective.uses}
    further = any(objectives[objective.name].get("hard_texts") for objective in weighted(objectives))
    return used | ({"hard_texts"} if further else set())


def compared_by(objectives: Any) -> tuple[str, ...]:
    """What images and texts are trained to be compared by: `tokens`, `embed`, both, or neither."""
    trained = {objective.compares for objective in weighted(objectives)}
    return tuple(how for how in ("tokens", "embed") if how in trained)


def one_way(objectives: Any) -> bool:
    """Whether tokens are compared by the words of a text alone (`filip.scores=text`)."""
    trained = [objective for objective in weighted(objectives) if objective.compares == "tokens"]
    return any(getattr(objectives[objective.name], "scores", "both") == "text" for objective in trained)


def encode_batch(
    model: DualEncoder, batch: dict[str, Array], objectives: Any, reference: DualEncoder | None = None
) -> Encoded:
    """Runs the towers, and the decoder where a caption objective has weight.

    Args:
        model: The model.
        batch: `image` `[B, S, S, 3]` (or packed, `vlc.data.naflex`), `text` `[B, T]`, `target` `[B, V]`, `null` `[B]`,
            and perhaps `subs` `[B, K-1, U]`, `hard` `[B, H, T]`, `broken` `[B, T]`, `classes` `[B]`, `control` `[B, S]`
            and `parallel` `[B]` (see `CaptionDecoder`), of regions `boxes` `[B, R, 4]`, `cover` `[B, R, P]`,
            `region_text` `[B, R, U]`, `region_control` `[B, R, S]`, `region_hard` `[B, R, H, U]` and `region_classes`
            `[B, R]`, captions that were written `sampled` `[B, K, T]` with their `reward` `[B, K]`
            (`vlc.train.rollout`), `kept` `[B, P]` (`random_patches`), what the teacher says (`TAUGHT`), and what the
            student sees of its pictures (`vlc.train.views`).
        objectives: `config.objectives`.
        reference: The model that training began with, where its captions are not to be left behind.
    """
    uses = parts_used(objectives)
    image = model.encode_image(batch["image"], batch.get("kept"), batch.get("inside"))
    embed = tokens = mask = nll = count = cycle_nll = grammar = None
    hard: dict[str, Array] = {}
    if uses & {"text_embed", "text_tokens"}:
        text = model.encode_text(batch["text"])
        embed, grammar = text.embed[:, None], text.grammar
        if "text_tokens" in uses:
            tokens, mask = text.tokens, text.mask.astype(jnp.float32)
        if "subs" in batch:
            rows, slots, length = batch["subs"].shape
            subs = model.encode_text(batch["subs"].reshape(rows * slots, length)).embed
            embed = jnp.concatenate([embed, subs.reshape(rows, slots, -1)], axis=1)
    if "hard_texts" in uses:
        rows, count_of_hard, length = batch["hard"].shape
        texts = model.encode_text(batch["hard"].reshape(rows * count_of_hard, length))
        hard = {"hard_embed": texts.embed, "hard_mask": texts.mask.astype(jnp.float32)}
        hard |= {"hard_tokens": texts.tokens} if "text_tokens" in uses else {}
        hard = {name: x.reshape(rows, count_of_hard, *x.shape[1:]) for name, x in hard.items()}
    if "grammar" in uses:
        hard |= encode_broken(model, batch, grammar)
    ignoring = any(objectives[one.name].get(DUPLICATES) == "ignored" for one in weighted(objectives))
    ids = None
    if ignoring or "sub_captions" in uses:
        assert model.text_tower is not None
        ids = text_digests(batch["text"], batch.get("subs"), pad=model.text_tower.vocab_size)
    if "caption" in uses:
        inputs, labels = batch["target"][:, :-1], batch["target"][:, 1:]
        logits = model.caption_logits(image, inputs, batch["null"], batch.get("control"), batch.get("parallel"))
        z_loss = objectives.caption.z_loss
        nll, count = caption_nll(logits, labels, labels < logits.shape[-1], z_loss=z_loss)
        if "cycle" in uses:
            written = jnp.argmax(jax.lax.stop_gradient(logits), axis=-1)
            again = model.reconstructed_logits(image, inputs, written)
            cycle_nll, _ = caption_nll(again, labels, labels < logits.shape[-1])
    image_tokens = image.tokens if "image_tokens" in uses else None
    taught = {name: jax.lax.stop_gradient(batch[name]) for name in TAUGHT if name in batch}
    views = {name: prototypes(model, batch, name) for name in ("crops", "hidden") if name in uses}
    return Encoded(
        image.embed, embed, image_tokens, tokens, mask, nll, count,
        image_mask=None if image.mask is None or image_tokens is None else image.mask.astype(jnp.float32),
        distinct=first_of_their_kind(ids) if ids is not None and "sub_captions" in uses else None,
        text_id=ids if ignoring else None,
        image_id=image_digests(batch["image"]) if ignoring else None,
        classes=class_digests(batch["classes"]) if "classes" in uses else None,
        cycle_nll=cycle_nll,
        **hard, **taught, **views, **encode_regions(model, batch, image, objectives),
        **(encode_written(model, batch, image, reference) if "written" in uses else {}),
    )  # fmt: skip


def encode_regions(
    model: DualEncoder, batch: dict[str, Array], image: ImageEncoding, objectives: Any
) -> dict[str, Array]:
    """What objectives need of the regions of a batch, as `Encoded` has it."""
    uses, found = parts_used(objectives), {}
    if "regions" in uses:
        found["region_embed"] = model.encode_regions(image, batch["cover"])
    if "region_texts" in uses:
        ids = batch["region_text"]
        texts = model.encode_text(ids.reshape(-1, ids.shape[2]))
        found["region_text_embed"] = texts.embed.reshape(*ids.shape[:2], -1)
        found["region_mask"] = texts.mask.any(axis=1).reshape(ids.shape[:2]).astype(jnp.float32)
        found |= {"region_id": digest(ids), "region_boxes": batch["boxes"]}
    if "region_hard" in uses:
        ids = batch["region_hard"]
        texts = model.encode_text(ids.reshape(-1, ids.shape[3]))
        found["region_hard_embed"] = texts.embed.reshape(*ids.shape[:3], -1)
        found["region_hard_mask"] = texts.mask.any(axis=1).reshape(ids.shape[:3]).astype(jnp.float32)
    if "region_classes" in uses:
        found["region_classes"] = class_digests(batch["region_classes"])
    if "queries" in uses:
        seen = model.find_regions(image)
        nothing = jnp.broadcast_to(model.absent_region(), (len(seen.boxes), seen.embed.shape[2]))
        found |= {"query_boxes": seen.boxes, "query_embed": seen.embed, "query_nothing": nothing}
    if "attributes" in uses:
        count = batch["cover"].shape[1]
        there = (jnp.arange(count) < batch["region_counts"][:, :1]).astype(jnp.float32)
        cosines = model.attribute_scores(image, batch["cover"])
        found |= {"attribute_score": best_of_regions(cosines, there)}
        found |= {"attribute_present": batch["attributes"].astype(jnp.float32)}
    if "region_captions" in uses:
        inputs, labels = batch["region_text"][..., :-1], batch["region_text"][..., 1:]
        boxes, cover = (batch.get(f"told_{name}", batch[name]) for name in ("boxes", "cover"))
        logits = model.region_logits(image, inputs, boxes, cover, batch["null"], batch.get("region_control"))
        logits, labels = logits.reshape(-1, *logits.shape[2:]), labels.reshape(-1, labels.shape[2])
        nll, count = caption_nll(logits, labels, labels < logits.shape[-1], z_loss=objectives.caption.z_loss)
        found |= {"region_nll": nll.reshape(inputs.shape[:2]), "region_count": count.reshape(inputs.shape[:2])}
    return found


def encode_broken(model: DualEncoder, batch: dict[str, Array], grammar: Array | None) -> dict[str, Array]:
    """How well formed captions are, and their broken copies."""
    assert grammar is not None, "this model was built without a head for grammar"
    copies = model.encode_text(batch["broken"])
    assert copies.grammar is not None
    there = copies.mask.any(axis=1).astype(jnp.float32)
    return {"grammar": grammar, "grammar_of_broken": copies.grammar, "broken_there": there}


def encode_written(
    model: DualEncoder, batch: dict[str, Array], image: ImageEncoding, reference: DualEncoder | None
) -> dict[str, Array]:
    """What captions that were written are worth, and how likely they are now."""
    inputs, labels = batch["sampled"][..., :-1], batch["sampled"][..., 1:]
    logits = model.sampled_logits(image, inputs)
    log_prob, mask = token_log_probs(logits, labels)
    found = {"sampled_log_prob": log_prob, "sampled_mask": mask, "reward": batch["reward"]}
    found |= {name: batch[name] for name in ("sampled_old", "reward_baseline") if name in batch}
    if reference is not None:
        theirs = jax.lax.stop_gradient(reference.sampled_logits(reference.encode_image(batch["image"]), inputs))
        found["sampled_kl"] = token_divergence(logits, theirs) * mask
        found["sampled_first"], _ = token_log_probs(theirs, labels)
    return found


def prototypes(model: DualEncoder, batch: dict[str, Array], view: str) -> Float[Array, "B N K"]:
    """What the model chooses for the crops of each image, or for its patches that are hidden."""
    if view == "crops":
        rows, count, *shape = batch["crops"].shape
        whole, _ = model.encode_view(batch["crops"].reshape(rows * count, *shape))
        return whole.reshape(rows, count, -1)
    _, patches = model.encode_view(batch["image"], batch["hidden"], batch["hidden"])
    return patches


def total_loss(encoded: Encoded, scales: Scales, objectives: Any) -> tuple[Float[Array, ""], dict[str, Array]]:
    """The weighted sum, and each term without its weight."""
    terms = {}
    for objective in weighted(objectives):
        with jax.named_scope(objective.name):
            terms[objective.name] = objective.loss(encoded, scales, objectives[objective.name])
    total = sum((objectives[name].weight * term for name, term in terms.items()), start=jnp.float32(0))
    return total, terms
