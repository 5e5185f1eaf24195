#pragma once

#include "plan.h"

/* Attention between the heads of a chunk's rows, and the linear map and the norm after it. */

/* Up to STRIP rows of a chunk, as lanes. */
typedef struct {
    ptrdiff_t row, rows;
    Heads heads;
    real *q, *k, *v, *attention;
} Strip;

static Strip strip_of(const Plan *p, const Chunk *c, ptrdiff_t row)
{
    ptrdiff_t rows = smaller(STRIP, c->rows - row), lanes = padded(rows), role = p->h * p->heads * lanes;
    real *q = c->saved.projected + row * 3 * p->h * p->heads;
    Heads heads = {p->heads, p->parts, p->h / p->parts, lanes};
    return (Strip){
        row, rows, heads, q, q + role, q + 2 * role, c->saved.attention + row * p->parts * p->heads * p->heads};
}

/* Part i of an array [column, head, lane]. */
static Part part(const Strip *s, real *of, ptrdiff_t i)
{
    ptrdiff_t stride = s->heads.heads * s->heads.lanes;
    return (Part){of + i * s->heads.d * stride, stride, s->heads.lanes};
}

/* Part i of an array [head, column, lane]. */
static Part wide_part(const Strip *s, real *of, ptrdiff_t i)
{
    ptrdiff_t lanes = s->heads.lanes;
    return (Part){of + i * s->heads.d * lanes, lanes, s->heads.parts * s->heads.d * lanes};
}

/* The heads' values, mixed by attention: o [heads, h, lanes]. */
static void attended(const Strip *s, real *o)
{
    ptrdiff_t heads = s->heads.heads;
    for (ptrdiff_t i = 0; i < s->heads.parts; i++)
        mix(&s->heads, wide_part(s, o, i), s->attention + i * heads * heads * s->heads.lanes, heads, 1,
            part(s, s->v, i));
}

static void attend(const Plan *p, const Chunk *c, Strip s, const real *projection, const real *mixing, const real *bias,
                   Norm norm, real *out, Room *r)
{
    ptrdiff_t h = p->h, heads = p->heads, lanes = s.heads.lanes, stride = heads * lanes;
    for (ptrdiff_t role = 0; role < 3; role++) {
        for (ptrdiff_t i = 0; i < heads; i++)
            to_lanes(s.rows, h, c->final + ((role * heads + i) * c->rows + s.row) * p->wide, p->wide,
                     r->lanes + i * lanes, stride);
        fill(stride, r->lanes + h * stride, 1); /* the factor of the bias */
        spread(h, r->a, projection + role * h * (h + 1), h + 1);
        product(h, (Left){r->a, 1, h + 1}, r->lanes, stride, stride, s.q + role * h * stride, stride, 0);
    }
    for (ptrdiff_t i = 0; i < p->parts; i++) {
        real *weights = s.attention + i * heads * stride;
        inner(&s.heads, weights, part(&s, s.q, i), part(&s, s.k, i), 1 / (real)sqrt((double)s.heads.d));
        softmax(&s.heads, weights);
    }
    attended(&s, r->o);
    spread(h, r->a, mixing, h * heads);
    for (ptrdiff_t j = 0; j < h; j++) fill(lanes, r->lanes + j * lanes, bias[j]);
    product(h, (Left){r->a, 1, h * heads}, r->o, lanes, lanes, r->lanes, lanes, 1);
    out += (c->begin + s.row) * h;
    to_rows(s.rows, h, r->lanes, lanes, out, h);
    for (ptrdiff_t i = 0, at = s.row; i < s.rows; i++, at++, out += h)
        c->saved.factor[at] = layer_norm_of(h, norm.eps, out, norm.gain, norm.shift, c->saved.unit + at * h, out);
}

/* From the gradient of the strip's output, grad [rows, h], the gradients of the final states, in r->by. */
static void attend_backward(const Plan *p, const Chunk *c, Strip s, const real *grad, const real *panels,
                            const real *mixing, const real *gain, Gradients g, Room *r)
{
    ptrdiff_t h = p->h, wide = p->wide, heads = p->heads, lanes = s.heads.lanes, stride = heads * lanes;
    real *by_q = r->by_lanes, *by_k = by_q + h * stride, *by_v = by_k + h * stride;

    for (ptrdiff_t i = 0, at = s.row; i < s.rows; i++, at++) {
        real factor = c->saved.factor[at], *by = r->right + i * wide;
        layer_row(h, factor, factor / h, gain, c->saved.unit + at * h, grad + i * h, by, g.gain, g.shift);
        add(h, g.mixing_bias, by);
    }
    attended(&s, r->o);
    spread(h * heads, r->a, r->o, lanes);
    product(h * heads, (Left){r->a, 1, s.rows}, r->right, wide, h, g.mixing, wide, 1);

    to_lanes(s.rows, h, r->right, wide, r->lanes, lanes);
    spread(h * heads, r->a, mixing, 1);
    product(h * heads, (Left){r->a, h * heads, h}, r->lanes, lanes, lanes, r->o, lanes, 0);
    for (ptrdiff_t i = 0; i < p->parts; i++) {
        const real *weights = s.attention + i * heads * stride;
        Part by_o = wide_part(&s, r->o, i);
        inner(&s.heads, r->by_scores, by_o, part(&s, s.v, i), 1);
        softmax_backward(&s.heads, r->by_scores, weights, 1 / (real)sqrt((double)s.heads.d));
        mix(&s.heads, part(&s, by_q, i), r->by_scores, heads, 1, part(&s, s.k, i));
        mix(&s.heads, part(&s, by_k, i), r->by_scores, 1, heads, part(&s, s.q, i));
        mix(&s.heads, part(&s, by_v, i), weights, 1, heads, by_o);
    }
    for (ptrdiff_t role = 0; role < 3; role++)
        for (ptrdiff_t i = 0; i < heads; i++) {
            const real *by = by_q + role * h * stride + i * lanes;
            ptrdiff_t at = ((role * heads + i) * c->rows + s.row) * wide;
            spread(h, r->a, by, stride);
            product(h, (Left){r->a, 1, s.rows}, c->final + at, wide, h, g.projection + role * h * wide, wide, 1);
            for (ptrdiff_t j = 0; j < h; j++) g.projection_bias[role * wide + j] += total(s.rows, r->a[j]);
            spread(s.rows, r->a, by, 1);
            product(s.rows, (Left){r->a, stride, h}, panels + role * h * padded(h), 0, h, r->by + at, wide, 0);
        }
}

