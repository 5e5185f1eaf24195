#pragma once

#include "heads.h"
#include "norm.h"

/* A block of GROVER (models/grover/compiled.py): message passing encoders, attention between their heads, the linear
   map after it and its norm.

   Molecules are independent, so a chunk, the rows of some molecules, goes through the whole block. First the encoders
   run one after the other, so that an encoder's matrix stays in the core's nearest caches. They take a few rows at a
   time; of rows with equal states after a step only the first is computed, and the others are copies. Then the strips
   of the chunk go from the encoders' final states to the result. In the backward pass a chunk belongs to one thread.

   Encoders are sorted, deepest first. The first active[t] of them make step t; active[t + 1] of these continue, and the
   states of the others are final. Rows of states have `wide` numbers, h rounded up to whole vectors; those beyond h are
   zero. */

enum {
    STRIP = 80, /* rows of a strip, whole vectors */
    BLOCK = 64  /* rows that an encoder takes at a time */
};

typedef struct {
    ptrdiff_t n, h, wide, heads, parts, steps, chunks;
    ptrdiff_t passing;                    /* number of states that are not final: active[1] + active[2] + ... */
    double below;                         /* the activation's slope below zero */
    const int64_t *active OF(steps + 1);  /* the last is 0 */
    const int64_t *order OF(3 * heads);   /* encoders in the order of their depth */
    const int64_t *slot OF(3 * heads);    /* the slot of each one's final state: role, head */
    const int64_t *bounds OF(chunks + 1); /* where each chunk begins */
    const int64_t *same OF(steps * n);    /* for each step and row the first row with an equal state after the step */
    const int64_t *rows OF(entries), *offsets OF(n + 1); /* the lists of rows to sum */
} Plan;

/* What the backward pass needs. For each chunk: the sums over x, [rows, wide]; the states [rows, wide] of each step
   that is not the last, then the final states; for each strip projected [3, h, heads, lanes] and attention [parts,
   heads, heads, lanes]; and the norm's unit and factor. */
typedef struct {
    real *first OF(n * wide), *states OF((passing + 3 * heads) * n * wide);
    real *projected OF(3 * h * heads * (n + 16 * chunks)), *attention OF(parts * heads * heads * (n + 16 * chunks));
    real *unit OF(n * h), *factor OF(n);
} Saved;

typedef struct {
    const real *x OF(n * h), *W OF(3 * heads * h * h), *bias OF(3 * heads * wide);
    const real *W_q OF(h * h), *b_q OF(h), *W_k OF(h * h), *b_k OF(h), *W_v OF(h * h), *b_v OF(h);
    const real *W_o OF(h * heads * h), *b_o OF(h) OR_NULL; /* the map of all heads, [h, heads, h] */
    const real *W_out OF(h * h), *b_out OF(h) OR_NULL;      /* the map of each head */
    double eps;                                            /* of the norm */
    const real *gain OF(h), *shift OF(h);
    real *mixing OF(h * heads * h), *out OF(n * h);
} Block;

typedef struct {
    const int64_t *back OF(entries), *back_offsets OF(n + 1); /* the transposed lists */
    const real *W OF(3 * heads * h * h), *W_q OF(h * h), *W_k OF(h * h), *W_v OF(h * h);
    const real *W_o OF(h * heads * h), *W_out OF(h * h), *b_out OF(h) OR_NULL, *gain OF(h), *mixing OF(h * heads * h);
    const real *grad OF(n * h); /* of out */
    real *by_x OF(n * h);
    /* rows of h numbers: gradients of W, bias, projection, its bias, mixing (transposed), gain, shift and b_o */
    real *by_weights OF((3 * heads * (h + 1) + 3 * (h + 1) + h * heads + 3) * h);
    real *by_maps OF(((heads + 1) * h + 1) * h); /* rows of h numbers: of W_o, W_out and b_out */
} BlockBackward;

typedef struct {
    const int64_t *rows, *offsets;
} Lists;

/* The LayerNorm after the linear map. */
typedef struct {
    real eps;
    const real *gain, *shift;
} Norm;

/* The thread of each chunk: the one with the fewest rows so far. The caller frees the result. */
static ptrdiff_t *owners(const Plan *p, ptrdiff_t threads)
{
    ptrdiff_t *owner = malloc((p->chunks + 1) * sizeof *owner), *load = calloc(threads, sizeof *load);
    for (ptrdiff_t k = 0; owner && load && k < p->chunks; k++) {
        owner[k] = 0;
        for (ptrdiff_t i = 1; i < threads; i++)
            if (load[i] < load[owner[k]]) owner[k] = i;
        load[owner[k]] += p->bounds[k + 1] - p->bounds[k];
    }
    if (!load) free(owner), owner = NULL;
    free(load);
    return owner;
}

static ptrdiff_t steps_of(const Plan *p, ptrdiff_t j)
{
    ptrdiff_t t = 0;
    while (t < p->steps && j < p->active[t]) t++;
    return t;
}

static ptrdiff_t passing(const Plan *p) /* number of states that are not final */
{
    ptrdiff_t count = 0;
    for (ptrdiff_t t = 1; t < p->steps; t++) count += p->active[t];
    return count;
}

static ptrdiff_t most_rows(const Plan *p)
{
    ptrdiff_t most = 1;
    for (ptrdiff_t k = 0; k < p->chunks; k++)
        if (p->bounds[k + 1] - p->bounds[k] > most) most = p->bounds[k + 1] - p->bounds[k];
    return most;
}

static ptrdiff_t strips_of(const Plan *p, ptrdiff_t chunk)
{ return (p->bounds[chunk + 1] - p->bounds[chunk] + STRIP - 1) / STRIP; }

