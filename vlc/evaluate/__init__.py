"""What a trained model can do: retrieval, zero-shot classification, binding, localisation, captions, and the report."""
