"""Figures from embeddings and captions: ranking, retrieval, zero-shot, probes, caption metrics, intervals."""
