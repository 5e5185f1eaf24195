#include "product.h"

/* GROVER's message passing encoders, those of a block at once (models/grover_encoders.py).

   Encoders come sorted, deepest first; step t is made by the first active[t] of them, after which active[t + 1] go on
   and the others' states are results. They do not touch each other: a thread takes some encoders through all their
   steps, a few rows at a time, so that an encoder's states stay in the thread's cache. */

#define BLOCK 64 /* rows at a time */

typedef struct {
    ptrdiff_t n, h, wide, encoders, steps; /* wide: h rounded up to whole vectors */
    const int64_t *active;                 /* [steps + 1] */
    const int64_t *slot;                   /* [encoders], where each result goes */
    real below;                            /* the activation's slope below zero */
} Plan;

typedef struct {
    const int64_t *rows, *offsets;
} Lists;

/* to[i] = the sum of the rows of `from` in list first + i */
static void gather(const Plan *p, real *to, const real *from, Lists lists, ptrdiff_t first, ptrdiff_t count)
{
    for (ptrdiff_t i = 0; i < count; i++) {
        memset(to + i * p->wide, 0, p->wide * sizeof *to);
        for (int64_t at = lists.offsets[first + i]; at < lists.offsets[first + i + 1]; at++)
            add(p->h, to + i * p->wide, from + lists.rows[at] * p->h);
    }
}

/* The states of all rows after step t: of encoder j those kept for the next step, or its result. */
static real *after(const Plan *p, real *states, real *out, ptrdiff_t t, ptrdiff_t j)
{
    if (t + 1 >= p->steps || j >= p->active[t + 1]) return out + p->slot[j] * p->n * p->h;
    for (ptrdiff_t s = 0; s < t; s++) states += p->active[s + 1] * p->n * p->h;
    return states + j * p->n * p->h;
}

/* to = activation(x + y + bias), a row */
static APART void update(ptrdiff_t h, real below, real *restrict to, const real *restrict x, const real *restrict y,
                         const real *restrict bias)
{
    for (ptrdiff_t c = 0; c < h; c++) {
        real sum = x[c] + y[c] + bias[c], low = sum * below;
        to[c] = sum > 0 ? sum : low;
    }
}

/* by_sum = gradient of the argument of the activation; by_x += by_sum, by_bias += by_sum */
static APART void update_backward(ptrdiff_t h, real below, real *restrict by_sum, const real *restrict by,
                                  const real *restrict result, real *restrict by_x, real *restrict by_bias)
{
    for (ptrdiff_t c = 0; c < h; c++) {
        real low = by[c] * below, slope = result[c] > 0 ? by[c] : low;
        by_sum[c] = slope, by_x[c] += slope, by_bias[c] += slope;
    }
}

static ptrdiff_t steps_of(const Plan *p, ptrdiff_t j)
{
    ptrdiff_t t = 0;
    while (t < p->steps && j < p->active[t]) t++;
    return t;
}

/* Which share each encoder belongs to: always the one with the fewest steps so far; to be freed. */
static ptrdiff_t *shares_of(const Plan *p, ptrdiff_t shares)
{
    ptrdiff_t *share = malloc((p->encoders + 1) * sizeof *share), *load = calloc(shares, sizeof *load);
    for (ptrdiff_t j = 0; share && load && j < p->encoders; j++) {
        share[j] = 0;
        for (ptrdiff_t i = 1; i < shares; i++)
            if (load[i] < load[share[j]]) share[j] = i;
        load[share[j]] += steps_of(p, j);
    }
    if (!load) free(share), share = NULL;
    free(load);
    return share;
}

/* x [n, h], W [encoders, h, h], bias [encoders, h], lists of n rows -> out [encoders, n, h] in slots, first [n, wide]
   (the sums over x) and states (after step t, [active[t + 1], n, h], one step after the other). */
int encoders(ptrdiff_t threads, ptrdiff_t n, ptrdiff_t h, ptrdiff_t wide, ptrdiff_t count, ptrdiff_t steps,
             const int64_t *active, const int64_t *slot, const real *below, const int64_t *rows, const int64_t *offsets,
             const real *x, const real *W, const real *bias, real *first, real *states, real *out)
{
    threads = smaller(threads, count);
    Plan p = {n, h, wide, count, steps, active, slot, *below};
    Lists lists = {rows, offsets};
    ptrdiff_t *share = shares_of(&p, threads);
    int failed = !share;
#pragma omp parallel num_threads(threads) reduction(| : failed)
    {
        real *panels = memory(h * padded(h)), *total = memory(BLOCK * wide), *y = memory(BLOCK * wide);
        const real *a[BLOCK];
        failed = !share || !panels || !total || !y;
#pragma omp for schedule(static)
        for (ptrdiff_t row = 0; row < n; row += BLOCK) gather(&p, first + row * wide, x, lists, row, smaller(BLOCK, n - row));
#pragma omp for schedule(static, 1)
        for (ptrdiff_t mine = 0; mine < threads; mine++)
            for (ptrdiff_t j = 0; j < count && !failed; j++) {
                if (share[j] != mine) continue;
                pack(panels, W + j * h * h, h, h, 1, h);
                for (ptrdiff_t t = 0; t < steps_of(&p, j); t++) {
                    real *to = after(&p, states, out, t, j);
                    for (ptrdiff_t row = 0; row < n; row += BLOCK) {
                        ptrdiff_t here = smaller(BLOCK, n - row);
                        real *sums = t ? total : first + row * wide;
                        if (t) gather(&p, sums, after(&p, states, out, t - 1, j), lists, row, here);
                        for (ptrdiff_t i = 0; i < here; i++) a[i] = sums + i * wide;
                        product(here, (Left){a, 1, h}, panels, 0, h, y, wide, 0);
                        for (ptrdiff_t i = 0; i < here; i++)
                            update(h, p.below, to + (row + i) * h, x + (row + i) * h, y + i * wide, bias + j * h);
                    }
                }
            }
        free(panels), free(total), free(y);
    }
    free(share);
    return failed;
}

