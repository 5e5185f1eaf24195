#include "heads.h"
#include "norm.h"

/* A block of GROVER (models/grover_compiled.py): message passing encoders, attention between their heads, the linear
   map behind it and its norm.

   Molecules do not touch each other, so the rows of some of them, a chunk, go through all of it: encoder by encoder, whose
   matrix stays in the core's nearest caches, a few rows at a time (of those that have the same state after a step the first,
   and the others by copy), and then, strip by strip, from the encoders' final states to the result. On the way back a chunk
   belongs to one thread.

   Encoders come sorted, deepest first; step t is made by the first active[t] of them, after which active[t + 1] go on
   and the others' states are final. Rows of states are `wide` numbers, h rounded up to whole vectors; what is beyond h
   is zero. */

enum {
    STRIP = 80, /* rows of a strip, whole vectors */
    BLOCK = 64  /* rows that an encoder takes at a time */
};

typedef struct {
    ptrdiff_t n, h, wide, heads, parts, steps;
    const int64_t *active; /* [steps + 1], the last is 0 */
    const int64_t *order;  /* [3 heads], encoders in the order of their depth */
    const int64_t *slot;   /* [3 heads], the place of each one's final state: role, head */
    const double *below;   /* [1], the activation's slope below zero */
    const int64_t *bounds; /* [chunks + 1], where each begins */
    ptrdiff_t chunks;
    const int64_t *same; /* [steps, n], of each row the first that has the same state after each step */
} Plan;

typedef struct {
    const int64_t *rows, *offsets;
} Lists;

/* What the backward pass needs, chunk by chunk: sums over x [n, wide]; states [rows, wide] of each step that is not the
   last, then the final ones; strip by strip projected [3, h, heads, lanes] and attention [parts, heads, heads, lanes];
   and the norm's unit [n, h] and factor [n]. */
typedef struct {
    real *first, *states, *projected, *attention, *unit, *factor;
} Saved;

/* LayerNorm's. */
typedef struct {
    real eps;
    const real *gain, *shift;
} Norm;

/* Which thread each chunk belongs to: always the one with the fewest rows so far; to be freed. */
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

static ptrdiff_t passing(const Plan *p) /* states that are not final */
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
{
    return (p->bounds[chunk + 1] - p->bounds[chunk] + STRIP - 1) / STRIP;
}

static ptrdiff_t lanes_before(const Plan *p, ptrdiff_t chunk)
{
    ptrdiff_t sum = 0;
    for (ptrdiff_t k = 0; k < chunk; k++) sum += padded(p->bounds[k + 1] - p->bounds[k]);
    return sum;
}

/* One chunk: its rows, and where its saved numbers are. */
typedef struct {
    ptrdiff_t begin, rows;
    Saved saved;
    real *final; /* [3 heads, rows, wide] */
} Chunk;

static Chunk chunk_of(const Plan *p, Saved all, ptrdiff_t k)
{
    ptrdiff_t begin = p->bounds[k], rows = p->bounds[k + 1] - begin, before = lanes_before(p, k), mid = passing(p);
    Saved own = {all.first + begin * p->wide, all.states + begin * (mid + 3 * p->heads) * p->wide,
                 all.projected + before * 3 * p->h * p->heads, all.attention + before * p->parts * p->heads * p->heads,
                 all.unit + begin * p->h, all.factor + begin};
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

/* to = the sum of the rows of `from` in the list of a row of the chunk; from's row 0 is the chunk's first. */
static void gather(const Plan *p, const Chunk *c, Lists lists, const real *from, ptrdiff_t row, real *to)
{
    const int64_t *at = lists.offsets + c->begin + row;
    sum_of_rows(p->wide, from, lists.rows, at[0], at[1], c->begin, to);
}

/* The row of the chunk whose state a row has after step t. */
static inline ptrdiff_t model(const Plan *p, const Chunk *c, ptrdiff_t t, ptrdiff_t row)
{
    return p->same[t * p->n + c->begin + row] - c->begin;
}

/* From `row` on the rows of the chunk that are their own model, up to BLOCK of them -> found, and how many; row moves on. */
static ptrdiff_t models(const Plan *p, const Chunk *c, ptrdiff_t t, ptrdiff_t *row, ptrdiff_t *found)
{
    ptrdiff_t count = 0;
    for (; *row < c->rows && count < BLOCK; ++*row)
        if (model(p, c, t, *row) == *row) found[count++] = *row;
    return count;
}

/* to = activation(x + y + bias), a row */
static APART void update(ptrdiff_t wide, real below, real *restrict to, const real *restrict x, const real *restrict y,
                         const real *restrict bias)
{
    for (ptrdiff_t c = 0; c < wide; c++) {
        real sum = x[c] + y[c] + bias[c], low = sum * below;
        to[c] = sum > 0 ? sum : low;
    }
}

/* by_sum = gradient of the argument of the activation; by_x += by_sum, by_bias += by_sum */
static APART void update_backward(ptrdiff_t wide, real below, real *restrict by_sum, const real *restrict by,
                                  const real *restrict result, real *restrict by_x, real *restrict by_bias)
{
    for (ptrdiff_t c = 0; c < wide; c++) {
        real low = by[c] * below, slope = result[c] > 0 ? by[c] : low;
        by_sum[c] = slope, by_x[c] += slope, by_bias[c] += slope;
    }
}

static void fill(ptrdiff_t n, real *to, real value)
{
    for (ptrdiff_t i = 0; i < n; i++) to[i] = value;
}

/* A thread's memory, with zeros where rows of `wide` numbers are: x, by_sum, sums and on of a chunk, left and right of a
   block, by and by_state of all final states and of one; lanes of a strip. */
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
    Room r = {zeros(size), zeros(block), zeros(size), zeros(size), zeros(block), zeros(block), memory(3 * p->heads * size),
              memory(size), memory(lanes), memory(lanes), memory(3 * lanes * backward),
              memory(STRIP * p->heads * p->heads * backward), malloc((all + p->h * p->heads) * sizeof *r.a)};
    return r;
}

