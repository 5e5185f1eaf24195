#include "product.h"

/* Attention between the few heads of a row, with the linear maps before it (head_attention.py).

   LANES rows at a time, one a lane: a product over heads is then a few operations on whole vectors, and everything
   between reading the states and writing the result stays in a core's cache. Numbers of a block are [column, head,
   lane]. */

typedef struct {
    ptrdiff_t heads, parts, n, d; /* d: columns of a part */
} Heads;

/* Exchanges one bit of the numbers of rows with the same bit of the numbers of lanes. */
static inline __attribute__((always_inline)) void exchange(vec *m, int bit)
{
    lanes low, high;
#pragma GCC unroll 16
    for (int l = 0; l < LANES; l++) {
        low[l] = l & bit ? LANES + l - bit : l;
        high[l] = l & bit ? LANES + l : l + bit;
    }
#pragma GCC unroll 16
    for (int i = 0; i < LANES; i++)
        if (!(i & bit)) {
            vec a = m[i], b = m[i + bit];
            m[i] = __builtin_shuffle(a, b, low), m[i + bit] = __builtin_shuffle(a, b, high);
        }
}

/* Rows become lanes. */
static inline void transpose(vec *m)
{
    exchange(m, 1), exchange(m, 2);
    if (LANES > 4) exchange(m, 4);
    if (LANES > 8) exchange(m, 8);
}

/* Heads of a block's rows, `row` and the next ones: [column, head, lane], zeros for rows that are not there.

   LANES columns at a time; the last ones overlap those before. */
static void load(const Heads *s, real *to, const real *from, ptrdiff_t row, ptrdiff_t by_head, ptrdiff_t by_row)
{
    ptrdiff_t count = smaller(LANES, s->n - row), h = s->parts * s->d, width = smaller(LANES, h);
    for (ptrdiff_t i = 0; i < s->heads; i++)
        for (ptrdiff_t next = 0; next < h; next += LANES) {
            ptrdiff_t c = smaller(next, h - width);
            const real *at = from + i * by_head + row * by_row + c;
            vec m[LANES];
            if (count == LANES && width == LANES) {
#pragma GCC unroll 16
                for (int l = 0; l < LANES; l++) memcpy(m + l, at + l * by_row, sizeof *m);
            } else {
                memset(m, 0, sizeof m);
                for (ptrdiff_t l = 0; l < count; l++) memcpy(m + l, at + l * by_row, width * sizeof *at);
            }
            transpose(m);
            for (ptrdiff_t k = 0; k < width; k++) ((vec *)to)[(c + k) * s->heads + i] = m[k];
        }
}

/* The way back. */
static void store(const Heads *s, real *to, const real *from, ptrdiff_t row, ptrdiff_t by_head, ptrdiff_t by_row)
{
    ptrdiff_t count = smaller(LANES, s->n - row), h = s->parts * s->d, width = smaller(LANES, h);
    for (ptrdiff_t i = 0; i < s->heads; i++)
        for (ptrdiff_t next = 0; next < h; next += LANES) {
            ptrdiff_t c = smaller(next, h - width);
            vec m[LANES] = {0};
            for (ptrdiff_t k = 0; k < width; k++) m[k] = ((const vec *)from)[(c + k) * s->heads + i];
            transpose(m);
            for (ptrdiff_t l = 0; l < count; l++)
                memcpy(to + i * by_head + (row + l) * by_row + c, m + l, width == LANES ? sizeof *m : width * sizeof *to);
        }
}

/* out_i = sum over j of weights[i * by_i + j * by_j] rows_j, for the d columns of a part */
static void mix(const Heads *s, vec *out, const vec *weights, ptrdiff_t by_i, ptrdiff_t by_j, const vec *rows)
{
    for (ptrdiff_t i = 0; i < s->heads; i++)
        for (ptrdiff_t c = 0; c < s->d; c++) {
            vec sum = weights[i * by_i] * rows[c * s->heads];
            for (ptrdiff_t j = 1; j < s->heads; j++) sum += weights[i * by_i + j * by_j] * rows[c * s->heads + j];
            out[c * s->heads + i] = sum;
        }
}

