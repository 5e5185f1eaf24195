#include "norm.h"
#include "tables.h"

/* GROVER's input layers (models/grover_compiled.py): of the rows' features few are distinct, so their linear maps are rows
   of one or two tables behind W [h, f + g], A [kinds, f] and B [others, g], and out = the norm of act(W [A[a] ; B[b]] + bias).
   Without B, others and g are 0; without a bias that is null. */

/* What a row of each table gives, [kinds + others, wide], together for row i. */
static void mapped_of(ptrdiff_t h, ptrdiff_t wide, ptrdiff_t i, const int64_t *a, ptrdiff_t kinds, const int64_t *b,
                      ptrdiff_t g, const real *mapped, real *sum)
{
    memcpy(sum, mapped + a[i] * wide, h * sizeof *sum);
    if (g) add(h, sum, mapped + (kinds + b[i]) * wide);
}

/* a and b [n], the slope below zero and the norm's eps [1], gain and shift [h] -> mapped [kinds + others, wide], the norm's
   unit [n, h] and factor [n], and out [n, h] */
int input_layer(ptrdiff_t threads, ptrdiff_t n, ptrdiff_t h, ptrdiff_t wide, const int64_t *a, ptrdiff_t kinds, ptrdiff_t f,
                const real *A, const int64_t *b, ptrdiff_t others, ptrdiff_t g, const real *B, const real *W,
                const double *below, const real *bias, const double *eps, const real *gain, const real *shift, real *mapped,
                real *unit, real *factor, real *out)
{
    real *panels = memory((f + g) * padded(h));
#pragma omp parallel num_threads(threads)
    {
        map_table((Table){kinds, f, h, f + g, A, W}, bias, panels, mapped, wide);
        if (g) map_table((Table){others, g, h, f + g, B, W + f}, NULL, panels + f * padded(h), mapped + kinds * wide, wide);
#pragma omp for schedule(static)
        for (ptrdiff_t i = 0; i < n; i++) {
            real *y = out + i * h;
            mapped_of(h, wide, i, a, kinds, b, g, mapped, y);
            bend(h, (real)*below, y);
            factor[i] = layer_norm_of(h, (real)*eps, y, gain, shift, unit + i * h, y);
        }
    }
    free(panels);
    return !panels;
}

/* grad [n, h] of out -> by [kinds + others + 2, h]: the gradients of the tables' rows behind W, gain and shift; by_W and
   by_bias, if there is one */
int input_layer_backward(ptrdiff_t threads, ptrdiff_t n, ptrdiff_t h, ptrdiff_t wide, const int64_t *a, ptrdiff_t kinds,
                         ptrdiff_t f, const real *A, const int64_t *b, ptrdiff_t others, ptrdiff_t g, const real *B,
                         const real *W, const double *below, const real *gain, const real *mapped, const real *unit,
                         const real *factor, const real *grad, real *by, real *by_W, real *by_bias)
{
    ptrdiff_t rows = kinds + others + 2, few = ROWS * padded(f > g ? f : g), size = (rows + 2) * h + few;
    real *own = memory(threads * size); /* each thread's gradients, two rows to work in and a few more */
    real *panels = memory(kinds * padded(f) + others * padded(g));
    int failed = !own || !panels;
#pragma omp parallel num_threads(failed ? 1 : threads)
    if (!failed) {
        real *mine = own + THREAD * size, *last = mine + (kinds + others) * h, *sum = last + 2 * h, *x = sum + h;
        memset(mine, 0, (rows + 2) * h * sizeof *mine);
#pragma omp for schedule(static)
        for (ptrdiff_t i = 0; i < n; i++) {
            layer_row(h, factor[i], factor[i] / h, gain, unit + i * h, grad + i * h, x, last, last + h);
            mapped_of(h, wide, i, a, kinds, b, g, mapped, sum);
            bend_backward(h, (real)*below, sum, x);
            add(h, mine + a[i] * h, x);
            if (g) add(h, mine + (kinds + b[i]) * h, x);
        }
        reduce(rows, h, by, h, own, h, size);
#pragma omp barrier
        map_table_backward((Table){kinds, f, h, f + g, A, W}, by, panels, x + h, by_W, by_bias);
        if (g)
            map_table_backward((Table){others, g, h, f + g, B, W + f}, by + kinds * h, panels + kinds * padded(f), x + h,
                               by_W + f, NULL);
    }
    free(own), free(panels);
    return failed;
}
