#include "norm.h"

/* GROVER's input layers (models/grover_compiled.py): of the rows' features few are distinct, so their linear maps are rows
   of one or two tables, A [kinds, h] and B [others, h], and out = the norm of act(A[a] + B[b]). Without B, b is null. */

/* A[a] + B[b] of row i */
static void mapped(ptrdiff_t h, ptrdiff_t i, const int64_t *a, const real *A, const int64_t *b, const real *B, real *sum)
{
    memcpy(sum, A + a[i] * h, h * sizeof *sum);
    if (b) add(h, sum, B + b[i] * h);
}

/* a and b [n], the slope below zero and the norm's eps [1], gain and shift [h] -> the norm's unit [n, h] and factor [n], and
   out [n, h] */
int input_layer(ptrdiff_t threads, ptrdiff_t n, ptrdiff_t h, const int64_t *a, const real *A, const int64_t *b, const real *B,
                const double *below, const double *eps, const real *gain, const real *shift, real *unit, real *factor,
                real *out)
{
#pragma omp parallel for num_threads(threads) schedule(static)
    for (ptrdiff_t i = 0; i < n; i++) {
        real *y = out + i * h;
        mapped(h, i, a, A, b, B, y);
        bend(h, (real)*below, y);
        factor[i] = layer_norm_of(h, (real)*eps, y, gain, shift, unit + i * h, y);
    }
    return 0;
}

/* grad [n, h] of out -> by [kinds + others + 2, h]: the gradients of A, B, gain and shift */
int input_layer_backward(ptrdiff_t threads, ptrdiff_t n, ptrdiff_t h, const int64_t *a, const real *A, const int64_t *b,
                         const real *B, const double *below, ptrdiff_t kinds, ptrdiff_t others, const real *gain,
                         const real *unit, const real *factor, const real *grad, real *by)
{
    ptrdiff_t rows = kinds + others + 2, size = (rows + 2) * h;
    real *own = memory(threads * size); /* each thread's, and two rows to work in */
    if (!own) return 1;
#pragma omp parallel num_threads(threads)
    {
        real *mine = own + THREAD * size, *last = mine + (kinds + others) * h, *sum = last + 2 * h, *x = sum + h;
        memset(mine, 0, size * sizeof *mine);
#pragma omp for schedule(static)
        for (ptrdiff_t i = 0; i < n; i++) {
            layer_row(h, factor[i], factor[i] / h, gain, unit + i * h, grad + i * h, x, last, last + h);
            mapped(h, i, a, A, b, B, sum);
            bend_backward(h, (real)*below, sum, x);
            add(h, mine + a[i] * h, x);
            if (b) add(h, mine + (kinds + b[i]) * h, x);
        }
        reduce(rows, h, by, own, h, size);
    }
    free(own);
    return 0;
}
