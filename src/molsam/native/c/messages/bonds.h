#pragma once

#include "product.h"

/* The arguments of sum times maximum over the bonds that enter each of n atoms (message_graph.py). */

typedef struct {
    ptrdiff_t n, d, full;
    const int64_t *rows OF(entries), *offsets OF(n + 1); /* the lists of bonds */
    const int64_t *before OF(n) OR_NULL;                 /* rows of x */
    const real *x OF(m * d) OR_NULL, *hidden OF(e * d);
    real *total OF(n * d), *most OF(n * d), *out OF(n * d);
} SumTimesMax;

typedef struct {
    ptrdiff_t n, d;
    const int64_t *rows OF(entries), *offsets OF(n + 1), *before OF(n) OR_NULL;
    const real *hidden OF(e * d), *total OF(n * d), *most OF(n * d), *grad OF(n * d);
    real *by_hidden OF(e * d), *by_x OF(m * d) OR_NULL;
} SumTimesMaxBackward;
