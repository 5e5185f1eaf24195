#include "product.h"

/* GROVER's feed-forward layers behind their norm (models/grover_compiled.py), some rows at a time: the hidden rows, four
   times as wide as others, are in a core's cache when they are needed again. */

enum { BLOCK = 64 }; /* rows at a time, or less: as many times for each thread */

static ptrdiff_t share(ptrdiff_t threads, ptrdiff_t n)
{
    ptrdiff_t blocks = (n + BLOCK * threads - 1) / (BLOCK * threads) * threads;
    return n ? (n + blocks - 1) / blocks : 1;
}

static APART void bend(ptrdiff_t n, real below, real *restrict x)
{
    for (ptrdiff_t j = 0; j < n; j++) {
        real low = x[j] * below;
        x[j] = x[j] > 0 ? x[j] : low;
    }
}

static APART void bend_backward(ptrdiff_t n, real below, const real *restrict result, real *restrict by)
{
    for (ptrdiff_t j = 0; j < n; j++) {
        real low = by[j] * below;
        by[j] = result[j] > 0 ? by[j] : low;
    }
}

/* table [kinds, hidden], x [n, h], W_1 [hidden, h] with rows `stride` apart, W_2 [h, hidden], bias [h] -> result
   [n, broad] = act(table[kind] + W_1 x), zeros beyond hidden, and out [n, h] = bias + W_2 result */
int feed_forward(ptrdiff_t threads, ptrdiff_t n, ptrdiff_t h, ptrdiff_t wide, ptrdiff_t hidden, ptrdiff_t broad,
                 const int64_t *kind, const double *below, const real *table, const real *x, const real *W_1,
                 ptrdiff_t stride, const real *W_2, const real *bias, real *result, real *out)
{
    real *first = memory(h * padded(hidden)), *second = memory(hidden * padded(h));
    ptrdiff_t block = share(threads, n);
    int failed = !first || !second;
#pragma omp parallel num_threads(threads) reduction(| : failed)
    {
        real *y = memory(BLOCK * wide);
        const real *a[BLOCK];
        failed = !first || !second || !y;
#pragma omp for schedule(static)
        for (ptrdiff_t part = 0; part < 2; part++)
            if (part && second) pack(second, W_2, hidden, h, 1, hidden);
            else if (first) pack(first, W_1, h, hidden, 1, stride);
#pragma omp for schedule(static)
        for (ptrdiff_t row = 0; row < n; row += block) {
            if (failed) continue;
            ptrdiff_t rows = smaller(block, n - row);
            real *mine = result + row * broad;
            for (ptrdiff_t i = 0; i < rows; i++) {
                memcpy(mine + i * broad, table + kind[row + i] * hidden, hidden * sizeof *mine);
                for (ptrdiff_t j = hidden; j < broad; j++) mine[i * broad + j] = 0;
                memcpy(y + i * wide, bias, h * sizeof *y);
            }
            spread(rows, a, x + row * h, h);
            product(rows, (Left){a, 1, h}, first, 0, hidden, mine, broad, 1);
            bend(rows * broad, (real)*below, mine);
            spread(rows, a, mine, broad);
            product(rows, (Left){a, 1, hidden}, second, 0, h, y, wide, 1);
            for (ptrdiff_t i = 0; i < rows; i++) memcpy(out + (row + i) * h, y + i * wide, h * sizeof *y);
        }
        free(y);
    }
    free(first), free(second);
    return failed;
}

/* grad [n, h] of out -> by_x [n, h], by_table [kinds, hidden], by_first [hidden, h] and by_second [h, hidden] */
int feed_forward_backward(ptrdiff_t threads, ptrdiff_t n, ptrdiff_t h, ptrdiff_t wide, ptrdiff_t hidden, ptrdiff_t broad,
                          const int64_t *kind, const double *below, ptrdiff_t kinds, const real *x, const real *W_1,
                          ptrdiff_t stride, const real *W_2, const real *result, const real *grad, real *by_x,
                          real *by_table, real *by_first, real *by_second)
{
    real *first = memory(hidden * padded(h)), *second = memory(h * padded(hidden));
    ptrdiff_t block = share(threads, n), of_first = kinds * hidden, of_second = of_first + hidden * wide;
    ptrdiff_t size = of_second + h * broad;
    real *own = memory(threads * size); /* each thread's gradients */
    int failed = !first || !second || !own;
#pragma omp parallel num_threads(threads) reduction(| : failed)
    {
        real *by = memory(BLOCK * broad), *y = memory(BLOCK * wide), *mine = own + THREAD * size;
        const real **a = malloc((BLOCK + hidden) * sizeof *a);
        failed = !first || !second || !own || !by || !y || !a;
        if (!failed) memset(y, 0, BLOCK * wide * sizeof *y), memset(mine, 0, size * sizeof *mine);
#pragma omp for schedule(static)
        for (ptrdiff_t part = 0; part < 2; part++)
            if (part && second) pack(second, W_2, h, hidden, hidden, 1);
            else if (first) pack(first, W_1, hidden, h, stride, 1);
#pragma omp for schedule(static)
        for (ptrdiff_t row = 0; row < n; row += block) {
            if (failed) continue;
            ptrdiff_t rows = smaller(block, n - row);
            spread(h, a, grad + row * h, 1);
            product(h, (Left){a, h, rows}, result + row * broad, broad, hidden, mine + of_second, broad, 1);
            spread(rows, a, grad + row * h, h);
            product(rows, (Left){a, 1, h}, second, 0, hidden, by, broad, 0);
            bend_backward(rows * broad, (real)*below, result + row * broad, by);
            for (ptrdiff_t i = 0; i < rows; i++) {
                add(hidden, mine + kind[row + i] * hidden, by + i * broad);
                memcpy(y + i * wide, x + (row + i) * h, h * sizeof *y);
            }
            spread(hidden, a, by, 1);
            product(hidden, (Left){a, broad, rows}, y, wide, h, mine + of_first, wide, 1);
            spread(rows, a, by, broad);
            product(rows, (Left){a, 1, hidden}, first, 0, h, y, wide, 0);
            for (ptrdiff_t i = 0; i < rows; i++) memcpy(by_x + (row + i) * h, y + i * wide, h * sizeof *y);
        }
        if (own) { /* the loop ended with a barrier */
            reduce(kinds, hidden, by_table, own, hidden, size);
            reduce(hidden, h, by_first, own + of_first, wide, size);
            reduce(h, hidden, by_second, own + of_second, broad, size);
        }
        free(by), free(y), free(a);
    }
    free(first), free(second), free(own);
    return failed;
}
