#include "product.h"

/* Sums and maxima over the bonds that enter an atom (bond_slots.py): the k-th bond of atom p is row first[k] + p, for
   the first active[k] atoms. */

static APART void start(ptrdiff_t d, const real *restrict row, real *restrict total, real *restrict most)
{
    for (ptrdiff_t j = 0; j < d; j++) total[j] = row[j], most[j] = row[j];
}

static APART void go_on(ptrdiff_t d, const real *restrict row, real *restrict total, real *restrict most)
{
    for (ptrdiff_t j = 0; j < d; j++) total[j] += row[j], most[j] = row[j] > most[j] ? row[j] : most[j];
}

static APART void finish(ptrdiff_t d, int padded, const real *restrict total, real *restrict most, real *restrict out)
{
    for (ptrdiff_t j = 0; j < d; j++) {
        most[j] = padded && most[j] < 0 ? 0 : most[j];
        out[j] = total[j] * most[j];
    }
}

/* The gradient of one bond; by_most, that of the maximum, is given to the first bond that has it. */
static APART void bond(ptrdiff_t d, const real *restrict row, const real *restrict most, const real *restrict grad,
                       real *restrict by_most, real *restrict by_row)
{
    for (ptrdiff_t j = 0; j < d; j++) {
        real here = row[j] == most[j] ? by_most[j] : 0;
        by_most[j] -= here;
        by_row[j] = grad[j] * most[j] + here;
    }
}

/* hidden [E, d] -> total and most [n, d], and out [n, d], their product; padded: see sum_times_max. */
int sum_times_max(ptrdiff_t threads, ptrdiff_t n, ptrdiff_t d, ptrdiff_t slots, const int64_t *first,
                  const int64_t *active, ptrdiff_t padded, const real *hidden, real *total, real *most, real *out)
{
#pragma omp parallel for num_threads(threads) schedule(static)
    for (ptrdiff_t p = 0; p < n; p++) {
        ptrdiff_t k = 0, at = p * d;
        for (; k < slots && p < active[k]; k++) (k ? go_on : start)(d, hidden + (first[k] + p) * d, total + at, most + at);
        if (!k) memset(total + at, 0, d * sizeof *total), memset(most + at, 0, d * sizeof *most);
        finish(d, padded && k < slots, total + at, most + at, out + at);
    }
    return 0;
}

/* grad [n, d] of out -> by_hidden [E, d] */
int sum_times_max_backward(ptrdiff_t threads, ptrdiff_t n, ptrdiff_t d, ptrdiff_t slots, const int64_t *first,
                           const int64_t *active, const real *hidden, const real *total, const real *most,
                           const real *grad, real *by_hidden)
{
    int failed = 0;
#pragma omp parallel num_threads(threads) reduction(| : failed)
    {
        real *by_most = memory(d);
        failed = !by_most;
#pragma omp for schedule(static)
        for (ptrdiff_t p = 0; p < n; p++) {
            for (ptrdiff_t j = 0; j < d && !failed; j++) by_most[j] = grad[p * d + j] * total[p * d + j];
            for (ptrdiff_t k = 0; k < slots && p < active[k] && !failed; k++) {
                ptrdiff_t row = (first[k] + p) * d;
                bond(d, hidden + row, most + p * d, grad + p * d, by_most, by_hidden + row);
            }
        }
        free(by_most);
    }
    return failed;
}

static APART void difference(ptrdiff_t d, const real *restrict a, const real *restrict b, real *restrict out)
{
    for (ptrdiff_t j = 0; j < d; j++) out[j] = a[j] - b[j];
}

static APART void negative(ptrdiff_t d, const real *restrict x, real *restrict out, real *restrict total)
{
    for (ptrdiff_t j = 0; j < d; j++) out[j] = -x[j], total[j] += x[j];
}

/* out [E, d] = atoms[src] - bonds[rev] */
int turn(ptrdiff_t threads, ptrdiff_t rows, ptrdiff_t d, const int64_t *src, const int64_t *rev, const real *atoms,
         const real *bonds, real *out)
{
#pragma omp parallel for num_threads(threads) schedule(static)
    for (ptrdiff_t e = 0; e < rows; e++) difference(d, atoms + src[e] * d, bonds + rev[e] * d, out + e * d);
    return 0;
}

/* grad [E, d] of out -> by_atoms [n, d], zeros before, and by_bonds [E, d] */
int turn_backward(ptrdiff_t threads, ptrdiff_t n, ptrdiff_t d, ptrdiff_t slots, const int64_t *first,
                  const int64_t *active, const int64_t *rev, const real *grad, real *by_atoms, real *by_bonds)
{
#pragma omp parallel for num_threads(threads) schedule(static)
    for (ptrdiff_t p = 0; p < n; p++)
        for (ptrdiff_t k = 0; k < slots && p < active[k]; k++)
            negative(d, grad + rev[first[k] + p] * d, by_bonds + (first[k] + p) * d, by_atoms + p * d);
    return 0;
}
