#pragma once

/* Attention between the few heads of a row, for the rows of a chunk (block.c).

   Each row is a lane of vectors, so a product over heads is a few operations on whole vectors. Arrays are [column,
   head, lane], or [head, column, lane] where a linear map over all heads reads or writes them. There are `lanes`
   lanes; those beyond the chunk's rows are zero. */

#include "product.h"

typedef struct {
    ptrdiff_t heads, parts, d, lanes; /* d: columns of a part; h = parts * d */
} Heads;

/* One step of a transpose: exchange one bit of the row index with the same bit of the lane index. */
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

/* Transpose LANES rows of LANES numbers, so that rows become lanes. */
static inline __attribute__((always_inline)) void transpose(vec *m)
{
    exchange(m, 1), exchange(m, 2);
    if (LANES > 4) exchange(m, 4);
    if (LANES > 8) exchange(m, 8);
}

/* from [rows, h], with rows `stride` apart -> to [h, lanes], with columns `apart` apart and zeros beyond the rows.

   It takes LANES columns at a time; the last columns overlap the ones before. */
static APART void to_lanes(ptrdiff_t rows, ptrdiff_t h, const real *from, ptrdiff_t stride, real *to, ptrdiff_t apart)
{
    ptrdiff_t width = smaller(LANES, h);
    for (ptrdiff_t row = 0; row < rows; row += LANES)
        for (ptrdiff_t next = 0; next < h; next += LANES) {
            ptrdiff_t c = smaller(next, h - width), count = smaller(LANES, rows - row);
            const real *at = from + row * stride + c;
            vec m[LANES];
            if (count == LANES && width == LANES) {
#pragma GCC unroll 16
                for (int l = 0; l < LANES; l++) memcpy(m + l, at + l * stride, sizeof *m);
                transpose(m);
#pragma GCC unroll 16
                for (int k = 0; k < LANES; k++) *(vec *)(to + (c + k) * apart + row) = m[k];
                continue;
            }
            memset(m, 0, sizeof m);
            for (ptrdiff_t l = 0; l < count; l++) memcpy(m + l, at + l * stride, width * sizeof *at);
            transpose(m);
            for (ptrdiff_t k = 0; k < width; k++) *(vec *)(to + (c + k) * apart + row) = m[k];
        }
}

/* The inverse of to_lanes, for the rows that exist. */
static APART void to_rows(ptrdiff_t rows, ptrdiff_t h, const real *from, ptrdiff_t apart, real *to, ptrdiff_t stride)
{
    ptrdiff_t width = smaller(LANES, h);
    for (ptrdiff_t row = 0; row < rows; row += LANES)
        for (ptrdiff_t next = 0; next < h; next += LANES) {
            ptrdiff_t c = smaller(next, h - width), count = smaller(LANES, rows - row);
            real *at = to + row * stride + c;
            vec m[LANES];
            if (count == LANES && width == LANES) {
#pragma GCC unroll 16
                for (int k = 0; k < LANES; k++) m[k] = *(const vec *)(from + (c + k) * apart + row);
                transpose(m);
#pragma GCC unroll 16
                for (int l = 0; l < LANES; l++) memcpy(at + l * stride, m + l, sizeof *m);
                continue;
            }
            memset(m, 0, sizeof m);
            for (ptrdiff_t k = 0; k < width; k++) m[k] = *(const vec *)(from + (c + k) * apart + row);
            transpose(m);
            for (ptrdiff_t l = 0; l < count; l++) memcpy(at + l * stride, m + l, width * sizeof *at);
        }
}

/* The layout of a part: column c of head i begins at first[c * column + i * head]. */
typedef struct {
    real *first;
    ptrdiff_t column, head;
} Part;