static int incomplete(const Room *r)
{
    return !r->x || !r->by_sum || !r->sums || !r->on || !r->left || !r->right || !r->by || !r->by_state || !r->lanes || !r->o ||
           !r->by_lanes || !r->by_scores || !r->a;
}

static void leave(Room *r)
{
    free(r->x), free(r->by_sum), free(r->sums), free(r->on), free(r->left), free(r->right), free(r->by), free(r->by_state);
    free(r->lanes), free(r->o), free(r->by_lanes), free(r->by_scores), free(r->a);
}

/* x [n, h] -> wide [n, wide], zeros beyond h, and first, of the chunk's rows. */
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

/* The states of encoder j. */
static void encode(const Plan *p, const Chunk *c, ptrdiff_t j, Lists lists, const real *x, const real *panels, const real *bias,
                   Room *r)
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
                update(wide, (real)*p->below, to + at[i] * wide, x + at[i] * wide, r->right + i * wide, bias + own * wide);
        }
        for (ptrdiff_t i = 0; i < c->rows; i++)
            if (model(p, c, t, i) != i) memcpy(to + i * wide, to + model(p, c, t, i) * wide, wide * sizeof *to);
    }
}

/* Some rows of a chunk, as lanes. */
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
    return (Strip){row, rows, heads, q, q + role, q + 2 * role, c->saved.attention + row * p->parts * p->heads * p->heads};
}

/* Part i of numbers [column, head, lane]. */
static Part part(const Strip *s, real *of, ptrdiff_t i)
{
    ptrdiff_t stride = s->heads.heads * s->heads.lanes;
    return (Part){of + i * s->heads.d * stride, stride, s->heads.lanes};
}

/* Part i of numbers [head, column, lane]. */
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
        mix(&s->heads, wide_part(s, o, i), s->attention + i * heads * heads * s->heads.lanes, heads, 1, part(s, s->v, i));
}

