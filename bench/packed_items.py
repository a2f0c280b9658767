#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""What the forward's work items make of packed documents, counted without a GPU: for each batch the share of
items without a row, of the area of all tiles of scores that no mask shows, and of the time of all blocks that
they wait for the last one (the tail).

The tail is that of a model: a block needs 1 for a tile of keys and FIXED for what an item costs beside them,
EMPTY for one without rows. `before`: items are batch times the longest sequence's tiles, and a block asks for
its next item when it begins to copy one; `now`: those of the true lengths, the longest sequences first, asked
for when nearly all of the one before is copied (docs/rationale/packed-items.md). With --dense: the tail of
dense causal cells, by when a block asks.

  python bench/packed_items.py [--dense] [--blocks 132]
"""
import argparse
import heapq

FIXED, EMPTY, AHEAD = 3.0, 0.8, 2  # AHEAD: tiles that are copied before they are used
CACHE = 32 << 20


def documents():
    """The batches of docs/performance.md."""
    import torch
    generator = torch.Generator().manual_seed(5)
    for name, total, mean in (("mean 256", 32768, 256), ("mean 1k", 32768, 1024), ("mean 4k", 65536, 4096)):
        lengths = []
        while sum(lengths) < total:
            length = int(torch.empty(1).exponential_(1 / mean, generator=generator)) + 1
            lengths.append(min(length, total - sum(lengths)))
        yield name, lengths
    yield "16k and 64 of 256", [16384] + [256] * 64


def key_tiles(length, tile, tile_m, tile_n, causal):
    """Tiles of keys that a tile of queries sees; 0 where it has no row."""
    first = tile * tile_m
    if first >= length:
        return 0
    seen = min(first + tile_m, length) if causal else length
    return -(-seen // tile_n)


def items(lengths, heads, tile_m, tile_n, causal, section, by_length):
    """Tiles of keys of each item, in order."""
    if not by_length:
        tiles = -(-max(lengths) // tile_m)
        triples = [length for length in lengths for _ in range(heads)]
        return [key_tiles(length, m, tile_m, tile_n, causal)
                for at in range(0, len(triples), section)
                for m in reversed(range(tiles)) for length in triples[at:at + section]]
    return [key_tiles(length, m, tile_m, tile_n, causal)
            for length in sorted(lengths, key=lambda n: -n.bit_length())
            for at in range(0, heads, section)
            for m in reversed(range(-(-length // tile_m)))
            for _ in range(min(section, heads - at))]


def tail(counts, blocks, late, counter):
    cost = [FIXED + n if n else EMPTY for n in counts]
    ends = [0.0] * blocks
    if not counter:  # one of each wave, from alternating ends
        for i, c in enumerate(cost):
            wave, place = divmod(i, blocks)
            ends[place if wave % 2 == 0 else blocks - 1 - place] += c
    else:
        asking = []
        for b in range(min(blocks, len(cost))):
            ends[b] = cost[b]
            asking.append((max(0.0, cost[b] - AHEAD) if late else 0.0, b))
        heapq.heapify(asking)
        for i in range(blocks, len(cost)):
            now, b = heapq.heappop(asking)
            start = max(ends[b], now)
            ends[b] = start + cost[i]
            heapq.heappush(asking, (max(now, (ends[b] if late and counts[i] > AHEAD else start) - AHEAD), b))
    return 1 - sum(cost) / blocks / max(ends)


def report_packed(blocks):
    print("| documents | | tile | empty items | area in vain | tail before | tail now | items now |")
    print("|---|---|---|---|---|---|---|---|")
    for name, lengths in documents():
        for what, heads, group, dim, causal in (("32/8 D 128 causal", 32, 4, 128, True),
                                                ("16/16 D 64 causal", 16, 1, 64, True),
                                                ("16/16 D 128 full", 16, 1, 128, False)):
            longest = max(lengths)
            if dim == 64:
                tile_m, tile_n = (128, 128) if longest <= 1536 else (192, 96) if longest <= 3072 else (192, 128)
            else:
                tile_m, tile_n = (128, 128) if causal or longest <= 3072 else (192, 80)
            section = max(1, CACHE // (longest * dim * 4)) * group if causal else 1
            old = items(lengths, heads, tile_m, tile_n, causal, min(section, heads * len(lengths)), False)
            new = items(lengths, heads, tile_m, tile_n, causal, min(section, heads), True)
            seen = heads * sum(n * (n + 1) // 2 if causal else n * n for n in lengths)
            print(f"| {len(lengths)}, {name} | {what} | {tile_m} x {tile_n} | {old.count(0) / len(old):.0%} "
                  f"| {1 - seen / (sum(old) * tile_m * tile_n):.0%} | {tail(old, blocks, False, causal):.1%} "
                  f"| {tail(new, blocks, True, True):.1%} | {len(new)} |")


def report_dense(blocks):
    print("| | S | tail, asked for early | late |")
    print("|---|---|---|---|")
    for dim, tile_m, tile_n in ((64, 192, 128), (128, 128, 128), (256, 128, 80)):
        for length in (2048, 4096, 8192, 16384):
            lengths, heads = [length] * (16384 // length), 2048 // dim
            section = min(heads * len(lengths), max(1, CACHE // (length * dim * 4)))
            counts = items(lengths, heads, tile_m, tile_n, True, section, False)
            early, late = (tail(counts, blocks, when, True) for when in (False, True))
            print(f"| D {dim} | {length} | {early:.1%} | {late:.1%} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--dense", action="store_true")
    parser.add_argument("--blocks", type=int, default=132)
    arguments = parser.parse_args()
    (report_dense if arguments.dense else report_packed)(arguments.blocks)
