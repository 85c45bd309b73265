"""Lower and upper bounds of distances, computed from tables, and why a search that trusts them loses nothing.

Smaller is better throughout: inner products have their sign turned. With a = x - centre and
g_l = c_l - centre (the centre is the mean of the centroids for l2, the origin for ip), in real numbers,

    l2:  |x - c_l - y|^2        =  |a - g_l|^2 + sum over m of (|y_m|^2 - 2 <a_m, y_m>) + 2 <g_l, y>
    ip:  -<x, c_l> - <x, y>     =  -<x, c_l>   + sum over m of -<x_m, y_m>
                               =:  base        + sum over m of T[m, j_m]                + t

1.  *Roundings.* A sum of n products in any order, fused or not, is off by at most gamma(n) times the sum of their
    magnitudes (see `screening`), gamma(n) = n u / (1 - n u), u = 2^-24. Long chains are few. Write A, G, Y for |a|,
    the longest g_l and the square root of the sum over m of the largest |y_m|^2, and R = A + G + Y.

    - base has d products of a and g_l, whose magnitudes add up to at most 2 A G, and t has d of g_l and y: 2 G Y.
    - T[m, j] has dsub = d / M products, and M of them are added; the defined sum of |x - c_l - y|^2 has
      d / (16 M) + 4 + M additions in a row, and |a|^2 and, for ip, the defined <x, c_l> have d / 16 + 4. The magnitudes
      in each of them add up to at most R^2, because |x - c_l| <= A + G.
    - Differences, squares, centring, the byte of the term, and lengths add some roundings, fewer than 64, each of
      something that is at most R^2.

    *Panels.* Products with a are those of copies a', g' and y' of 16 bits a number (`panels.Panels`), as integers: a
    stretch of them is added up without rounding, since the scales leave no stretch longer than 2^15.5, which 32 bits
    allow. Lengths are those of the numbers themselves. That takes base off by 2 (<a, g_l> - <a', g'_l>) and the sum of
    T by 2 (<a, y> - <a', y'>), together by at most 2 (A (C + D) + B (G + Y + C + D)), where C is the largest
    |g_l - g'_l|, D^2 the sum over m of the largest |y_m - y'_m|^2, and B >= |a - a'| is half of what 1 stands for in
    a', times the root of d.

    So what is computed from tables and the defined distance differ by at most

        E = gamma (2.1 d G (A + Y) + (1.1 dsub + 2 M + d / 8 + 80) R^2) + 2.1 (A (C + D) + B (G + Y + C + D))
            + 8 d tiny

    with gamma = u / (1 - (2.1 d + 64) u). For cosine, whose 1 - distance / 2 is rounded once more, and may so tie, E
    grows by 2^-22 (1 + R^2). Where R^2 > 1e36, numbers may leave float32: E is infinite and every comparison lets pass
    (they are written so that NaN passes too). Coarse distances are off by the same with Y = D = 0 and no sum over m.
    *Residual quantizers.* T[m, j] = -2 <a, w_m[j]> for l2, and t = |y|^2 + 2 <g_l, y>: see `quantizers`. Lengths of
    whole codewords add up, so that Y is the sum over m of the longest |w_m|, and D that of the largest |w_m - w'_m|.
    dsub is d. The M - 1 roundings of y = w_1 + ... + w_M take the place of those of the sum over m in the defined
    distance.

    *One list at the origin*, which `IndexPQ` has: any v may take the place of both centre and centroid, with y - v in
    that of y, since c_l = 0 adds no rounding to the defined distance. So R is as large as the vectors lie apart, and
    not as they lie far out.
2.  *Terms.* low_l + step_l u_i <= t_i < low_l + step_l (u_i + 1), or u_i + v_i / 256 and 1 / 256: see `quantizers`.
3.  *8-bit tables.* step * sum of t8 + sum of low_m <= sum of T + step: see `avx512`, and `avx2`, whose t8 come of the
    smallest entries of groups. So a code may be left out if

        sum of t8 + floor(u_i * scale / 256)  >  (theta - base - low_l - sum of low_m + E) / step + 1

    In half steps, half of two saturating sums of bytes, rounded down, is no more than the sum: it says the same.
    Sums are not negative: where the right side less 1 is, the whole list may be left out. A saturating sum of 8 bits is
    what it should be or 255, which says as much if the right side is below 255. (step is any number above 0, and may
    be made so.)
4.  *theta.* The k codes with the smallest upper bounds have distances of at most theta. A code whose lower bound is
    above theta is farther than all of them. Those that remain are evaluated query by query, in order of their lower
    bounds, and passed over when the lower bound is above the k-th distance found. Ties go to the smaller id.
"""

from __future__ import annotations

import numpy as np

from ivfpq.kernels.intrinsics import trailing_zeros
from ivfpq.kernels.jit import jit_inner
from ivfpq.kernels.layout import COSINE, row_number
from ivfpq.kernels.memory import float32_at