static void attend(const Plan *p, const Chunk *c, Strip s, const real *projection, const real *mixing, const real *bias,
                   Norm norm, real *out, Room *r)
{
    ptrdiff_t h = p->h, heads = p->heads, lanes = s.heads.lanes, stride = heads * lanes;
    for (ptrdiff_t role = 0; role < 3; role++) {
        for (ptrdiff_t i = 0; i < heads; i++)
            to_lanes(s.rows, h, c->final + ((role * heads + i) * c->rows + s.row) * p->wide, p->wide, r->lanes + i * lanes, stride);
        fill(stride, r->lanes + h * stride, 1); /* what the bias is multiplied by */
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

/* Two linear maps, of each head and of all: W_out [h, h] and its bias [h], W_o [h, heads, h] and its bias [h]; or no biases. */
typedef struct {
    const real *W_o, *b_o, *W_out, *b_out;
} Maps;

/* Nothing stands between the two, so they are one: mixing [h, heads, h] = W_o W_out and bias [h]; out, W_out in panels. */
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

/* From the gradients of mixing (transposed, [heads, h, h]) and its bias, those of W_o, W_out and its bias; out is W_out's
   transposed in panels; panels, room for a matrix. */
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
                for (ptrdiff_t k = 0; k < h; k++) to[k] = r->left[j * p->wide + k] + (m.b_out ? factor * m.b_out[k] : 0);
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

/* x [n, h], W [3 heads, h, h], bias [3 heads, wide], lists of n rows; qkv [6]: W [h, h] and b [h] of q, k
   and v; the two maps behind attention (see Maps); the norm's eps [1], gain and shift [h] -> out [n, h], mixing [h, heads, h],
   and what is saved (see Saved). */
int grover_block(ptrdiff_t threads, ptrdiff_t n, ptrdiff_t h, ptrdiff_t wide, ptrdiff_t heads, ptrdiff_t parts,
                 ptrdiff_t steps, const int64_t *active, const int64_t *order, const int64_t *slot, const double *below,
                 const int64_t *bounds, ptrdiff_t count, const int64_t *same, const int64_t *rows, const int64_t *offsets,
                 const real *x, const real *W, const real *bias, const real *const *qkv, const real *W_o, const real *b_o,
                 const real *W_out, const real *b_out, const double *eps, const real *gain, const real *shift, real *first,
                 real *states, real *projected, real *attention, real *unit, real *factor, real *mixing, real *out)
{
    Plan p = {n, h, wide, heads, parts, steps, active, order, slot, below, bounds, count, same};
    Saved saved = {first, states, projected, attention, unit, factor};
    Norm norm = {(real)*eps, gain, shift};
    ptrdiff_t strips = 0;
    for (ptrdiff_t k = 0; k < count; k++) strips += strips_of(&p, k);
    Maps maps = {W_o, b_o, W_out, b_out};
    ptrdiff_t encoders = 3 * heads;
    real *panels = memory((encoders + 1) * h * padded(h)), *of_out = panels + encoders * h * padded(h);
    real *projection = memory(3 * h * (h + 1)), *widened = memory(n * wide), *mixing_bias = memory(h); /* [3, h, W and b] */
    int failed = !panels || !projection || !widened || !mixing_bias;
#pragma omp parallel num_threads(threads) reduction(| : failed)
    {
        Room r = room_of(&p, 0);
        failed = !panels || !projection || !widened || !mixing_bias || incomplete(&r);
#pragma omp for schedule(static)
        for (ptrdiff_t j = 0; j <= encoders; j++)
            if (panels && j < encoders) pack(panels + j * h * padded(h), W + j * h * h, h, h, 1, h);
            else if (panels) pack(of_out, W_out, h, h, h, 1);
        mixing_of(&p, maps, of_out, mixing, mixing_bias, &r, failed);
#pragma omp for schedule(static)
        for (ptrdiff_t i = 0; i < 3 * h; i++)
            if (projection) {
                memcpy(projection + i * (h + 1), qkv[i / h * 2] + i % h * h, h * sizeof *projection);
                projection[i * (h + 1) + h] = qkv[i / h * 2 + 1][i % h];
            }
#pragma omp for schedule(static)
        for (ptrdiff_t k = 0; k < count; k++) {
            Chunk c = chunk_of(&p, saved, k);
            if (widened) widen(&p, &c, (Lists){rows, offsets}, x, widened);
        }
        /* Nothing is added up over rows here, so whoever is free takes the next piece, and the numbers stay the same. */
#pragma omp for schedule(dynamic)
        for (ptrdiff_t j = 0; j < encoders * count; j++) {
            Chunk c = chunk_of(&p, saved, j % count);
            if (!failed && c.rows) encode(&p, &c, j / count, (Lists){rows, offsets}, widened, panels, bias, &r);
        }
#pragma omp for schedule(dynamic)
        for (ptrdiff_t i = 0; i < strips; i++) {
            ptrdiff_t k = 0, strip = i;
            while (strip >= strips_of(&p, k)) strip -= strips_of(&p, k++);
            Chunk c = chunk_of(&p, saved, k);
            if (!failed) attend(&p, &c, strip_of(&p, &c, strip * STRIP), projection, mixing, mixing_bias, norm, out, &r);
        }
        leave(&r);
    }
    free(panels), free(projection), free(widened), free(mixing_bias);
    return failed;
}

/* Gradients of the weights, rows of `wide` numbers (a thread's) or h one after the other. */
typedef struct {
    real *W, *bias;                     /* [3 heads, h], [3 heads] */
    real *projection, *projection_bias; /* [3, h], [3] */
    real *mixing;                       /* [heads, h], mixing's columns */
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

/* From grad [rows, h] of the strip's out: those of the final states, in r->by. */
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

/* From the gradients of the final states, in r->by: by_x of the chunk's rows, where of rows that are the same the first may
   have the others' share too. */
static void encode_backward(const Plan *p, const Chunk *c, Lists lists, Lists back, const real *panels, Gradients g, real *by_x,
                            Room *r)
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
                    update_backward(wide, (real)*p->below, r->by_sum + i * wide, by + at[i] * wide, result + at[i] * wide,
                                    r->x + at[i] * wide, g.bias + own * wide);
                    if (t) gather(p, c, lists, after(p, c, t - 1, j), at[i], r->left + i * wide);
                    else memcpy(r->left + i * wide, c->saved.first + at[i] * wide, wide * sizeof *r->left);
                }
                spread(h, r->a, r->by_sum, 1);
                product(h, (Left){r->a, wide, rows}, r->left, wide, h, g.W + own * h * wide, wide, 1);
                spread(rows, r->a, r->by_sum, wide);
                product(rows, (Left){r->a, 1, h}, panels + own * h * padded(h), 0, h, r->right, wide, 0);
                for (ptrdiff_t i = 0; i < rows; i++) add(wide, (t ? r->on : r->sums) + at[i] * wide, r->right + i * wide);
            }
            for (ptrdiff_t i = 0; i < c->rows && t; i++) gather(p, c, back, r->on, i, r->by_state + i * wide);
        }
    }
    for (ptrdiff_t i = 0; i < c->rows; i++) {
        gather(p, c, back, r->sums, i, r->left);
        for (ptrdiff_t k = 0; k < h; k++) by_x[i * h + k] = r->x[i * wide + k] + r->left[k];
    }
}

