#pragma once

#include "product.h"

/* GROVER's feed-forward layers and the norm after them (models/grover/compiled.py). They run on a few rows at a time,
   so that the hidden rows, which are four times as wide as the others, stay in a core's cache until they are used
   again. */

typedef struct {
    ptrdiff_t n, h, hidden, broad, kinds, f;
    double below; /* the activation's slope below zero */
    const int64_t *kind OF(n);
    const real *table OF(kinds * f), *W_1 OF(hidden * (f + h)), *W_2 OF(h * hidden);
} Layers;

typedef struct {
    const int64_t *lists OF(entries), *offsets OF(n + 1); /* lists of rows of states */
    const real *states OF(m * h), *b_1 OF(hidden), *b_2 OF(h);
    double eps; /* of the norm */
    const real *gain OF(h), *shift OF(h);
    real *mapped OF(kinds * broad);      /* the table's rows times W_1 */
    real *x OF(n * h);                   /* the sums over the lists */
    real *result OF(n * broad);          /* act(W_1 [table[kind] ; x] + b_1), zeros beyond hidden */
    real *unit OF(n * h), *factor OF(n); /* of the norm */
    real *out OF(n * h);                 /* the norm of W_2 result + b_2 */
} FeedForward;

typedef struct {
    ptrdiff_t count; /* number of transposed lists, and of states */
    const int64_t *lists OF(entries), *offsets OF(count + 1);
    const real *gain OF(h), *x OF(n * h), *result OF(n * broad), *unit OF(n * h), *factor OF(n);
    const real *grad OF(n * h);                                 /* of out */
    real *by_states OF(count * h), *by_table OF(kinds * hidden); /* by_table: of its rows times W_1 */
    real *by_W_1 OF(hidden * (f + h)), *by_b_1 OF(hidden), *by_W_2 OF(h * hidden);
    real *by_rows OF(3 * h); /* of gain, shift and b_2 */
} FeedForwardBackward;