/* Two linear maps: of each head, W_out [h, h] and b_out [h], and of all heads, W_o [h, heads, h] and b_o [h]. The
   biases may be NULL. */
typedef struct {
    const real *W_o, *b_o, *W_out, *b_out;
} Maps;

/* Both maps as one, because nothing nonlinear stands between them: mixing [h, heads, h] = W_o W_out, and bias [h].
   out: W_out in panels. */
static void mixing_of(const Plan *p, Maps m, const real *out, real *mixing, real *bias, Room *r, int failed)
{
    ptrdiff_t h = p->h, all = h * p->heads;
#pragma omp for schedule(static) nowait
    for (ptrdiff_t from = 0; from < all; from += BLOCK) {
        ptrdiff_t rows = failed ? 0 : smaller(BLOCK, all - from);
        spread(rows, r->a, m.W_o + from * h, h);
        product(rows, (Left){r->a, 1, h}, out, 0, h, r->left, p->wide, 0);
        for (ptrdiff_t i = 0; i < rows; i++) memcpy(mixing + (from + i) * h, r->left + i * p->wide, h * sizeof *mixing);
    }
#pragma omp for schedule(static)
    for (ptrdiff_t j = 0; j < h; j++) {
        if (failed) continue;
        bias[j] = m.b_o ? m.b_o[j] : 0;
        for (ptrdiff_t i = 0; i < p->heads && m.b_out; i++) bias[j] += dot(h, m.W_o + (j * p->heads + i) * h, m.b_out);
    }
}

/* From the gradients of mixing (transposed, [heads, h, h]) and its bias, the gradients of W_o, W_out and b_out.
   out: the transpose of W_out in panels; panels: scratch memory for W_o in panels. */
static void mixing_backward(const Plan *p, Maps m, const real *out, const real *by, const real *by_bias, real *panels,
                            real *by_W_o, real *by_W_out, real *by_b_out, Room *r, int failed)
{
    ptrdiff_t h = p->h, heads = p->heads, first = h * THREAD / THREADS, end = h * (THREAD + 1) / THREADS;
#pragma omp for schedule(static)
    for (ptrdiff_t i = 0; i < heads; i++)
        if (panels) pack(panels + i * h * padded(h), m.W_o + i * h, h, h, heads * h, 1);
    if (failed) return;
    for (ptrdiff_t from = first, rows; rows = smaller(ROWS, end - from), from < end; from += rows) {
        for (ptrdiff_t i = 0; i < heads; i++) {
            spread(rows, r->a, by + i * h * h + from, 1);
            product(rows, (Left){r->a, h, h}, out, 0, h, r->left, p->wide, 0);
            for (ptrdiff_t j = 0; j < rows; j++) {
                real *to = by_W_o + ((from + j) * heads + i) * h, factor = by_bias[from + j];
                for (ptrdiff_t k = 0; k < h; k++)
                    to[k] = r->left[j * p->wide + k] + (m.b_out ? factor * m.b_out[k] : 0);
            }
        }
        for (ptrdiff_t i = 0; i < heads; i++) {
            spread(rows, r->a, by + (i * h + from) * h, h);
            product(rows, (Left){r->a, 1, h}, panels + i * h * padded(h), 0, h, r->left, p->wide, i > 0);
        }
        for (ptrdiff_t k = 0; k < h; k++)
            for (ptrdiff_t j = 0; j < rows; j++) by_W_out[k * h + from + j] = r->left[j * p->wide + k];
    }
    for (ptrdiff_t k = first; k < end; k++) by_b_out[k] = 0;
    for (ptrdiff_t i = 0; i < h * heads; i++)
        for (ptrdiff_t k = first; k < end; k++) by_b_out[k] += by_bias[i / heads] * m.W_o[i * h + k];
}
