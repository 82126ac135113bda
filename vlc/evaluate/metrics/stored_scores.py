"""Scores of some stored images with some stored texts."""

import numpy as np

from vlc.evaluate.embeddings import Embedded
from vlc.evaluate.metrics.retrieval import token_scores
from vlc.models import TextEncoding


class StoredScores:
    """Scores of a few images with a few texts, both ways."""

    def __init__(self, image: Embedded, text: Embedded, by: str, *, one_way: bool):
        self.by, self.one_way = by, one_way
        name = "tokens" if by == "tokens" else "embed"
        self.images, self.texts = image.array(name), text.array(name)
        self.mask = text.array("mask") if by == "tokens" else None

    def __call__(self, images: list[int], texts: list[int]) -> tuple[np.ndarray, np.ndarray]:
        if self.mask is None:
            scores = self.images[images] @ self.texts[texts].T
            return scores, scores
        tokens = self.texts[texts]
        text = TextEncoding(tokens, tokens[:, 0], self.mask[texts])
        return token_scores(self.images[images], text, one_way=self.one_way, block=len(texts))
