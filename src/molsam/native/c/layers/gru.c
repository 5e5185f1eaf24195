#include "gru.h"

/* The recurrence of a bidirectional GRU (gru.py).

   Directions are independent of each other, and so are molecules. Each thread takes one direction of some molecules
   from their first step to their last, with the recurrent matrix U packed in its own cache. */

typedef struct {
    ptrdiff_t molecules, d;
    const int64_t *offsets; /* [molecules + 1], each molecule's first atom */
    int direction;
    ptrdiff_t first, every; /* the molecules first, first + every, ... */
} Share;

/* Find the molecules of a share with more than t atoms, and the atom that each reads at step t; return their number. */
static ptrdiff_t at_step(const Share *s, ptrdiff_t t, int64_t *molecule, int64_t *atom)
{
    ptrdiff_t rows = 0;
    for (ptrdiff_t m = s->first; m < s->molecules; m += s->every)
        if (s->offsets[m] + t < s->offsets[m + 1]) {
            molecule[rows] = m;
            atom[rows++] = s->direction ? s->offsets[m + 1] - 1 - t : s->offsets[m] + t;
        }
    return rows;
}

static ptrdiff_t steps(const Share *s)
{
    ptrdiff_t most = 0;
    for (ptrdiff_t m = s->first; m < s->molecules; m += s->every)
        if (s->offsets[m + 1] - s->offsets[m] > most) most = s->offsets[m + 1] - s->offsets[m];
    return most;
}

/* One step of one molecule. u = U h; g has the arguments of r, z, n without u and becomes r, z, n; v = u + c of n. */
static APART void cell(ptrdiff_t d, const real *restrict u, const real *restrict c, const real *restrict h,
                       real *restrict g, real *restrict v, real *restrict out)
{
    for (ptrdiff_t j = 0; j < d; j++) {
        real r = sigmoid(g[j] + u[j]), z = sigmoid(g[d + j] + u[d + j]), w = u[2 * d + j] + c[j];
        real n = 2 * sigmoid(2 * (g[2 * d + j] + r * w)) - 1;
        g[j] = r, g[d + j] = z, g[2 * d + j] = n, v[j] = w;
        out[j] = n + z * (h[j] - n);
    }
}

/* The backward pass of cell. grad: the gradient of the output from outside. carry: that from the next step, which
   becomes the part of h's gradient through z. a, b, by_u: gradients of the arguments of r, z, n, of v, and of U h. */
static APART void cell_backward(ptrdiff_t d, const real *restrict grad, const real *restrict h, const real *restrict g,
                                const real *restrict v, real *restrict carry, real *restrict a, real *restrict b,
                                real *restrict by_u)
{
    for (ptrdiff_t j = 0; j < d; j++) {
        real r = g[j], z = g[d + j], n = g[2 * d + j], by_h = grad[j] + carry[j];
        real by_n = by_h * (1 - z) * (1 - n * n), by_z = by_h * (h[j] - n) * z * (1 - z);
        real by_r = by_n * v[j] * r * (1 - r), by_v = by_n * r;
        a[j] = by_u[j] = by_r, a[d + j] = by_u[d + j] = by_z, a[2 * d + j] = by_n, by_u[2 * d + j] = b[j] = by_v;
        carry[j] = by_h * z;
    }
}

static int forward(const Share *s, const Gru *g)
{
    const real *U = s->direction ? g->U_back : g->U, *bias = g->bias, *h0 = g->h0;
    real *gates = g->gates, *hidden = g->hidden, *states = g->states;
    ptrdiff_t d = s->d, wide = padded(3 * d), k = s->direction, most = s->molecules;
    real *panels = memory(d * wide), *sums = memory(most * wide);
    int64_t *molecule = malloc(most * sizeof *molecule), *atom = malloc(most * sizeof *atom);
    const real **before = malloc(most * sizeof *before);
    int failed = !panels || !sums || !molecule || !atom || !before;
    if (!failed) pack(panels, U, d, 3 * d, 1, d);
    for (ptrdiff_t t = 0, rows; !failed && (rows = at_step(s, t, molecule, atom)); t++) {
        for (ptrdiff_t i = 0; i < rows; i++)
            before[i] = t ? states + (2 * (k ? atom[i] + 1 : atom[i] - 1) + k) * d : h0 + molecule[i] * d;
        product(rows, (Left){before, 1, d}, panels, 0, 3 * d, sums, wide, 0);
        for (ptrdiff_t i = 0; i < rows; i++) {
            ptrdiff_t line = 2 * atom[i] + k;
            cell(d, sums + i * wide, bias + k * d, before[i], gates + line * 3 * d, hidden + line * d,
                 states + line * d);
        }
    }
    free(panels), free(sums), free(molecule), free(atom), free(before);
    return failed;
}

static int backward(const Share *s, const GruBackward *b)
{
    const real *U = s->direction ? b->U_back : b->U, *states = b->states;
    real *carry = b->carry;
    ptrdiff_t d = s->d, wide = padded(d), k = s->direction, most = s->molecules;
    real *panels = memory(3 * d * wide), *by_u = memory(most * 3 * d), *sums = memory(most * wide);
    int64_t *molecule = malloc(most * sizeof *molecule), *atom = malloc(most * sizeof *atom);
    const real **row = malloc(most * sizeof *row);
    int failed = !panels || !by_u || !sums || !molecule || !atom || !row;
    if (!failed) pack(panels, U, 3 * d, d, d, 1);
    for (ptrdiff_t t = steps(s) - 1; !failed && t >= 0; t--) {
        ptrdiff_t rows = at_step(s, t, molecule, atom);
        for (ptrdiff_t i = 0; i < rows; i++) {
            ptrdiff_t line = 2 * atom[i] + k, g = line * 3 * d, v = line * d;
            const real *h = t ? states + (2 * (k ? atom[i] + 1 : atom[i] - 1) + k) * d : b->h0 + molecule[i] * d;
            memcpy(b->previous + v, h, d * sizeof *h);
            cell_backward(d, b->grad + v, h, b->gates + g, b->hidden + v, carry + (molecule[i] * 2 + k) * d,
                          b->slopes + g, b->by_hidden + v, by_u + i * 3 * d);
            row[i] = by_u + i * 3 * d;
        }
        product(rows, (Left){row, 1, 3 * d}, panels, 0, d, sums, wide, 0);
        for (ptrdiff_t i = 0; i < rows; i++) add(d, carry + (molecule[i] * 2 + k) * d, sums + i * wide);
    }
    free(panels), free(by_u), free(sums), free(molecule), free(atom), free(row);
    return failed;
}

int gru(ptrdiff_t threads, const Gru *g)
{
    int shares = threads > 3 ? threads / 2 : 1, failed = 0;
#pragma omp parallel for num_threads(threads) schedule(static, 1) reduction(| : failed)
    for (int i = 0; i < 2 * shares; i++) {
        Share s = {g->molecules, g->d, g->offsets, i % 2, i / 2, shares};
        failed |= forward(&s, g);
    }
    return failed;
}

int gru_backward(ptrdiff_t threads, const GruBackward *b)
{
    int shares = threads > 3 ? threads / 2 : 1, failed = 0;
#pragma omp parallel for num_threads(threads) schedule(static, 1) reduction(| : failed)
    for (int i = 0; i < 2 * shares; i++) {
        Share s = {b->molecules, b->d, b->offsets, i % 2, i / 2, shares};
        failed |= backward(&s, b);
    }
    return failed;
}