/* out_ij = scale times the sum over a part's columns of left_i right_j */
static void inner(const Heads *s, vec *out, const vec *left, const vec *right, real scale)
{
    for (ptrdiff_t i = 0; i < s->heads; i++)
        for (ptrdiff_t j = 0; j < s->heads; j++) {
            vec sum = left[i] * right[j];
            for (ptrdiff_t c = 1; c < s->d; c++) sum += left[c * s->heads + i] * right[c * s->heads + j];
            out[i * s->heads + j] = sum * scale;
        }
}

static void softmax(const Heads *s, vec *scores)
{
    for (ptrdiff_t i = 0; i < s->heads; i++) {
        real *row = (real *)(scores + i * s->heads), most[LANES], sum[LANES];
        for (ptrdiff_t l = 0; l < LANES; l++) most[l] = row[l], sum[l] = 0;
        for (ptrdiff_t j = 1; j < s->heads; j++)
            for (ptrdiff_t l = 0; l < LANES; l++) most[l] = row[j * LANES + l] > most[l] ? row[j * LANES + l] : most[l];
        for (ptrdiff_t j = 0; j < s->heads; j++)
            for (ptrdiff_t l = 0; l < LANES; l++) sum[l] += row[j * LANES + l] = exponential(row[j * LANES + l] - most[l]);
        for (ptrdiff_t j = 0; j < s->heads; j++)
            for (ptrdiff_t l = 0; l < LANES; l++) row[j * LANES + l] /= sum[l];
    }
}

/* states [3, heads, n, h] of q, k and v, W [3, h, h], b [3, h] -> out [n, heads, h], h = parts * d.

   projected [n / LANES rounded up, 3, h, heads, LANES] and attention [as many, parts, heads, heads, LANES] are for the
   backward pass. */
int head_attention(ptrdiff_t threads, ptrdiff_t heads, ptrdiff_t parts, ptrdiff_t n, ptrdiff_t d, const real *states,
                   const real *W, const real *b, real *projected, real *attention, real *out)
{
    Heads s = {heads, parts, n, d};
    ptrdiff_t h = parts * d, stride = heads * LANES, size = h * stride;
    int failed = 0;
#pragma omp parallel num_threads(threads) reduction(| : failed)
    {
        real *x = memory(size), *o = memory(size);
        const real **a = malloc(h * sizeof *a);
        failed = !x || !o || !a;
#pragma omp for schedule(static)
        for (ptrdiff_t row = 0; row < n; row += LANES) {
            if (failed) continue;
            real *block = projected + row / LANES * 3 * size;
            for (ptrdiff_t role = 0; role < 3; role++) {
                load(&s, x, states + role * heads * n * h, row, n * h, h);
                for (ptrdiff_t c = 0; c < h; c++) {
                    a[c] = W + (role * h + c) * h;
                    for (ptrdiff_t l = 0; l < stride; l++) block[role * size + c * stride + l] = b[role * h + c];
                }
                product(h, (Left){a, 1, h}, x, stride, stride, block + role * size, stride, 1);
            }
            for (ptrdiff_t p = 0; p < parts; p++) {
                const vec *q = (const vec *)(block + p * d * stride), *k = q + h * heads, *v = k + h * heads;
                vec *weights = (vec *)attention + (row / LANES * parts + p) * heads * heads;
                inner(&s, weights, q, k, 1 / (real)sqrt((double)d));
                softmax(&s, weights);
                mix(&s, (vec *)(o + p * d * stride), weights, heads, 1, v);
            }
            store(&s, out, o, row, h, heads * h);
        }
        free(x), free(o), free(a);
    }
    return failed;
}

/* grad [n, heads, h] of out -> by_states [3, heads, n, h]; by_W [threads, 3, h, wide] and by_b [threads, 3, h], zeros
   before, receive each thread's share. wide: h rounded up to whole vectors. */
