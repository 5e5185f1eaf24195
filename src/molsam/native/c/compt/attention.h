#pragma once

#include "product.h"

/* The arguments of CoMPT's attention (bond_attention.py), for N atoms; the heads' width together is whole vectors. */

typedef struct {
    ptrdiff_t molecules, heads, d, types;     /* d: width of a head */
    ptrdiff_t softmax;                        /* whether K is a softmax over a row, else exp */
    const int64_t *offsets OF(molecules + 1); /* each molecule's first atom */
    const int64_t *bonds OF(molecules);       /* each molecule's number of bonds */
    const int64_t *src OF(E), *dst OF(E), *type OF(E);
    const int16_t *distance OF(pairs); /* of all pairs of each molecule, -1 between fragments */
    const real *decay OF(1);
} Batch;

typedef struct {
    const real *scores OF(N * heads * types), *log_counts OF(N * types), *weight OF(N * types);
    const real *values OF(N * heads * d);
    real *mass OF(N * heads * types), *share OF(N * heads * types); /* softmax over types, and s */
    real *mixed OF(N * heads * d), *out OF(N * heads * d);          /* K v, and o */
} Attention;

typedef struct {
    const real *weight OF(N * types), *values OF(N * heads * d), *mass OF(N * heads * types),
        *share OF(N * heads * types);
    const real *mixed OF(N * heads * d), *grad OF(N * heads * d); /* grad: of out */
    real *by_scores OF(N * heads * types);                        /* must be zero */
    real *by_values OF(N * heads * d), *by_decay OF(molecules);
} AttentionBackward;
