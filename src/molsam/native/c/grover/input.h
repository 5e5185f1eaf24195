#pragma once

#include "product.h"

/* GROVER's input layers (models/grover/compiled.py): out = the norm of act(W [A[a] ; B[b]] + bias).

   Few feature vectors are distinct, so W [h, f + g] is applied only to the rows of one or two tables, A [kinds, f] and
   B [others, g]. Without B, others and g are 0. */

typedef struct {
    ptrdiff_t n, h, wide, kinds, f, others, g;
    double below; /* the activation's slope below zero */
    const int64_t *a OF(n), *b OF(n) OR_NULL;
    const real *A OF(kinds * f), *B OF(others * g) OR_NULL, *W OF(h * (f + g));
} Features;

typedef struct {
    const real *bias OF(h) OR_NULL;
    double eps; /* of the norm */
    const real *gain OF(h), *shift OF(h);
    real *mapped OF((kinds + others) * wide), *unit OF(n * h), *factor OF(n), *out OF(n * h);
} InputLayer;

typedef struct {
    const real *gain OF(h), *mapped OF((kinds + others) * wide), *unit OF(n * h), *factor OF(n);
    const real *grad OF(n * h);             /* of out */
    real *by OF((kinds + others + 2) * h); /* gradients of the tables' mapped rows, of gain and of shift */
    real *by_W OF(h * (f + g)), *by_bias OF(h) OR_NULL;
} InputLayerBackward;
