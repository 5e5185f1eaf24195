#include "feed_forward.h"
#include "norm.h"
#include "tables.h"

enum { BLOCK = 64 }; /* most rows at a time; fewer, so that every thread gets equally many blocks */

static ptrdiff_t share(ptrdiff_t threads, ptrdiff_t n)
{
    ptrdiff_t blocks = (n + BLOCK * threads - 1) / (BLOCK * threads) * threads;
    return n ? (n + blocks - 1) / blocks : 1;
}

int feed_forward(ptrdiff_t threads, const Layers *s, const FeedForward *given)
{
    ptrdiff_t n = s->n, h = s->h, wide = padded(s->h), hidden = s->hidden, broad = s->broad, f = s->f;
    real *mapped = given->mapped, *x = given->x, *result = given->result;
    real *first = memory(h * padded(hidden)), *second = memory(hidden * padded(h)),
         *panels = memory(f * padded(hidden));
    ptrdiff_t block = share(threads, n), stride = f + h;
    int failed = !first || !second || !panels;
#pragma omp parallel num_threads(threads) reduction(| : failed)
    {
        real *y = memory(BLOCK * wide);
        const real *a[BLOCK];
        failed = !first || !second || !panels || !y;
#pragma omp for schedule(static) nowait
        for (ptrdiff_t part = 0; part < 2; part++)
            if (part && second) pack(second, s->W_2, hidden, h, 1, hidden);
            else if (first) pack(first, s->W_1 + f, h, hidden, 1, stride);
        map_table((Table){s->kinds, f, hidden, stride, s->table, s->W_1}, given->b_1, panels, mapped, broad);
#pragma omp for schedule(dynamic) /* no sums over rows, so the result does not depend on the schedule */
        for (ptrdiff_t row = 0; row < n; row += block) {
            if (failed) continue;
            ptrdiff_t rows = smaller(block, n - row);
            real *mine = result + row * broad;
            for (ptrdiff_t i = 0; i < rows; i++) {
                sum_of_rows(h, given->states, given->lists, given->offsets[row + i], given->offsets[row + i + 1], 0,
                            x + (row + i) * h);
                memcpy(mine + i * broad, mapped + s->kind[row + i] * broad, broad * sizeof *mine);
                memcpy(y + i * wide, given->b_2, h * sizeof *y);
            }
            spread(rows, a, x + row * h, h);
            product(rows, (Left){a, 1, h}, first, 0, hidden, mine, broad, 1);
            bend(rows * broad, (real)s->below, mine);
            spread(rows, a, mine, broad);
            product(rows, (Left){a, 1, hidden}, second, 0, h, y, wide, 1);
            for (ptrdiff_t i = 0, at = row; i < rows; i++, at++)
                given->factor[at] = layer_norm_of(h, (real)given->eps, y + i * wide, given->gain, given->shift,
                                                  given->unit + at * h, given->out + at * h);
        }
        free(y);
    }
    free(first), free(second), free(panels);
    return failed;
}

int feed_forward_backward(ptrdiff_t threads, const Layers *s, const FeedForwardBackward *given)
{
    ptrdiff_t n = s->n, h = s->h, wide = padded(s->h), hidden = s->hidden, broad = s->broad, f = s->f;
    ptrdiff_t kinds = s->kinds;
    real *first = memory(hidden * padded(h)), *second = memory(h * padded(hidden));
    ptrdiff_t block = share(threads, n), of_first = kinds * hidden, of_second = of_first + hidden * wide;
    ptrdiff_t of_rows = of_second + h * broad, size = of_rows + 3 * h;
    real *own = memory(threads * size), *by_x = memory(n * h); /* own: each thread's gradients; by_x: of given->x */
    real *panels = memory(kinds * padded(f));
    int failed = !first || !second || !own || !by_x || !panels;
#pragma omp parallel num_threads(threads) reduction(| : failed)
    {
        real *by = memory(BLOCK * broad), *y = memory(BLOCK * wide), *g = memory(BLOCK * h),
             *mine = own + THREAD * size;
        real *few = memory(ROWS * padded(f)), *of_gain = mine + of_rows, *of_shift = of_gain + h,
             *of_bias = of_shift + h;
        const real **a = malloc((BLOCK + hidden) * sizeof *a);
        failed = !first || !second || !own || !by_x || !panels || !by || !y || !g || !few || !a;
        if (!failed) memset(y, 0, BLOCK * wide * sizeof *y), memset(mine, 0, size * sizeof *mine);
#pragma omp for schedule(static)
        for (ptrdiff_t part = 0; part < 2; part++)
            if (part && second) pack(second, s->W_2, h, hidden, hidden, 1);
            else if (first) pack(first, s->W_1 + f, hidden, h, f + h, 1);
#pragma omp for schedule(static)
        for (ptrdiff_t row = 0; row < n; row += block) {
            if (failed) continue;
            ptrdiff_t rows = smaller(block, n - row);
            for (ptrdiff_t i = 0, at = row; i < rows; i++, at++) {
                layer_row(h, given->factor[at], given->factor[at] / h, given->gain, given->unit + at * h,
                          given->grad + at * h, g + i * h, of_gain, of_shift);
                add(h, of_bias, g + i * h);
            }
            spread(h, a, g, 1);
            product(h, (Left){a, h, rows}, given->result + row * broad, broad, hidden, mine + of_second, broad, 1);
            spread(rows, a, g, h);
            product(rows, (Left){a, 1, h}, second, 0, hidden, by, broad, 0);
            bend_backward(rows * broad, (real)s->below, given->result + row * broad, by);
            for (ptrdiff_t i = 0; i < rows; i++) {
                add(hidden, mine + s->kind[row + i] * hidden, by + i * broad);
                memcpy(y + i * wide, given->x + (row + i) * h, h * sizeof *y);
            }
            spread(hidden, a, by, 1);
            product(hidden, (Left){a, broad, rows}, y, wide, h, mine + of_first, wide, 1);
            spread(rows, a, by, broad);
            product(rows, (Left){a, 1, hidden}, first, 0, h, y, wide, 0);
            for (ptrdiff_t i = 0; i < rows; i++) memcpy(by_x + (row + i) * h, y + i * wide, h * sizeof *y);
        }
        for (ptrdiff_t i = THREAD; i < given->count && by_x; i += THREADS) /* the loop ended with a barrier */
            sum_of_rows(h, by_x, given->lists, given->offsets[i], given->offsets[i + 1], 0, given->by_states + i * h);
        if (own) {
            reduce(kinds, hidden, given->by_table, hidden, own, hidden, size);
            reduce(hidden, h, given->by_W_1 + f, f + h, own + of_first, wide, size);
            reduce(h, hidden, given->by_W_2, hidden, own + of_second, broad, size);
            reduce(3, h, given->by_rows, h, own + of_rows, h, size);
        }
#pragma omp barrier
        map_table_backward((Table){kinds, f, hidden, f + h, s->table, s->W_1}, given->by_table, panels, few,
                           given->by_W_1, given->by_b_1);
        free(by), free(y), free(g), free(few), free(a);
    }
    free(first), free(second), free(own), free(by_x), free(panels);
    return failed;
}