int head_attention_backward(ptrdiff_t threads, ptrdiff_t heads, ptrdiff_t parts, ptrdiff_t n, ptrdiff_t d,
                            const real *states, const real *W, const real *projected, const real *attention,
                            const real *grad, ptrdiff_t wide, real *by_states, real *by_W, real *by_b)
{
    Heads s = {heads, parts, n, d};
    ptrdiff_t h = parts * d, stride = heads * LANES, size = h * stride;
    real *panels = memory(3 * h * padded(h));
    int failed = !panels;
#pragma omp parallel num_threads(threads) reduction(| : failed)
    {
        real *g = memory(size), *by = memory(3 * size), *x = memory(stride * wide), *scores = memory(heads * stride);
        const real **a = malloc((h + stride) * sizeof *a);
        vec *bias = memory(3 * h * LANES);
        real *my_W = by_W + THREAD * 3 * h * wide, *my_b = by_b + THREAD * 3 * h;
        failed = !panels || !g || !by || !x || !scores || !a || !bias;
        if (!failed) memset(x, 0, stride * wide * sizeof *x), memset(bias, 0, 3 * h * sizeof *bias);
#pragma omp for schedule(static)
        for (ptrdiff_t role = 0; role < 3; role++)
            if (panels) pack(panels + role * h * padded(h), W + role * h * h, h, h, h, 1);
#pragma omp for schedule(static)
        for (ptrdiff_t row = 0; row < n; row += LANES) {
            if (failed) continue;
            load(&s, g, grad, row, h, heads * h);
            for (ptrdiff_t p = 0; p < parts; p++) {
                ptrdiff_t at = p * d * stride;
                const vec *q = (const vec *)(projected + row / LANES * 3 * size + at), *k = q + h * heads;
                const vec *v = k + h * heads, *weights = (const vec *)attention + (row / LANES * parts + p) * heads * heads;
                vec *by_scores = (vec *)scores, *by_q = (vec *)(by + at), *by_k = by_q + h * heads, *by_v = by_k + h * heads;
                inner(&s, by_scores, (vec *)(g + at), v, 1);
                for (ptrdiff_t i = 0; i < heads * heads; i += heads) {
                    vec mean = weights[i] * by_scores[i];
                    for (ptrdiff_t j = 1; j < heads; j++) mean += weights[i + j] * by_scores[i + j];
                    for (ptrdiff_t j = 0; j < heads; j++)
                        by_scores[i + j] = weights[i + j] * (by_scores[i + j] - mean) * (1 / (real)sqrt((double)d));
                }
                mix(&s, by_q, by_scores, heads, 1, k);
                mix(&s, by_k, by_scores, 1, heads, q);
                mix(&s, by_v, weights, 1, heads, (vec *)(g + at));
            }
            for (ptrdiff_t role = 0; role < 3; role++) {
                const real *from = states + role * heads * n * h;
                ptrdiff_t count = smaller(LANES, n - row);
                for (ptrdiff_t i = 0; i < heads; i++)
                    for (ptrdiff_t l = 0; l < LANES; l++)
                        if (l < count) memcpy(x + (i * LANES + l) * wide, from + (i * n + row + l) * h, h * sizeof *x);
                        else memset(x + (i * LANES + l) * wide, 0, h * sizeof *x);
                for (ptrdiff_t c = 0; c < h; c++) {
                    a[c] = by + role * size + c * stride;
                    for (ptrdiff_t i = 0; i < heads; i++) bias[role * h + c] += ((const vec *)a[c])[i];
                }
                product(h, (Left){a, 1, stride}, x, wide, h, my_W + role * h * wide, wide, 1);
                for (ptrdiff_t i = 0; i < stride; i++) a[i] = by + role * size + i;
                product(stride, (Left){a, stride, h}, panels + role * h * padded(h), 0, h, x, wide, 0);
                for (ptrdiff_t i = 0; i < heads; i++)
                    for (ptrdiff_t l = 0; l < count; l++)
                        memcpy(by_states + ((role * heads + i) * n + row + l) * h, x + (i * LANES + l) * wide, h * sizeof *x);
            }
        }
        for (ptrdiff_t c = 0; c < 3 * h && !failed; c++)
            for (ptrdiff_t l = 0; l < LANES; l++) my_b[c] += bias[c][l];
        free(g), free(by), free(x), free(scores), free(a), free(bias);
    }
    free(panels);
    return failed;
}
