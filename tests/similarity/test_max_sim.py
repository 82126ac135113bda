"""`max_sim` is ColBERT's sum of maxima, whatever pads hold, for more documents than are compared at once."""

import jax
import numpy as np

from vlc.similarity import max_sim


def test_it_is_the_sum_over_a_querys_tokens_of_the_best_of_a_document():
    rng = np.random.default_rng(0)
    queries, documents = rng.normal(size=(3, 5, 8)).astype(np.float32), rng.normal(size=(70, 9, 8)).astype(np.float32)
    query_mask, document_mask = rng.random((3, 5)) < 0.7, rng.random((70, 9)) < 0.6
    document_mask[4] = False
    expected = np.zeros((3, 70))
    for q in range(3):
        for d in range(70):
            products = queries[q][query_mask[q]] @ documents[d][document_mask[d]].T
            expected[q, d] = products.max(axis=1).sum() if products.size else 0
    found = max_sim(queries, query_mask, documents, document_mask)
    assert np.abs(found - expected).max() < 1e-5 and (found[:, 4] == 0).all()
    documents[~document_mask], queries[~query_mask] = 1e9, 1e9
    assert np.abs(max_sim(queries, query_mask, documents, document_mask) - expected).max() < 1e-5
    slope = jax.grad(lambda x: max_sim(x, query_mask, documents, document_mask).sum())(queries)
    assert np.isfinite(slope).all()
