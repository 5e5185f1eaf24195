#pragma once

#include "product.h"

/* What torch's LayerNorm, CoMPT's LayerNorm and their backward passes have in common. */

/* out = x - mean; returns the sum of the squares of out */
static APART real centre(ptrdiff_t n, const real *restrict x, real *restrict out)
{
    real sum = 0, square = 0;
#pragma omp simd reduction(+ : sum)
    for (ptrdiff_t j = 0; j < n; j++) sum += x[j];
#pragma omp simd reduction(+ : square)
    for (ptrdiff_t j = 0; j < n; j++) out[j] = x[j] - sum / n, square += out[j] * out[j];
    return square;
}

/* unit *= factor, y = bias + unit gain */
static APART void affine(ptrdiff_t n, real factor, const real *restrict gain, const real *restrict bias,
                         real *restrict unit, real *restrict y)
{
    for (ptrdiff_t j = 0; j < n; j++) unit[j] *= factor, y[j] = bias[j] + unit[j] * gain[j];
}

/* The backward pass of centre and affine: from the gradient of y, by_x; by_gain and by_bias are added to. `turn` is the
   derivative of -log(factor) by the change of x along unit. */
static APART void layer_row(ptrdiff_t n, real factor, real turn, const real *restrict gain, const real *restrict unit,
                            const real *restrict grad, real *restrict by_x, real *restrict by_gain,
                            real *restrict by_bias)
{
    real along = 0, mean = 0;
#pragma omp simd reduction(+ : along, mean)
    for (ptrdiff_t j = 0; j < n; j++) {
        by_gain[j] += grad[j] * unit[j], by_bias[j] += grad[j];
        by_x[j] = grad[j] * gain[j];
        along += by_x[j] * unit[j], mean += by_x[j];
    }
    along *= turn, mean /= n;
    for (ptrdiff_t j = 0; j < n; j++) by_x[j] = (by_x[j] - mean) * factor - unit[j] * along;
}

/* torch's LayerNorm: from x, unit and y, all [n]; returns the factor. */
static inline real layer_norm_of(ptrdiff_t n, real eps, const real *x, const real *gain, const real *bias, real *unit,
                                 real *y)
{
    real factor = 1 / (real)sqrt((double)(centre(n, x, unit) / n + eps));
    affine(n, factor, gain, bias, unit, y);
    return factor;
}
