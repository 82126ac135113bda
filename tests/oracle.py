"""The objectives as plain NumPy in float64, written from their equations, and numerical gradients of them."""

import numpy as np


def log_softmax(x, axis):
    top = x.max(axis=axis, keepdims=True)
    return x - top - np.log(np.exp(x - top).sum(axis=axis, keepdims=True))


def pair_loss(logits, axis, smoothing=0.0):
    count = len(logits)
    target = (1 - smoothing) * np.eye(count) + smoothing / count
    return -(target * log_softmax(logits, axis)).sum() / count


def soft_maximum(x, axis, smoothing):
    top = x.max(axis=axis)
    if not smoothing:
        return top
    return top + smoothing * np.log(np.exp((x - np.expand_dims(top, axis)) / smoothing).sum(axis=axis))


def late_interaction(images, texts, mask, smoothing=0.0):
    i2t = np.zeros((len(images), len(texts)))
    t2i = np.zeros_like(i2t)
    for i, image in enumerate(images):
        for j, text in enumerate(texts):
            kept = text[mask[j]]
            if len(kept):
                products = image @ kept.T
                i2t[i, j] = soft_maximum(products, 1, smoothing).mean()
                t2i[i, j] = soft_maximum(products, 0, smoothing).mean()
    return i2t, t2i


def late_interaction_gradient(images, texts, mask, g_i2t, g_t2i):
    """Gradients of `sum(g_i2t * i2t + g_t2i * t2i)`, in float64; away from ties."""
    d_images, d_texts = np.zeros(images.shape), np.zeros(texts.shape)
    for i, image in enumerate(images):
        for j, text in enumerate(texts):
            kept = np.flatnonzero(mask[j])
            if not len(kept):
                continue
            products = image @ text[kept].T
            for p, q in enumerate(kept[products.argmax(axis=1)]):
                d_images[i, p] += g_i2t[i, j] / len(image) * text[q]
                d_texts[j, q] += g_i2t[i, j] / len(image) * image[p]
            for q, p in zip(kept, products.argmax(axis=0), strict=True):
                d_images[i, p] += g_t2i[i, j] / len(kept) * text[q]
                d_texts[j, q] += g_t2i[i, j] / len(kept) * image[p]
    return d_images, d_texts


def clip(image, text, scale, smoothing=0.0, reduction="mean"):
    logits = scale * image @ text.T
    total = pair_loss(logits, 1, smoothing) + pair_loss(logits, 0, smoothing)
    return total if reduction == "sum" else total / 2


def siglip(image, text, scale, bias):
    total = 0.0
    for i, v in enumerate(image):
        for j, t in enumerate(text):
            z = (1 if i == j else -1) * (scale * v @ t + bias)
            total += np.logaddexp(0, -z)
    return total / len(image)


def filip(images, texts, mask, scale):
    i2t, t2i = late_interaction(images, texts, mask)
    return (pair_loss(scale * i2t, 1) + pair_loss(scale * t2i, 0)) / 2


def filip_by_text(images, texts, mask, scale):
    _, t2i = late_interaction(images, texts, mask)
    return (pair_loss(scale * t2i, 1) + pair_loss(scale * t2i, 0)) / 2


def transport(logits, rounds=50):
    """Sinkhorn's scaling of positive numbers, not of their logarithms."""
    plan = np.exp(np.asarray(logits, np.float64))
    for _ in range(rounds):
        plan /= plan.sum(1, keepdims=True)
        plan /= plan.sum(0, keepdims=True)
    return plan


def clip_transported(image, text, scale, share, plan):
    logits = scale * image @ text.T
    targets = (1 - share) * np.eye(len(logits)) + share * plan
    return -(targets * (log_softmax(logits, 1) + log_softmax(logits, 0))).sum() / 2 / len(logits)


def multi_positive(image, captions, scale, negatives):
    slots = range(captions.shape[1])
    if negatives == "slot":
        return np.mean([clip(image, captions[:, k], scale) for k in slots])
    total_i = total_t = 0.0
    for i, v in enumerate(image):
        others = np.concatenate([scale * captions[j] @ v for j in range(len(image)) if j != i])
        for k in slots:
            own = scale * captions[i, k] @ v
            total_i += np.logaddexp.reduce(np.append(others, own)) - own
            total_t += np.logaddexp.reduce(scale * image @ captions[i, k]) - own
    return (total_i + total_t) / 2 / (len(image) * captions.shape[1])


def hard_texts(own, wrong, there):
    """Cross-entropy of the right one among it and the wrong ones that there are, of the records that have any."""
    rows = [np.append(w[t], o) for o, w, t in zip(own, wrong, there, strict=True) if t.any()]
    return np.mean([np.logaddexp.reduce(row) - row[-1] for row in rows]) if rows else 0.0