/* grad [n, h] of out, the lists and the transposed ones -> by_x [n, h] and the gradients of W, bias, projection, its bias, mixing
   (transposed), gain, shift and W_o's bias (that of mixing), one after the other, by_weights [rows, h], and by_maps [rows, h]:
   of W_o, W_out and its bias. */
int grover_block_backward(ptrdiff_t threads, ptrdiff_t n, ptrdiff_t h, ptrdiff_t wide, ptrdiff_t heads, ptrdiff_t parts,
                          ptrdiff_t steps, const int64_t *active, const int64_t *order, const int64_t *slot,
                          const double *below, const int64_t *bounds, ptrdiff_t count, const int64_t *same, const int64_t *rows,
                          const int64_t *offsets, const int64_t *back, const int64_t *back_offsets, const real *W, const real *const *qkv,
                          const real *W_o, const real *W_out, const real *b_out, const real *gain, real *first, real *states,
                          real *projected, real *attention, real *unit, real *factor, const real *mixing, const real *grad,
                          real *by_x, real *by_weights, real *by_maps)
{
    Plan p = {n, h, wide, heads, parts, steps, active, order, slot, below, bounds, count, same};
    Saved saved = {first, states, projected, attention, unit, factor};
    ptrdiff_t *owner = owners(&p, threads), encoders = 3 * heads, size = gradient_rows(&p) * wide;
    real *panels = memory((encoders + 4) * h * padded(h)), *of_projection = panels + encoders * h * padded(h);
    real *of_out = of_projection + 3 * h * padded(h), *own = memory(threads * size);
    Maps maps = {W_o, NULL, W_out, b_out};
    Gradients all = gradients_of(&p, by_weights, h);
    int failed = !owner || !panels || !own;
#pragma omp parallel num_threads(threads) reduction(| : failed)
    {
        Room r = room_of(&p, 1);
        failed = !owner || !panels || !own || incomplete(&r);
        if (own) memset(own + THREAD * size, 0, size * sizeof *own);
        Gradients g = gradients_of(&p, own + THREAD * size, wide);
#pragma omp for schedule(static)
        for (ptrdiff_t j = 0; j < encoders + 4; j++)
            if (panels && j < encoders) pack(panels + j * h * padded(h), W + j * h * h, h, h, h, 1);
            else if (panels && j < encoders + 3) pack(panels + j * h * padded(h), qkv[2 * (j - encoders)], h, h, h, 1);
            else if (panels) pack(of_out, W_out, h, h, 1, h);
        for (ptrdiff_t k = 0; k < count && !failed; k++)
            if (owner[k] % THREADS == THREAD && bounds[k] < bounds[k + 1]) {
                Chunk c = chunk_of(&p, saved, k);
                for (ptrdiff_t row = 0; row < c.rows; row += STRIP)
                    attend_backward(&p, &c, strip_of(&p, &c, row), grad + (c.begin + row) * h, of_projection, mixing, gain, g, &r);
                encode_backward(&p, &c, (Lists){rows, offsets}, (Lists){back, back_offsets}, panels, g, by_x + c.begin * h, &r);
            }
#pragma omp barrier
        if (own) reduce(gradient_rows(&p), h, by_weights, h, own, wide, size);
#pragma omp barrier
        mixing_backward(&p, maps, of_out, all.mixing, all.mixing_bias, panels, by_maps, by_maps + h * heads * h,
                        by_maps + (heads + 1) * h * h, &r, failed);
        leave(&r);
    }
    free(owner), free(panels), free(own);
    return failed;
}
