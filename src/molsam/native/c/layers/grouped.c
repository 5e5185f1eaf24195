#include "product.h"

/* Products of groups of rows, each with a matrix of its own (layers/grouped.py); widths are whole vectors. */

/* rows [all, d] in consecutive groups of sizes [groups]; matrices [groups, d, f], or [groups, f, d] if they are `turned`
   -> out [all, f], every row times its group's matrix */
int grouped_product(ptrdiff_t threads, ptrdiff_t groups, ptrdiff_t d, ptrdiff_t f, ptrdiff_t turned,
                    const int64_t *sizes OF(groups), const real *rows OF(N * d), const real *matrices OF(groups * d * f),
                    real *out OF(N * f))
{
    ptrdiff_t all = 0, longest = 1;
    for (ptrdiff_t k = 0; k < groups; k++) all += sizes[k], longest = sizes[k] > longest ? sizes[k] : longest;
    int failed = 0;
#pragma omp parallel num_threads(threads) reduction(| : failed)
    {
        real *panels = memory(d * f);
        const real **a = malloc(longest * sizeof *a);
        failed = !panels || !a;
        ptrdiff_t mine = all * THREAD / THREADS, end = all * (THREAD + 1) / THREADS, begin = 0;
        for (ptrdiff_t k = 0; k < groups && !failed; begin += sizes[k++]) {
            ptrdiff_t from = begin > mine ? begin : mine, to = smaller(begin + sizes[k], end);
            if (from >= to) continue;
            pack(panels, matrices + k * d * f, d, f, turned ? 1 : f, turned ? d : 1);
            spread(to - from, a, rows + from * d, d);
            product(to - from, (Left){a, 1, d}, panels, 0, f, out + from * f, f, 0);
        }
        free(panels), free(a);
    }
    return failed;
}

/* left [all, d] and right [all, f] in groups -> out [groups, d, f] = left^T right of each */
int grouped_outer(ptrdiff_t threads, ptrdiff_t groups, ptrdiff_t d, ptrdiff_t f, const int64_t *sizes OF(groups),
                  const real *left OF(N * d), const real *right OF(N * f), real *out OF(groups * d * f))
{
    int failed = 0;
#pragma omp parallel num_threads(threads) reduction(| : failed)
    {
        const real **a = malloc(d * sizeof *a);
        failed = !a;
        ptrdiff_t mine = d * THREAD / THREADS, count = d * (THREAD + 1) / THREADS - mine, begin = 0;
        for (ptrdiff_t k = 0; k < groups && !failed; begin += sizes[k++]) {
            spread(count, a, left + begin * d + mine, 1);
            product(count, (Left){a, d, sizes[k]}, right + begin * f, f, f, out + (k * d + mine) * f, f, 0);
        }
        free(a);
    }
    return failed;
}
