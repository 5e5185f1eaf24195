#pragma once

#include "plan.h"

/* GROVER's message passing encoders for one chunk. */

/* One row of to = activation(x + y + bias). */
static APART void update(ptrdiff_t wide, real below, real *restrict to, const real *restrict x, const real *restrict y,
                         const real *restrict bias)
{
    for (ptrdiff_t c = 0; c < wide; c++) {
        real sum = x[c] + y[c] + bias[c], low = sum * below;
        to[c] = sum > 0 ? sum : low;
    }
}

/* by_sum = the gradient of the activation's argument; by_x += by_sum, by_bias += by_sum */
static APART void update_backward(ptrdiff_t wide, real below, real *restrict by_sum, const real *restrict by,
                                  const real *restrict result, real *restrict by_x, real *restrict by_bias)
{
    for (ptrdiff_t c = 0; c < wide; c++) {
        real low = by[c] * below, slope = result[c] > 0 ? by[c] : low;
        by_sum[c] = slope, by_x[c] += slope, by_bias[c] += slope;
    }
}

/* For the chunk's rows, x [n, h] -> wide [n, wide], with zeros beyond h, and `first`, the sums over x. */
static void widen(const Plan *p, const Chunk *c, Lists lists, const real *x, real *wide)
{
    ptrdiff_t h = p->h, more = p->wide - h;
    x += c->begin * h, wide += c->begin * p->wide;
    for (ptrdiff_t i = 0; i < c->rows; i++) {
        memcpy(wide + i * p->wide, x + i * h, h * sizeof *x);
        memset(wide + i * p->wide + h, 0, more * sizeof *x);
    }
    for (ptrdiff_t i = 0; i < c->rows; i++) gather(p, c, lists, wide, i, c->saved.first + i * p->wide);
}

/* Compute the states of encoder j. */
static void encode(const Plan *p, const Chunk *c, ptrdiff_t j, Lists lists, const real *x, const real *panels,
                   const real *bias, Room *r)
{
    ptrdiff_t h = p->h, wide = p->wide, steps = steps_of(p, j), own = p->order[j], at[BLOCK];
    x += c->begin * wide;
    if (!steps) memcpy(c->final + p->slot[j] * c->rows * wide, x, c->rows * wide * sizeof *x);
    for (ptrdiff_t t = 0; t < steps; t++) {
        real *to = after(p, c, t, j);
        for (ptrdiff_t row = 0, rows; (rows = models(p, c, t, &row, at)) > 0;) {
            for (ptrdiff_t i = 0; i < rows; i++) {
                if (t) gather(p, c, lists, after(p, c, t - 1, j), at[i], r->left + i * wide);
                r->a[i] = t ? r->left + i * wide : c->saved.first + at[i] * wide;
            }
            product(rows, (Left){r->a, 1, h}, panels + own * h * padded(h), 0, h, r->right, wide, 0);
            for (ptrdiff_t i = 0; i < rows; i++)
                update(wide, (real)p->below, to + at[i] * wide, x + at[i] * wide, r->right + i * wide,
                       bias + own * wide);
        }
        for (ptrdiff_t i = 0; i < c->rows; i++)
            if (model(p, c, t, i) != i) memcpy(to + i * wide, to + model(p, c, t, i) * wide, wide * sizeof *to);
    }
}

/* From the gradients of the final states, in r->by, the gradient by_x of the chunk's rows. Of rows with equal states
   the first may get the gradient of the others too. */
static void encode_backward(const Plan *p, const Chunk *c, Lists lists, Lists back, const real *panels, Gradients g,
                            real *by_x, Room *r)
{
    ptrdiff_t h = p->h, wide = p->wide, size = c->rows * wide;
    memset(r->x, 0, size * sizeof *r->x), memset(r->sums, 0, size * sizeof *r->sums);
    for (ptrdiff_t j = 0; j < 3 * p->heads; j++) {
        ptrdiff_t steps = steps_of(p, j), own = p->order[j], at[BLOCK];
        real *by = r->by + p->slot[j] * size;
        if (!steps) add(size, r->x, by);
        for (ptrdiff_t t = steps - 1; t >= 0; t--, by = r->by_state) {
            const real *result = after(p, c, t, j);
            for (ptrdiff_t i = 0; i < c->rows; i++)
                if (model(p, c, t, i) != i) add(wide, by + model(p, c, t, i) * wide, by + i * wide);
            if (t) memset(r->on, 0, size * sizeof *r->on);
            for (ptrdiff_t row = 0, rows; (rows = models(p, c, t, &row, at)) > 0;) {
                for (ptrdiff_t i = 0; i < rows; i++) {
                    update_backward(wide, (real)p->below, r->by_sum + i * wide, by + at[i] * wide,
                                    result + at[i] * wide, r->x + at[i] * wide, g.bias + own * wide);
                    if (t) gather(p, c, lists, after(p, c, t - 1, j), at[i], r->left + i * wide);
                    else memcpy(r->left + i * wide, c->saved.first + at[i] * wide, wide * sizeof *r->left);
                }
                spread(h, r->a, r->by_sum, 1);
                product(h, (Left){r->a, wide, rows}, r->left, wide, h, g.W + own * h * wide, wide, 1);
                spread(rows, r->a, r->by_sum, wide);
                product(rows, (Left){r->a, 1, h}, panels + own * h * padded(h), 0, h, r->right, wide, 0);
                for (ptrdiff_t i = 0; i < rows; i++)
                    add(wide, (t ? r->on : r->sums) + at[i] * wide, r->right + i * wide);
            }
            for (ptrdiff_t i = 0; i < c->rows && t; i++) gather(p, c, back, r->on, i, r->by_state + i * wide);
        }
    }
    for (ptrdiff_t i = 0; i < c->rows; i++) {
        gather(p, c, back, r->sums, i, r->left);
        for (ptrdiff_t k = 0; k < h; k++) by_x[i * h + k] = r->x[i * wide + k] + r->left[k];
    }
}