static ptrdiff_t lanes_before(const Plan *p, ptrdiff_t chunk)
{
    ptrdiff_t sum = 0;
    for (ptrdiff_t k = 0; k < chunk; k++) sum += padded(p->bounds[k + 1] - p->bounds[k]);
    return sum;
}

/* One chunk: its rows, and its part of the saved arrays. */
typedef struct {
    ptrdiff_t begin, rows;
    Saved saved;
    real *final; /* [3 heads, rows, wide] */
} Chunk;

static Chunk chunk_of(const Plan *p, Saved all, ptrdiff_t k)
{
    ptrdiff_t begin = p->bounds[k], rows = p->bounds[k + 1] - begin, before = lanes_before(p, k), mid = passing(p);
    Saved own = {all.first + begin * p->wide,
                 all.states + begin * (mid + 3 * p->heads) * p->wide,
                 all.projected + before * 3 * p->h * p->heads,
                 all.attention + before * p->parts * p->heads * p->heads,
                 all.unit + begin * p->h,
                 all.factor + begin};
    return (Chunk){begin, rows, own, own.states + mid * rows * p->wide};
}

/* The state of encoder j after step t. */
static real *after(const Plan *p, const Chunk *c, ptrdiff_t t, ptrdiff_t j)
{
    ptrdiff_t place = j;
    if (t + 1 >= p->steps || j >= p->active[t + 1]) return c->final + p->slot[j] * c->rows * p->wide;
    for (ptrdiff_t s = 0; s < t; s++) place += p->active[s + 1];
    return c->saved.states + place * c->rows * p->wide;
}

/* to = the sum of the rows of `from` in the list of a row of the chunk; row 0 of `from` is the chunk's first row. */
static void gather(const Plan *p, const Chunk *c, Lists lists, const real *from, ptrdiff_t row, real *to)
{
    const int64_t *at = lists.offsets + c->begin + row;
    sum_of_rows(p->wide, from, lists.rows, at[0], at[1], c->begin, to);
}

/* The model of a row: the first row of the chunk with an equal state after step t. */
static inline ptrdiff_t model(const Plan *p, const Chunk *c, ptrdiff_t t, ptrdiff_t row)
{ return p->same[t * p->n + c->begin + row] - c->begin; }

/* Find up to BLOCK rows of the chunk, from `row` on, that are their own model; return the number and advance `row`. */
static ptrdiff_t models(const Plan *p, const Chunk *c, ptrdiff_t t, ptrdiff_t *row, ptrdiff_t *found)
{
    ptrdiff_t count = 0;
    for (; *row < c->rows && count < BLOCK; ++*row)
        if (model(p, c, t, *row) == *row) found[count++] = *row;
    return count;
}

static void fill(ptrdiff_t n, real *to, real value)
{
    for (ptrdiff_t i = 0; i < n; i++) to[i] = value;
}

/* A thread's scratch memory: x, by_sum, sums and on of a chunk, left and right of a block, by of all final states and
   by_state of one, and the lanes of a strip. Rows of `wide` numbers start as zeros. */
typedef struct {
    real *x, *by_sum, *sums, *on, *left, *right, *by, *by_state, *lanes, *o, *by_lanes, *by_scores;
    const real **a;
} Room;

static real *zeros(ptrdiff_t n)
{
    real *made = memory(n);
    return made ? memset(made, 0, n * sizeof *made) : made;
}

static Room room_of(const Plan *p, int backward)
{
    ptrdiff_t size = most_rows(p) * p->wide * backward, block = (BLOCK > STRIP ? BLOCK : STRIP) * p->wide;
    ptrdiff_t lanes = STRIP * p->heads * (p->h + 1), all = BLOCK > STRIP ? BLOCK : STRIP;
    Room r = {zeros(size),
              zeros(block),
              zeros(size),
              zeros(size),
              zeros(block),
              zeros(block),
              memory(3 * p->heads * size),
              memory(size),
              memory(lanes),
              memory(lanes),
              memory(3 * lanes * backward),
              memory(STRIP * p->heads * p->heads * backward),
              malloc((all + p->h * p->heads) * sizeof *r.a)};
    return r;
}

static int incomplete(const Room *r)
{
    return !r->x || !r->by_sum || !r->sums || !r->on || !r->left || !r->right || !r->by || !r->by_state || !r->lanes ||
           !r->o || !r->by_lanes || !r->by_scores || !r->a;
}

static void leave(Room *r)
{
    free(r->x), free(r->by_sum), free(r->sums), free(r->on), free(r->left), free(r->right), free(r->by),
        free(r->by_state);
    free(r->lanes), free(r->o), free(r->by_lanes), free(r->by_scores), free(r->a);
}

/* Gradients of the weights, one row after the other; rows have `wide` numbers (a thread's own) or h (the result). */
typedef struct {
    real *W, *bias;                     /* [3 heads, h], [3 heads] */
    real *projection, *projection_bias; /* [3, h], [3] */
    real *mixing;                       /* [heads, h], the columns of mixing */
    real *gain, *shift, *mixing_bias;   /* one row each */
} Gradients;

static ptrdiff_t gradient_rows(const Plan *p) { return (4 * p->heads + 3) * p->h + 3 * p->heads + 6; }

static Gradients gradients_of(const Plan *p, real *rows, ptrdiff_t wide)
{
    ptrdiff_t h = p->h, heads = p->heads;
    real *bias = rows + 3 * heads * h * wide, *projection = bias + 3 * heads * wide;
    real *projection_bias = projection + 3 * h * wide, *mixing = projection_bias + 3 * wide;
    real *gain = mixing + h * heads * wide;
    return (Gradients){rows, bias, projection, projection_bias, mixing, gain, gain + wide, gain + 2 * wide};
}
