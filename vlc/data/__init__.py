"""Files to batches: sources, captions, images, tokenizers and the input pipeline (NumPy only)."""
