#include "product.h"

/* What CoMPT's scores multiply the atoms with, a head at a time (queries.py): for T bond types, T' = T in whole vectors,
   and heads of `own` columns of d,

       K = e W_k' + b_k,   weight = K W_q / sqrt(own),   bias = K b_q / sqrt(own)    per head.

   keys [heads, own, T'] is K transposed and divided by the root. */

typedef struct {
    ptrdiff_t types, d, heads, own, wide; /* wide: T' */
} Shape;

/* out [d, wide] = from [types, d] transposed, zeros behind it */
static void turned(const Shape *s, const real *from, real *out)
{
    memset(out, 0, s->d * s->wide * sizeof *out);
    for (ptrdiff_t t = 0; t < s->types; t++)
        for (ptrdiff_t j = 0; j < s->d; j++) out[j * s->wide + t] = from[t * s->d + j];
}

/* out [rows, columns] = the matrix whose element (i, j) is a[i * by_row + j * by_column], times b [inner, columns] */
static void times(const real **left, ptrdiff_t rows, ptrdiff_t inner, const real *a, ptrdiff_t by_row,
                  ptrdiff_t by_column, const real *b, ptrdiff_t columns, real *out)
{
    spread(rows, left, a, by_row);
    product(rows, (Left){left, by_column, inner}, b, columns, columns, out, columns, 0);
}

/* e [types, d], W_k and W_q [d, d], b_k and b_q [d] -> keys [heads, own, T'], weight [heads, types, d], bias [heads, types] */
int type_queries(ptrdiff_t threads, ptrdiff_t types, ptrdiff_t d, ptrdiff_t heads, const real *e, const real *W_k,
                 const real *b_k, const real *W_q, const real *b_q, real *keys, real *weight, real *bias)
{
    Shape s = {types, d, heads, d / heads, padded(types)};
    real root = (real)sqrt((double)s.own), *columns = memory(d * s.wide);
    int failed = !columns;
    if (columns) turned(&s, e, columns);
#pragma omp parallel num_threads(threads) reduction(| : failed)
    {
        const real **left = malloc((types + s.own) * sizeof *left);
        failed = !columns || !left;
#pragma omp for schedule(static)
        for (ptrdiff_t h = 0; h < heads; h++) {
            if (failed) continue;
            real *K = keys + h * s.own * s.wide, *sum = bias + h * types;
            times(left, s.own, d, W_k + h * s.own * d, d, 1, columns, s.wide, K);
            memset(sum, 0, types * sizeof *sum);
            for (ptrdiff_t j = 0; j < s.own; j++, K += s.wide)
                for (ptrdiff_t t = 0; t < types; t++) {
                    K[t] = (K[t] + b_k[h * s.own + j]) / root;
                    sum[t] += K[t] * b_q[h * s.own + j];
                }
            times(left, types, s.own, keys + h * s.own * s.wide, 1, s.wide, W_q + h * s.own * d, d, weight + h * types * d);
        }
        free(left);
    }
    free(columns);
    return failed;
}

/* by_weight and by_bias -> by_e [heads, types, d], each head's share, by_W_k, by_b_k, by_W_q, by_b_q */
int type_queries_backward(ptrdiff_t threads, ptrdiff_t types, ptrdiff_t d, ptrdiff_t heads, const real *e,
                          const real *W_k, const real *W_q, const real *b_q, const real *keys, const real *by_weight,
                          const real *by_bias, real *by_e, real *by_W_k, real *by_b_k, real *by_W_q, real *by_b_q)
{
    Shape s = {types, d, heads, d / heads, padded(types)};
    real root = (real)sqrt((double)s.own);
    int failed = 0;
#pragma omp parallel num_threads(threads) reduction(| : failed)
    {
        real *columns = memory(d * s.wide), *by_keys = memory(s.own * s.wide);
        const real **left = malloc((types + s.own) * sizeof *left);
        failed = !columns || !by_keys || !left;
#pragma omp for schedule(static)
        for (ptrdiff_t h = 0; h < heads; h++) {
            if (failed) continue;
            ptrdiff_t at = h * s.own;
            const real *K = keys + at * s.wide, *by = by_weight + h * types * d;
            turned(&s, by, columns);
            times(left, s.own, d, W_q + at * d, d, 1, columns, s.wide, by_keys);
            for (ptrdiff_t j = 0; j < s.own; j++) {
                real along = 0, sum = 0, *row = by_keys + j * s.wide;
                for (ptrdiff_t t = 0; t < types; t++) {
                    along += K[j * s.wide + t] * by_bias[h * types + t];
                    row[t] = (row[t] + b_q[at + j] * by_bias[h * types + t]) / root;
                    sum += row[t];
                }
                by_b_q[at + j] = along, by_b_k[at + j] = sum;
            }
            times(left, s.own, types, K, s.wide, 1, by, d, by_W_q + at * d);
            times(left, s.own, types, by_keys, s.wide, 1, e, d, by_W_k + at * d);
            times(left, types, s.own, by_keys, 1, s.wide, W_k + at * d, d, by_e + h * types * d);
        }
        free(columns), free(by_keys), free(left);
    }
    return failed;
}
