#include "readout.h"

/* The readout of dgllife's predictors (readout.py). Sums over atoms are added in double. */

static APART void add_weighted(ptrdiff_t n, double *restrict to, real weight, const real *restrict x,
                               real *restrict most)
{
    for (ptrdiff_t j = 0; j < n; j++) to[j] += weight * x[j], most[j] = x[j] > most[j] ? x[j] : most[j];
}

/* From h [N, d], w [d] and b [1]: weight [N] = sigmoid(w h + b), and out [molecules, 2 d] = [sum of weight h ; maximum
   of h]. */
int weighted_sum_and_max(ptrdiff_t threads, ptrdiff_t molecules, ptrdiff_t d, const int64_t *offsets OF(molecules + 1),
                         const real *h OF(N * d), const real *w OF(d), const real *b OF(1), real *weight OF(N),
                         real *out OF(molecules * 2 * d))
{
    int failed = 0;
#pragma omp parallel num_threads(threads) reduction(| : failed)
    {
        double *total = malloc((d + 1) * sizeof *total);
        failed = !total;
#pragma omp for schedule(static)
        for (ptrdiff_t m = 0; m < molecules; m++) {
            if (failed) continue;
            real *sum = out + m * 2 * d, *most = sum + d;
            memset(total, 0, d * sizeof *total);
            for (int64_t v = offsets[m]; v < offsets[m + 1]; v++) {
                weight[v] = sigmoid(*b + dot(d, w, h + v * d));
                if (v == offsets[m]) memcpy(most, h + v * d, d * sizeof *most);
                add_weighted(d, total, weight[v], h + v * d, most);
            }
            for (ptrdiff_t j = 0; j < d; j++) sum[j] = (real)total[j];
        }
        free(total);
    }
    return failed;
}

static APART void atom_backward(ptrdiff_t n, real weight, real slope, const real *restrict x, const real *restrict w,
                                const real *restrict by_sum, const real *restrict most, const real *restrict share,
                                real *restrict by_x, real *restrict by_w)
{
    for (ptrdiff_t j = 0; j < n; j++) {
        by_x[j] = by_sum[j] * weight + slope * w[j] + (x[j] == most[j] ? share[j] : 0);
        by_w[j] += slope * x[j];
    }
}

/* From the gradient of out: by_h and by_w. Equal maxima share the gradient. */
int weighted_sum_and_max_backward(ptrdiff_t threads, const ReadoutBackward *r)
{
    ptrdiff_t molecules = r->molecules, d = r->d;
    const int64_t *offsets = r->offsets;
    const real *h = r->h, *weight = r->weight;
    int failed = 0;
#pragma omp parallel num_threads(threads) reduction(| : failed)
    {
        real *share = memory(d), *mine = r->by_w + THREAD * (d + 1);
        failed = !share;
#pragma omp for schedule(static)
        for (ptrdiff_t m = 0; m < molecules; m++) {
            if (failed) continue;
            const real *most = r->out + m * 2 * d + d, *by_sum = r->grad + m * 2 * d;
            memset(share, 0, d * sizeof *share);
            for (int64_t v = offsets[m]; v < offsets[m + 1]; v++) count_hits(d, h + v * d, most, share);
            for (ptrdiff_t j = 0; j < d; j++) share[j] = by_sum[d + j] / share[j];
            for (int64_t v = offsets[m]; v < offsets[m + 1]; v++) {
                real slope = dot(d, by_sum, h + v * d) * weight[v] * (1 - weight[v]);
                atom_backward(d, weight[v], slope, h + v * d, r->w, by_sum, most, share, r->by_h + v * d, mine);
                mine[d] += slope;
            }
        }
        free(share);
    }
    return failed;
}