/* Per lane, out_i = sum over j of weights[i * by_i + j * by_j] rows_j, for the d columns of a part. */
static APART void mix(const Heads *s, Part out, const real *weights, ptrdiff_t by_i, ptrdiff_t by_j, Part rows)
{
    ptrdiff_t heads = s->heads, lanes = s->lanes;
    for (ptrdiff_t i = 0; i < heads; i++)
        for (ptrdiff_t l = 0; l < lanes; l += LANES) {
            vec first[4]; /* weights of the first four heads stay in registers; most models have no more heads */
            for (ptrdiff_t j = 0; j < 4; j++)
                first[j] = j < heads ? *(const vec *)(weights + (i * by_i + j * by_j) * lanes + l) : (vec){0};
            for (ptrdiff_t c = 0; c < s->d; c++) {
                const real *row = rows.first + c * rows.column + l;
                vec sum = first[0] * *(const vec *)row;
                for (ptrdiff_t j = 1; j < 4; j++)
                    if (j < heads) sum += first[j] * *(const vec *)(row + j * rows.head);
                for (ptrdiff_t j = 4; j < heads; j++)
                    sum += *(const vec *)(weights + (i * by_i + j * by_j) * lanes + l) *
                           *(const vec *)(row + j * rows.head);
                *(vec *)(out.first + c * out.column + i * out.head + l) = sum;
            }
        }
}

/* Per lane, out_ij = scale times the sum over a part's columns of left_i right_j. */
static APART void inner(const Heads *s, real *out, Part left, Part right, real scale)
{
    ptrdiff_t heads = s->heads, lanes = s->lanes;
    for (ptrdiff_t i = 0; i < heads; i++)
        for (ptrdiff_t j = 0; j < heads; j++)
            for (ptrdiff_t l = 0; l < lanes; l += LANES) {
                vec sum = {0};
                for (ptrdiff_t c = 0; c < s->d; c++)
                    sum += *(const vec *)(left.first + c * left.column + i * left.head + l) *
                           *(const vec *)(right.first + c * right.column + j * right.head + l);
                *(vec *)(out + (i * heads + j) * lanes + l) = sum * scale;
            }
}

/* In place over j, of scores [heads i, heads j, lanes]. */
static APART void softmax(const Heads *s, real *scores)
{
    ptrdiff_t heads = s->heads, lanes = s->lanes;
    for (ptrdiff_t i = 0; i < heads; i++)
        for (ptrdiff_t l = 0; l < lanes; l += LANES) {
            real *row = scores + i * heads * lanes + l, most[LANES], sum[LANES];
            for (ptrdiff_t k = 0; k < LANES; k++) most[k] = row[k], sum[k] = 0;
            for (ptrdiff_t j = 1; j < heads; j++)
                for (ptrdiff_t k = 0; k < LANES; k++)
                    most[k] = row[j * lanes + k] > most[k] ? row[j * lanes + k] : most[k];
            for (ptrdiff_t j = 0; j < heads; j++)
                for (ptrdiff_t k = 0; k < LANES; k++)
                    sum[k] += row[j * lanes + k] = exponential(row[j * lanes + k] - most[k]);
            for (ptrdiff_t j = 0; j < heads; j++)
                for (ptrdiff_t k = 0; k < LANES; k++) row[j * lanes + k] /= sum[k];
        }
}

/* Turn by_scores, the gradient of the softmax's output, into scale times the gradient of its input. */
static APART void softmax_backward(const Heads *s, real *by_scores, const real *weights, real scale)
{
    ptrdiff_t heads = s->heads, lanes = s->lanes;
    for (ptrdiff_t i = 0; i < heads; i++)
        for (ptrdiff_t l = 0; l < lanes; l += LANES) {
            ptrdiff_t at = i * heads * lanes + l;
            vec mean = {0};
            for (ptrdiff_t j = 0; j < heads; j++)
                mean += *(const vec *)(weights + at + j * lanes) * *(const vec *)(by_scores + at + j * lanes);
            for (ptrdiff_t j = 0; j < heads; j++) {
                vec *by = (vec *)(by_scores + at + j * lanes);
                *by = *(const vec *)(weights + at + j * lanes) * (*by - mean) * scale;
            }
        }
}
