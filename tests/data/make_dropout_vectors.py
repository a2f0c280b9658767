#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Known answers of tests/unit/spec/dropout_test.cpp, from a second implementation: Python integers, written from the
text of spec/dropout.h alone. Prints the words of Philox and an 8 x 32 corner of masks as one number a row (bit j =
key j is kept).
"""
from fractions import Fraction
from math import floor

M32 = (1 << 32) - 1


def philox(counter, key, rounds):
    x0, x1, x2, x3 = counter
    k0, k1 = key
    for n in range(rounds):
        a, b = 0xD2511F53 * x0, 0xCD9E8D57 * x2
        x0, x1, x2, x3 = (b >> 32) ^ x1 ^ ((k0 + n * 0x9E3779B9) & M32), b & M32, (a >> 32) ^ x3 ^ (
            (k1 + n * 0xBB67AE85) & M32), a & M32
    return x0, x1, x2, x3


def thresholds(p):
    """Of (row number, key number), as many levels of 256 as are kept."""
    kept = floor((1 - p) * 4096 + Fraction(1, 2))
    diagonals = [0, 2, 1, 3]  # how far the key number is ahead of the row number, modulo 4
    places = [(row, (row + ahead) % 4) for ahead in diagonals for row in [0, 2, 1, 3]]
    return {place: kept // 16 + (n < kept % 16) for n, place in enumerate(places)}


def keeps(p, seed, offset, head, i, j):
    for a in range(4):
        for c in range(4):
            rows, keys = [2 * a, 2 * a + 1, 2 * a + 8, 2 * a + 9], [2 * c, 2 * c + 1, 2 * c + 8, 2 * c + 9]
            if i % 16 in rows and j % 16 in keys:
                row, key = rows.index(i % 16), keys.index(j % 16)
                words = philox((j // 16 * 16 + 4 * a + c, i // 16, head, offset & M32),
                               (seed & M32, (seed >> 32) ^ (offset >> 32)), 7)
                return words[row].to_bytes(4, "little")[key] < thresholds(p)[row, key]


def main():
    for rounds in 7, 10:
        for counter, key in (((0,) * 4, (0,) * 2), ((M32,) * 4, (M32,) * 2),
                             ((0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344), (0xa4093822, 0x299f31d0))):
            print(rounds, " ".join(f"{x:08x}" for x in philox(counter, key, rounds)))
    for p, seed, offset, head, i0, j0 in ((Fraction(1, 10), 0x123456789abcdef0, 0x0fedcba987654321, 5, 12, 40),
                                          (Fraction(1, 2), 7, 4, 0, 0, 0), (Fraction(17,
                                                                                     100), 1, 0, 70000, 1000, 2000)):
        rows = [sum(keeps(p, seed, offset, head, i0 + i, j0 + j) << j for j in range(32)) for i in range(8)]
        print(float(p), ", ".join(f"0x{row:08x}" for row in rows))


main()