F32 = np.float32


# E of the proof, of coarse distances and of distances of codes
@jit_inner
def errors(quantizers, square, unit):
    """What screened coarse distances, and distances of codes, can be off by: see 1. of the proof.

    Parameters
    ----------
    quantizers : record of type QUANTIZERS
    square : float64
        |a|^2.
    unit : float64
        What 1 stands for in a'.
    """
    d = np.float64(quantizers.d)
    terms = (2.1 * d + 64.0) * 2.0**-24
    gamma = 2.0**-24 / (1.0 - terms) if terms < 0.5 else np.inf
    length = np.sqrt(square) * (1.001 + terms)
    cut = 0.51 * unit * np.sqrt(d)
    centroid, code = quantizers.longest_centroid, quantizers.longest_code
    near, far = length + centroid, length + centroid + code
    coarse, reach = near * near, far * far
    few = d / 8.0 + 80.0
    floor = 8.0 * d * 1.2e-38
    loss = 2.1 * (length * quantizers.centroid_loss + cut * (centroid + quantizers.centroid_loss))
    coarse_error = gamma * (2.1 * d * centroid * length + few * coarse) + loss + floor
    few += 1.1 * np.float64(quantizers.dsub) + 2.0 * quantizers.M
    loss += 2.1 * (length * quantizers.codebook_loss + cut * (code + quantizers.codebook_loss))
    error = gamma * (2.1 * d * centroid * (length + code) + few * reach) + loss + floor
    if quantizers.metric == COSINE:
        error += 2.0**-22 * (1.0 + reach)
    return coarse_error if coarse < 1e36 else np.inf, error if reach < 1e36 else np.inf


# base + low - E + T[np.arange(M), code[:M]].sum() + term_step * code[M]
@jit_inner
def lower_bound(quantizers, lists, query, block, lane):
    """A lower bound of the distance of one code of the list being scanned, from float32 tables."""
    M, wide, total = quantizers.M, quantizers.wide, F32(0.0)
    if quantizers.code_rows < M:
        others = F32(0.0)
        for row in range(M >> 1):
            pair, table = row_number(lists, block, row, lane), query.floats + 8 * row * wide
            total += float32_at(table, pair & 15)
            others += float32_at(table, wide + (pair >> 4))
        if M & 1:
            total += float32_at(query.floats, (M - 1) * wide + row_number(lists, block, M >> 1, lane))
        total += others
    else:
        for m in range(M):
            total += float32_at(query.floats, m * wide + row_number(lists, block, m, lane))
    lower = query.base - query.error + np.float64(total)
    if quantizers.terms:
        lower += query.term_step * np.float64(row_number(lists, block, quantizers.code_rows, lane))
    if quantizers.terms == 2:
        lower += query.term_step / 256.0 * np.float64(row_number(lists, block, quantizers.code_rows + 1, lane))
    return lower


# (lower_bound(lane) <= query.theta).any()
@jit_inner
def some_near(quantizers, lists, query, block, lanes):
    """Whether one of four codes may be near, those whose bits in `lanes` are set; not for numbers of 4 bits.

    Four sums that do not wait for each other keep the processor busy.
    """
    a = np.int64(trailing_zeros(lanes))
    lanes &= lanes - np.uint64(1)
    b = np.int64(trailing_zeros(lanes))
    lanes &= lanes - np.uint64(1)
    c = np.int64(trailing_zeros(lanes))
    d = np.int64(trailing_zeros(lanes & (lanes - np.uint64(1))))
    s0 = s1 = s2 = s3 = F32(0.0)
    table, step = query.floats, F32(query.term_step)
    for m in range(quantizers.M):
        s0 += float32_at(table, row_number(lists, block, m, a))
        s1 += float32_at(table, row_number(lists, block, m, b))
        s2 += float32_at(table, row_number(lists, block, m, c))
        s3 += float32_at(table, row_number(lists, block, m, d))
        table += 4 * quantizers.wide
    for row in range(quantizers.M, quantizers.M + quantizers.terms):
        s0 += step * F32(row_number(lists, block, row, a))
        s1 += step * F32(row_number(lists, block, row, b))
        s2 += step * F32(row_number(lists, block, row, c))
        s3 += step * F32(row_number(lists, block, row, d))
        step *= F32(1.0 / 256.0)
    bound = query.theta + query.error - query.base
    limit = F32(bound + abs(bound) * 2.0**-22)
    return not (s0 > limit and s1 > limit and s2 > limit and s3 > limit)


# lower + term_step + 2 E
@jit_inner
def upper_bound(quantizers, query, lower, term_step):
    """The upper bound that belongs to a lower bound, in a list whose terms have steps of `term_step`."""
    return lower + (term_step / 256.0 if quantizers.terms == 2 else term_step) + 2.0 * query.error
