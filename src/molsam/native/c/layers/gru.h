#pragma once

#include "product.h"

/* The arguments of the recurrence of a bidirectional GRU (gru.py), for N atoms; a line is an atom in one direction. */

typedef struct {
    ptrdiff_t molecules, d;
    const int64_t *offsets OF(molecules + 1); /* each molecule's first atom */
    const real *U OF(3 * d * d), *U_back OF(3 * d * d), *bias OF(2 * d), *h0 OF(molecules * d);
    real *gates OF(N * 2 * 3 * d); /* the arguments of r, z, n without U h; become r, z, n */
    real *hidden OF(N * 2 * d);    /* U h + bias of n */
    real *states OF(N * 2 * d);    /* the result */
} Gru;

typedef struct {
    ptrdiff_t molecules, d;
    const int64_t *offsets OF(molecules + 1);
    const real *U OF(3 * d * d), *U_back OF(3 * d * d), *h0 OF(molecules * d);
    const real *gates OF(N * 2 * 3 * d), *hidden OF(N * 2 * d), *states OF(N * 2 * d); /* as gru() wrote them */
    const real *grad OF(N * 2 * d);
    real *slopes OF(N * 2 * 3 * d);    /* the gradients of the arguments of r, z, n */
    real *by_hidden OF(N * 2 * d);     /* of U h + bias of n */
    real *previous OF(N * 2 * d);      /* the state h before each step */
    real *carry OF(molecules * 2 * d); /* must be zero; the gradient of h0 for each direction */
} GruBackward;
