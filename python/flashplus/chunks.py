# SPDX-License-Identifier: BSD-3-Clause
"""attention_chunk of FlashAttention 3's functions (Llama 4): of what the mask shows a row sees the keys of its own
chunk only, [p // c * c, p // c * c + c) for row i at p = i + seqlen_k - seqlen_q. A score says which keys these are,
with a gradient, in every kernel; a window leaves out what no row of a chunk can see."""

from flashplus import checks, scores

TEXT = "where(q + sk - sq - (q + sk - sq) % attention_chunk == k - k % attention_chunk, s, -inf)"
_MOST = 2**22  # up to which `%` of positions is exact (docs/scores.md)


def check(attention_chunk):
    """A plain number, 0 for none."""
    chunk = checks.integer("attention_chunk", attention_chunk)
    if not 0 <= chunk <= _MOST:
        raise ValueError(f"attention_chunk is {chunk}; it must be from 1 to {_MOST}, or 0 for none")
    return chunk


def said(chunk):
    """The score's text and scalars, of 0 those of no score."""
    return (TEXT, {"attention_chunk": float(chunk)}) if chunk else ("", {})


def score(chunk):
    """A scores.Score, or None."""
    text, scalars = said(chunk)
    return scores.Score(text, {}, scalars) if chunk else None


def narrowed(chunk, causal, left, right):
    """(left, right) of the window of plain numbers that shows no more than a chunk can."""
    if chunk:
        left = chunk - 1 if left < 0 else min(left, chunk - 1)
        if not causal:
            right = chunk - 1 if right < 0 else min(right, chunk - 1)
    return left, right
