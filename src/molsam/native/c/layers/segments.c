#include "product.h"

/* Reductions over segments, offsets[b] <= row < offsets[b + 1], of rows of d numbers (models/layers/segment.py). */

static APART void scale(ptrdiff_t n, real *restrict x, real factor)
{
    for (ptrdiff_t j = 0; j < n; j++) x[j] *= factor;
}

/* out [segments, d] = the sum of each segment's rows, or their mean; 0 of none */
int segment_sum(ptrdiff_t threads, ptrdiff_t segments, ptrdiff_t d, ptrdiff_t mean, const int64_t *offsets OF(segments + 1),
                const real *x OF(N * d), real *out OF(segments * d))
{
#pragma omp parallel for num_threads(threads) schedule(static)
    for (ptrdiff_t b = 0; b < segments; b++) {
        ptrdiff_t rows = offsets[b + 1] - offsets[b];
        memset(out + b * d, 0, d * sizeof *out);
        for (int64_t v = offsets[b]; v < offsets[b + 1]; v++) add(d, out + b * d, x + v * d);
        if (mean && rows > 1) scale(d, out + b * d, 1 / (real)rows);
    }
    return 0;
}

/* Its transpose: grad [segments, d] -> by_x, every row that of its segment, divided by the segment's rows for a mean. */
int segment_spread(ptrdiff_t threads, ptrdiff_t segments, ptrdiff_t d, ptrdiff_t mean, const int64_t *offsets OF(segments + 1),
                   const real *grad OF(segments * d), real *by_x OF(N * d))
{
#pragma omp parallel for num_threads(threads) schedule(static)
    for (ptrdiff_t b = 0; b < segments; b++) {
        ptrdiff_t rows = offsets[b + 1] - offsets[b];
        for (int64_t v = offsets[b]; v < offsets[b + 1]; v++) {
            memcpy(by_x + v * d, grad + b * d, d * sizeof *by_x);
            if (mean && rows > 1) scale(d, by_x + v * d, 1 / (real)rows);
        }
    }
    return 0;
}

static APART void raise(ptrdiff_t n, real *restrict most, const real *restrict x)
{
    for (ptrdiff_t j = 0; j < n; j++) most[j] = x[j] > most[j] ? x[j] : most[j];
}

/* out [segments, d] = the maximum over each segment's rows; 0 of none */
int segment_max(ptrdiff_t threads, ptrdiff_t segments, ptrdiff_t d, const int64_t *offsets OF(segments + 1),
                const real *x OF(N * d), real *out OF(segments * d))
{
#pragma omp parallel for num_threads(threads) schedule(static)
    for (ptrdiff_t b = 0; b < segments; b++) {
        if (offsets[b] == offsets[b + 1]) memset(out + b * d, 0, d * sizeof *out);
        for (int64_t v = offsets[b]; v < offsets[b + 1]; v++)
            if (v == offsets[b]) memcpy(out + b * d, x + v * d, d * sizeof *out);
            else raise(d, out + b * d, x + v * d);
    }
    return 0;
}

static APART void to_hits(ptrdiff_t n, const real *restrict x, const real *restrict most, const real *restrict share,
                          real *restrict by_x)
{
    for (ptrdiff_t j = 0; j < n; j++) by_x[j] = x[j] == most[j] ? share[j] : 0;
}

/* grad [segments, d] of out -> by_x; equal maxima share */
int segment_max_backward(ptrdiff_t threads, ptrdiff_t segments, ptrdiff_t d, const int64_t *offsets OF(segments + 1),
                         const real *x OF(N * d), const real *out OF(segments * d), const real *grad OF(segments * d),
                         real *by_x OF(N * d))
{
    int failed = 0;
#pragma omp parallel num_threads(threads) reduction(| : failed)
    {
        real *share = memory(d);
        failed = !share;
#pragma omp for schedule(static)
        for (ptrdiff_t b = 0; b < segments; b++) {
            if (failed) continue;
            memset(share, 0, d * sizeof *share);
            for (int64_t v = offsets[b]; v < offsets[b + 1]; v++) count_hits(d, x + v * d, out + b * d, share);
            for (ptrdiff_t j = 0; j < d; j++) share[j] = grad[b * d + j] / share[j];
            for (int64_t v = offsets[b]; v < offsets[b + 1]; v++) to_hits(d, x + v * d, out + b * d, share, by_x + v * d);
        }
        free(share);
    }
    return failed;
}