def hard_clip(image, text, wrong, there, scale):
    return hard_texts(scale * (image * text).sum(-1), scale * np.einsum("bd,bkd->bk", image, wrong), there)


def hard_filip(images, texts, mask, wrong, wrong_mask, scale, smoothing=0.0):
    there, every = wrong_mask.any(axis=2), range(len(images))
    own = [late_interaction(images[[i]], texts[[i]], mask[[i]], smoothing) for i in every]
    others = [late_interaction(images[[i]], wrong[i], wrong_mask[i], smoothing) for i in every]
    ways = (
        (scale * np.array([found[way][0, 0] for found in own]), scale * np.array([found[way][0] for found in others]))
        for way in (0, 1)
    )
    return np.mean([hard_texts(*scores, there) for scores in ways])


def hard_filip_by_text(images, texts, mask, wrong, wrong_mask, scale, smoothing=0.0):
    own = [late_interaction(images[[i]], texts[[i]], mask[[i]], smoothing)[1][0, 0] for i in range(len(images))]
    others = [late_interaction(images[[i]], wrong[i], wrong_mask[i], smoothing)[1][0] for i in range(len(images))]
    return hard_texts(scale * np.array(own), scale * np.array(others), wrong_mask.any(axis=2))


def hard_margin(image, text, wrong, there, scale, bound, margin=None):
    gaps = [scale * (v @ t - v @ w) for v, t, ws, ts in zip(image, text, wrong, there, strict=True)
            for w, is_there in zip(ws, ts, strict=True) if is_there]  # fmt: skip
    margin = min(max(np.mean(gaps), 0), bound) if margin is None else margin
    return np.mean([max(0, margin - gap) for gap in gaps]), margin


def choose_among_wrong(i2t, t2i, wrong_i2t, there, scale, weight):
    """NegCLIP: an image chooses among the captions and the wrong texts of the batch, a caption among the images."""
    rows = [
        [scale * s for s in row] + [scale * s + np.log(weight) for s, t in zip(wrong, there.ravel(), strict=True) if t]
        for row, wrong in zip(i2t, wrong_i2t, strict=True)
    ]
    of_images = np.mean([np.logaddexp.reduce(row) - row[i] for i, row in enumerate(rows)])
    return (of_images + pair_loss(scale * t2i, 0)) / 2


def clip_wrong(image, text, wrong, there, scale, weight):
    products = image @ text.T
    return choose_among_wrong(
        products, products, image @ wrong.reshape(-1, wrong.shape[-1]).T, there, scale, weight
    )  # fmt: skip


def siglip_wrong(image, text, wrong, there, scale, bias, weight):
    false = [np.logaddexp(0, scale * v @ w + bias) for v in image for w in wrong[there]]
    return siglip(image, text, scale, bias) + weight * np.sum(false) / len(image)


def filip_wrong(images, texts, mask, wrong, wrong_mask, scale, weight):
    flat = wrong.reshape(-1, *wrong.shape[2:]), wrong_mask.reshape(-1, wrong_mask.shape[2])
    scores = late_interaction(images, texts, mask)
    return choose_among_wrong(*scores, late_interaction(images, *flat)[0], wrong_mask.any(axis=2), scale, weight)


def groups(patches, captions, threshold):
    out = np.zeros_like(captions)
    for i in range(len(captions)):
        for k, caption in enumerate(captions[i]):
            similarity = patches[i] @ caption
            low, high = similarity.min(), similarity.max()
            weight = (similarity - low) / (high - low) if high > low else np.ones_like(similarity)
            weight = np.where(weight < threshold, 0, weight)
            mean = (weight / weight.sum()) @ patches[i]
            out[i, k] = mean / np.linalg.norm(mean)
    return out


def grouping(patches, captions, scale, threshold=None, negatives="image"):
    grouped = groups(patches, captions, 1 / patches.shape[1] if threshold is None else threshold)
    if negatives == "batch":
        width = captions.shape[-1]
        return clip(captions.reshape(-1, width), grouped.reshape(-1, width), scale)
    return np.mean([clip(captions[i], grouped[i], scale) for i in range(len(captions))])


def caption(logits, labels, mask, average):
    log_probs = log_softmax(logits, -1)
    sums = [sum(-log_probs[i, t, labels[i, t]] for t in range(len(row)) if row[t]) for i, row in enumerate(mask)]
    counts = mask.sum(axis=1)
    if average == "token":
        return sum(sums) / counts.sum()
    return np.mean([s / c for s, c in zip(sums, counts, strict=True) if c])


def numerical_gradient(function, x, step=1e-6):
    """Central differences of a scalar function at every entry of a float64 array."""
    gradient = np.zeros_like(x)
    for place in np.ndindex(*x.shape):
        moved = x.copy()
        moved[place] += step
        above = function(moved)
        moved[place] -= 2 * step
        gradient[place] = (above - function(moved)) / (2 * step)
    return gradient
