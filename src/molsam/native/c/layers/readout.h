#pragma once

#include "product.h"

/* The arguments of the backward pass of weighted_sum_and_max. */
typedef struct {
    ptrdiff_t molecules, d;
    const int64_t *offsets OF(molecules + 1);
    const real *h OF(N * d), *w OF(d), *weight OF(N), *out OF(molecules * 2 * d), *grad OF(molecules * 2 * d);
    real *by_h OF(N * d);
    real *by_w OF(threads * (d + 1)); /* must be zero; each thread's share of the gradients of w and, last, b */
} ReadoutBackward;