/* What a share of the encoders adds up: of the gradients of x, and of the sums over x. */
typedef struct {
    real *x, *sums; /* [n, h], [n, wide] */
} Total;

static int encoder_backward(const Plan *p, ptrdiff_t j, Lists back, const real *W, const real *first, real *states,
                            real *out, const real *grad, Total total, real *by_W, real *by_bias)
{
    ptrdiff_t n = p->n, h = p->h, wide = p->wide, last = steps_of(p, j) - 1;
    real *panels = memory(h * padded(h)), *by_sum = memory(n * wide), *by_state = memory(n * wide);
    real *left = memory(BLOCK * wide), *right = memory(BLOCK * wide);
    const real **a = malloc((BLOCK + h) * sizeof *a);
    int failed = !panels || !by_sum || !by_state || !left || !right || !a;
    if (!failed) pack(panels, W, h, h, h, 1), memset(right, 0, BLOCK * wide * sizeof *right);
    for (ptrdiff_t t = last; t >= 0 && !failed; t--) {
        const real *result = after(p, states, out, t, j), *before = t ? after(p, states, out, t - 1, j) : NULL;
        for (ptrdiff_t i = 0; i < n; i++)
            update_backward(h, p->below, by_sum + i * h, t == last ? grad + i * h : by_state + i * wide, result + i * h,
                            total.x + i * h, by_bias);
        for (ptrdiff_t row = 0; row < n; row += BLOCK) {
            ptrdiff_t here = smaller(BLOCK, n - row), stride = t ? wide : h;
            const real *from = by_sum + row * h;
            if (t) {
                gather(p, left, by_sum, back, row, here);
                from = left;
                for (ptrdiff_t i = 0; i < here; i++) memcpy(right + i * wide, before + (row + i) * h, h * sizeof *right);
            }
            for (ptrdiff_t c = 0; c < h; c++) a[c] = from + c;
            product(h, (Left){a, stride, here}, t ? right : first + row * wide, wide, h, by_W, wide, 1);
            for (ptrdiff_t i = 0; i < here; i++) a[i] = from + i * stride;
            product(here, (Left){a, 1, h}, panels, 0, h, (t ? by_state : total.sums) + row * wide, wide, !t);
        }
    }
    free(panels), free(by_sum), free(by_state), free(left), free(right), free(a);
    return failed;
}

/* grad [encoders, n, h] of out, the transposed lists -> by_x [n, h], to which it adds; by_W [encoders, h, wide] and
   by_bias [encoders, h], zeros before. */
int encoders_backward(ptrdiff_t threads, ptrdiff_t n, ptrdiff_t h, ptrdiff_t wide, ptrdiff_t count, ptrdiff_t steps,
                      const int64_t *active, const int64_t *slot, const real *below, const int64_t *rows,
                      const int64_t *offsets, const real *W, const real *first, real *states, real *out,
                      const real *grad, real *by_x, real *by_W, real *by_bias)
{
    threads = smaller(threads, count);
    Plan p = {n, h, wide, count, steps, active, slot, *below};
    Lists back = {rows, offsets};
    ptrdiff_t *share = shares_of(&p, threads);
    real *x = memory(threads * n * h), *sums = memory(threads * n * wide);
    int failed = !share || !x || !sums;
#pragma omp parallel num_threads(threads) reduction(| : failed)
    {
        failed = !share || !x || !sums;
#pragma omp for schedule(static, 1)
        for (ptrdiff_t mine = 0; mine < threads; mine++) {
            if (failed) continue;
            Total total = {x + mine * n * h, sums + mine * n * wide};
            memset(total.x, 0, n * h * sizeof *x), memset(total.sums, 0, n * wide * sizeof *sums);
            for (ptrdiff_t j = 0; j < count && !failed; j++)
                if (share[j] == mine && steps_of(&p, j))
                    failed |= encoder_backward(&p, j, back, W + j * h * h, first, states, out, grad + slot[j] * n * h,
                                               total, by_W + j * h * wide, by_bias + j * h);
        }
#pragma omp for schedule(static)
        for (ptrdiff_t i = 0; i < n; i++)
            for (ptrdiff_t k = 0; k < threads && !failed; k++) {
                add(h, by_x + i * h, x + (k * n + i) * h);
                if (k) add(h, sums + i * wide, sums + (k * n + i) * wide);
            }
#pragma omp for schedule(static)
        for (ptrdiff_t i = 0; i < n; i++) {
            if (failed) continue;
            for (int64_t at = offsets[i]; at < offsets[i + 1]; at++) add(h, by_x + i * h, sums + rows[at] * wide);
        }
    }
    free(share), free(x), free(sums);
    return failed;
}
