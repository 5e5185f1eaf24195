#pragma once

#include "product.h"

/* What the recurrence of a bidirectional GRU takes (gru.py), for N atoms; a line is an atom in one direction. */

typedef struct {
    ptrdiff_t molecules, d;
    const int64_t *offsets OF(molecules + 1); /* each molecule's first atom */
    const real *U OF(3 * d * d), *U_back OF(3 * d * d), *bias OF(2 * d), *h0 OF(molecules * d);
    real *gates OF(N * 2 * 3 * d); /* the arguments of r, z, n without U h; becomes r, z, n */
    real *hidden OF(N * 2 * d);    /* becomes U h + bias of n */
    real *states OF(N * 2 * d);    /* the result */
} Gru;

typedef struct {
    ptrdiff_t molecules, d;
    const int64_t *offsets OF(molecules + 1);
    const real *U OF(3 * d * d), *U_back OF(3 * d * d), *h0 OF(molecules * d);
    const real *gates OF(N * 2 * 3 * d), *hidden OF(N * 2 * d), *states OF(N * 2 * d); /* what gru() left */
    const real *grad OF(N * 2 * d);
    real *slopes OF(N * 2 * 3 * d);    /* the gradients of the arguments of r, z, n */
    real *by_hidden OF(N * 2 * d);     /* of U h + bias of n */
    real *previous OF(N * 2 * d);      /* the h that each step started from */
    real *carry OF(molecules * 2 * d); /* zeros before; the gradient of h0 by direction */
} GruBackward;
