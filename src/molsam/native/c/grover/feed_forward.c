#include "norm.h"
#include "tables.h"

/* GROVER's feed-forward layers and the norm behind them (models/grover_compiled.py), some rows at a time: the hidden rows, four
   times as wide as others, are in a core's cache when they are needed again. */

enum { BLOCK = 64 }; /* rows at a time, or less: as many times for each thread */

static ptrdiff_t share(ptrdiff_t threads, ptrdiff_t n)
{
    ptrdiff_t blocks = (n + BLOCK * threads - 1) / (BLOCK * threads) * threads;
    return n ? (n + blocks - 1) / blocks : 1;
}

/* n lists of rows of states [., h]; table [kinds, f], W_1 [hidden, f + h] and b_1 [hidden], W_2 [h, hidden] and b_2 [h], the
   norm's eps [1], gain and shift [h] -> x [n, h], the lists' sums; mapped [kinds, broad], the table's rows behind W_1; result
   [n, broad] = act(W_1 [table[kind] ; x] + b_1), zeros beyond hidden; out [n, h] = the norm of W_2 result + b_2, and the norm's
   unit [n, h] and factor [n] */
int feed_forward(ptrdiff_t threads, ptrdiff_t n, ptrdiff_t h, ptrdiff_t wide, ptrdiff_t hidden, ptrdiff_t broad,
                 const int64_t *kind, const double *below, ptrdiff_t kinds, ptrdiff_t f, const real *table, const real *W_1,
                 const real *W_2, const int64_t *lists, const int64_t *offsets, const real *states, const real *b_1,
                 const real *b_2, const double *eps, const real *gain, const real *shift, real *mapped, real *x,
                 real *result, real *unit, real *factor, real *out)
{
    real *first = memory(h * padded(hidden)), *second = memory(hidden * padded(h)), *panels = memory(f * padded(hidden));
    ptrdiff_t block = share(threads, n), stride = f + h;
    int failed = !first || !second || !panels;
#pragma omp parallel num_threads(threads) reduction(| : failed)
    {
        real *y = memory(BLOCK * wide);
        const real *a[BLOCK];
        failed = !first || !second || !panels || !y;
#pragma omp for schedule(static) nowait
        for (ptrdiff_t part = 0; part < 2; part++)
            if (part && second) pack(second, W_2, hidden, h, 1, hidden);
            else if (first) pack(first, W_1 + f, h, hidden, 1, stride);
        map_table((Table){kinds, f, hidden, stride, table, W_1}, b_1, panels, mapped, broad);
#pragma omp for schedule(dynamic) /* nothing is added up over rows */
        for (ptrdiff_t row = 0; row < n; row += block) {
            if (failed) continue;
            ptrdiff_t rows = smaller(block, n - row);
            real *mine = result + row * broad;
            for (ptrdiff_t i = 0; i < rows; i++) {
                sum_of_rows(h, states, lists, offsets[row + i], offsets[row + i + 1], 0, x + (row + i) * h);
                memcpy(mine + i * broad, mapped + kind[row + i] * broad, broad * sizeof *mine);
                memcpy(y + i * wide, b_2, h * sizeof *y);
            }
            spread(rows, a, x + row * h, h);
            product(rows, (Left){a, 1, h}, first, 0, hidden, mine, broad, 1);
            bend(rows * broad, (real)*below, mine);
            spread(rows, a, mine, broad);
            product(rows, (Left){a, 1, hidden}, second, 0, h, y, wide, 1);
            for (ptrdiff_t i = 0, at = row; i < rows; i++, at++)
                factor[at] = layer_norm_of(h, (real)*eps, y + i * wide, gain, shift, unit + at * h, out + at * h);
        }
        free(y);
    }
    free(first), free(second), free(panels);
    return failed;
}

/* grad [n, h] of out and the transposed lists, of `count` -> by_states [count, h], by_table [kinds, hidden], that of the
   table's rows behind W_1, by_W_1, by_b_1, by_W_2 and by_rows [3, h], of gain, shift and b_2 */
int feed_forward_backward(ptrdiff_t threads, ptrdiff_t n, ptrdiff_t h, ptrdiff_t wide, ptrdiff_t hidden, ptrdiff_t broad,
                          const int64_t *kind, const double *below, ptrdiff_t kinds, ptrdiff_t f, const real *table,
                          const real *W_1, const real *W_2, ptrdiff_t count, const int64_t *lists, const int64_t *offsets,
                          const real *gain, const real *x, const real *result, const real *unit, const real *factor,
                          const real *grad, real *by_states, real *by_table, real *by_W_1, real *by_b_1, real *by_W_2,
                          real *by_rows)
{
    real *first = memory(hidden * padded(h)), *second = memory(h * padded(hidden));
    ptrdiff_t block = share(threads, n), of_first = kinds * hidden, of_second = of_first + hidden * wide;
    ptrdiff_t of_rows = of_second + h * broad, size = of_rows + 3 * h;
    real *own = memory(threads * size), *by_x = memory(n * h); /* each thread's gradients; that of x */
    real *panels = memory(kinds * padded(f));
    int failed = !first || !second || !own || !by_x || !panels;
#pragma omp parallel num_threads(threads) reduction(| : failed)
    {
        real *by = memory(BLOCK * broad), *y = memory(BLOCK * wide), *g = memory(BLOCK * h), *mine = own + THREAD * size;
        real *few = memory(ROWS * padded(f)), *of_gain = mine + of_rows, *of_shift = of_gain + h, *of_bias = of_shift + h;
        const real **a = malloc((BLOCK + hidden) * sizeof *a);
        failed = !first || !second || !own || !by_x || !panels || !by || !y || !g || !few || !a;
        if (!failed) memset(y, 0, BLOCK * wide * sizeof *y), memset(mine, 0, size * sizeof *mine);
#pragma omp for schedule(static)
        for (ptrdiff_t part = 0; part < 2; part++)
            if (part && second) pack(second, W_2, h, hidden, hidden, 1);
            else if (first) pack(first, W_1 + f, hidden, h, f + h, 1);
#pragma omp for schedule(static)
        for (ptrdiff_t row = 0; row < n; row += block) {
            if (failed) continue;
            ptrdiff_t rows = smaller(block, n - row);
            for (ptrdiff_t i = 0, at = row; i < rows; i++, at++) {
                layer_row(h, factor[at], factor[at] / h, gain, unit + at * h, grad + at * h, g + i * h, of_gain, of_shift);
                add(h, of_bias, g + i * h);
            }
            spread(h, a, g, 1);
            product(h, (Left){a, h, rows}, result + row * broad, broad, hidden, mine + of_second, broad, 1);
            spread(rows, a, g, h);
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
        for (ptrdiff_t i = THREAD; i < count && by_x; i += THREADS) /* the loop ended with a barrier */
            sum_of_rows(h, by_x, lists, offsets[i], offsets[i + 1], 0, by_states + i * h);
        if (own) {
            reduce(kinds, hidden, by_table, hidden, own, hidden, size);
            reduce(hidden, h, by_W_1 + f, f + h, own + of_first, wide, size);
            reduce(h, hidden, by_W_2, hidden, own + of_second, broad, size);
            reduce(3, h, by_rows, h, own + of_rows, h, size);
        }
#pragma omp barrier
        map_table_backward((Table){kinds, f, hidden, f + h, table, W_1}, by_table, panels, few, by_W_1, by_b_1);
        free(by), free(y), free(g), free(few), free(a);
    }
    free(first), free(second), free(own), free(by_x), free(panels);
    return failed;
}
