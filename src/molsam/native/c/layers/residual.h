#pragma once

#include "product.h"

/* What CoMPT adds to a residual stream (residual.py): norm(mish(z + bias)) + first + second. The norm is ScaleNorm, with one
   gain, or LayerNorm if there is a shift. */

typedef struct {
    ptrdiff_t n, d, gains; /* gains: 1 or d */
    double eps;            /* ScaleNorm's least length, or what LayerNorm adds to the standard deviation */
    real *z OF(n * d);
    const real *bias OF(d);
    const real *first OF(n * d), *second OF(n * d) OR_NULL;
    const real *gain OF(gains), *shift OF(d) OR_NULL;
    real *kept OF(n * d); /* mish, or LayerNorm's unit */
    real *size OF(n);     /* the length, or the standard deviation */
    real *out OF(n * d);
} Residual;

typedef struct {
    ptrdiff_t n, d, gains;
    double eps;
    const real *gain OF(gains), *shift OF(d) OR_NULL;
    const real *kept OF(n * d), *size OF(n), *slope OF(n * d), *grad OF(n * d);
    real *by_z OF(n * d);
    real *own OF(threads * 3 * d); /* room for each thread's sums */
    real *sums OF(3 * d);
} ResidualBackward;
