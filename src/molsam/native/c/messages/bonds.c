#include "bonds.h"

/* Sums and maxima over lists of bonds, and differences along bonds (models/message_graph.py). A row may be in several
   lists, so in a backward pass each thread has its own columns of the gradient. */

/* the first column of a thread */
static ptrdiff_t column(ptrdiff_t d, ptrdiff_t thread)
{ return smaller(d, padded((d * thread + THREADS - 1) / THREADS)); }

/* Declare this thread's columns: `wide` of the d columns, beginning with `from`. */
#define OWN_COLUMNS ptrdiff_t from = column(d, THREAD), wide = column(d, THREAD + 1) - from

static APART void begin(ptrdiff_t d, const real *restrict row, real *restrict total, real *restrict most)
{
    for (ptrdiff_t j = 0; j < d; j++) total[j] = row[j], most[j] = row[j];
}

static APART void go_on(ptrdiff_t d, const real *restrict row, real *restrict total, real *restrict most)
{
    for (ptrdiff_t j = 0; j < d; j++) total[j] += row[j], most[j] = row[j] > most[j] ? row[j] : most[j];
}

static APART void finish(ptrdiff_t d, int bounded, const real *restrict total, real *restrict most,
                         const real *restrict more, real *restrict out)
{
    for (ptrdiff_t j = 0; j < d; j++) {
        most[j] = bounded && most[j] < 0 ? 0 : most[j];
        out[j] = total[j] * most[j] + (more ? more[j] : 0);
    }
}

/* The gradient of one bond. The gradient of the maximum, by_most, goes to the first bond that attains it. */
static APART void bond(ptrdiff_t d, const real *restrict row, const real *restrict most, const real *restrict grad,
                       real *restrict by_most, real *restrict by_row)
{
    for (ptrdiff_t j = 0; j < d; j++) {
        real here = row[j] == most[j] ? by_most[j] : 0;
        by_most[j] -= here;
        by_row[j] += grad[j] * most[j] + here;
    }
}

/* For each list of rows of hidden, their sum `total`, their maximum `most` and the product of both in `out`; with
   `before`, plus that row of x. The maximum of a list of fewer than `full` rows includes 0. */
int sum_times_max(ptrdiff_t threads, const SumTimesMax *s)
{
    ptrdiff_t n = s->n, d = s->d;
    const int64_t *rows = s->rows, *offsets = s->offsets, *before = s->before;
    real *total = s->total, *most = s->most;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (ptrdiff_t p = 0; p < n; p++) {
        ptrdiff_t at = p * d;
        for (int64_t k = offsets[p]; k < offsets[p + 1]; k++)
            (k > offsets[p] ? go_on : begin)(d, s->hidden + rows[k] * d, total + at, most + at);
        if (offsets[p] == offsets[p + 1])
            memset(total + at, 0, d * sizeof *total), memset(most + at, 0, d * sizeof *most);
        finish(d, offsets[p + 1] - offsets[p] < s->full, total + at, most + at, before ? s->x + before[p] * d : NULL,
               s->out + at);
    }
    return 0;
}

/* From the gradient of out: by_hidden and, with `before`, by_x. Both must be zero. */
int sum_times_max_backward(ptrdiff_t threads, const SumTimesMaxBackward *s)
{
    ptrdiff_t n = s->n, d = s->d;
    const int64_t *rows = s->rows, *offsets = s->offsets;
    int failed = 0;
#pragma omp parallel num_threads(threads) reduction(| : failed)
    {
        OWN_COLUMNS;
        real *by_most = memory(wide);
        failed = !by_most;
        for (ptrdiff_t p = 0; p < n && !failed; p++) {
            ptrdiff_t at = p * d + from;
            for (ptrdiff_t j = 0; j < wide; j++) by_most[j] = s->grad[at + j] * s->total[at + j];
            for (int64_t k = offsets[p]; k < offsets[p + 1]; k++)
                bond(wide, s->hidden + rows[k] * d + from, s->most + at, s->grad + at, by_most,
                     s->by_hidden + rows[k] * d + from);
            if (s->before) add(wide, s->by_x + s->before[p] * d + from, s->grad + at);
        }
        free(by_most);
    }
    return failed;
}

/* out [n, d] = the sums over lists of rows of hidden [e, d] */
int sum_entering(ptrdiff_t threads, ptrdiff_t n, ptrdiff_t d, const int64_t *rows OF(entries),
                 const int64_t *offsets OF(n + 1), const real *hidden OF(e * d), real *out OF(n * d))
{
#pragma omp parallel for num_threads(threads) schedule(static)
    for (ptrdiff_t p = 0; p < n; p++) {
        memset(out + p * d, 0, d * sizeof *out);
        for (int64_t k = offsets[p]; k < offsets[p + 1]; k++) add(d, out + p * d, hidden + rows[k] * d);
    }
    return 0;
}

/* From grad [n, d], the gradient of out: by_hidden [e, d], which must be zero. */
int sum_entering_backward(ptrdiff_t threads, ptrdiff_t n, ptrdiff_t d, const int64_t *rows OF(entries),
                          const int64_t *offsets OF(n + 1), const real *grad OF(n * d), real *by_hidden OF(e * d))
{
#pragma omp parallel num_threads(threads)
    {
        OWN_COLUMNS;
        for (ptrdiff_t p = 0; p < n; p++)
            for (int64_t k = offsets[p]; k < offsets[p + 1]; k++)
                add(wide, by_hidden + rows[k] * d + from, grad + p * d + from);
    }
    return 0;
}

static APART void difference(ptrdiff_t d, const real *restrict a, const real *restrict b, real *restrict out)
{
    for (ptrdiff_t j = 0; j < d; j++) out[j] = a[j] - b[j];
}

static APART void both(ptrdiff_t d, const real *restrict x, real *restrict more, real *restrict less)
{
    for (ptrdiff_t j = 0; j < d; j++) more[j] += x[j], less[j] -= x[j];
}

/* out [e, d] = atoms[src] - bonds[rev] */
int turn(ptrdiff_t threads, ptrdiff_t e, ptrdiff_t d, const int64_t *src OF(e), const int64_t *rev OF(e),
         const real *atoms OF(n * d), const real *bonds OF(before * d), real *out OF(e * d))
{
#pragma omp parallel for num_threads(threads) schedule(static)
    for (ptrdiff_t k = 0; k < e; k++) difference(d, atoms + src[k] * d, bonds + rev[k] * d, out + k * d);
    return 0;
}

/* From grad [e, d], the gradient of out: by_atoms and by_bonds, which must be zero. */
int turn_backward(ptrdiff_t threads, ptrdiff_t e, ptrdiff_t d, const int64_t *src OF(e), const int64_t *rev OF(e),
                  const real *grad OF(e * d), real *by_atoms OF(n * d), real *by_bonds OF(before * d))
{
#pragma omp parallel num_threads(threads)
    {
        OWN_COLUMNS;
        for (ptrdiff_t k = 0; k < e; k++)
            both(wide, grad + k * d + from, by_atoms + src[k] * d + from, by_bonds + rev[k] * d + from);
    }
    return 0;
}

/* From grad [n, d], the gradient of x[rows]: by_x, which must be zero. */
int add_rows(ptrdiff_t threads, ptrdiff_t n, ptrdiff_t d, const int64_t *rows OF(n), const real *grad OF(n * d),
             real *by_x OF(m * d))
{
#pragma omp parallel num_threads(threads)
    {
        OWN_COLUMNS;
        for (ptrdiff_t k = 0; k < n; k++) add(wide, by_x + rows[k] * d + from, grad + k * d + from);
    }
    return 0;
}
