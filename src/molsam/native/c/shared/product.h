/* What the C files share: the number type, a vector of them, and products of few rows with one matrix.

   Compiled for float and (-DDOUBLE) double. Arrays are contiguous and row-major; shapes stand in brackets. Functions
   that kernels.py calls take the number of threads first and return 0, or 1 if there is no memory; with more than ten
   parameters they take structs. */

#pragma once

/* For prototypes.py, which reads the prototypes; nothing to the compiler. How many numbers an array has: a name that
   is no parameter stands for what the first array with it has. Of addresses of arrays: which array says how many
   numbers each has, or 1. And: the array may be missing. */
#define OF(size)
#define EACH(sizes)
#define OR_NULL

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifdef _OPENMP
#include <omp.h>
#define THREAD omp_get_thread_num()
#define THREADS omp_get_num_threads() /* perhaps fewer than were asked for */
#else
#define THREAD 0
#define THREADS 1
#endif

#ifdef DOUBLE
typedef double real;
static inline real exponential(real x) { return exp(x); }
#else
typedef float real;
/* e^x within two units in the last place, in a form that compilers vectorize: x = k ln 2 + r, ln 2 in two parts. 0
   where the result would be denormal, which is slow to compute with. */
static inline real exponential(real x)
{
    real bounded = x < -87.0f ? -87.0f : x > 88.0f ? 88.0f : x;
    real k = rintf(bounded * 1.44269504f), r = bounded - k * 0.693359375f + k * 2.12194440e-4f;
    real p = 1.0f / 5040;
    p = p * r + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    union {
        int32_t bits;
        float value;
    } power = {((int32_t)k + 127) << 23};
    real result = (p * r * r + r + 1) * power.value;
    return x < -87.0f ? 0 : result;
}
#endif

static inline real sigmoid(real x) { return 1 / (1 + exponential(-x)); }

/* Compilers forget in an inlined function that its arguments do not overlap, and then do not vectorize it. */
#define APART __attribute__((noinline, unused))

#ifdef __AVX512F__
#define VECTOR 64
#define ROWS 8
#else
#define VECTOR 32
#define ROWS 4
#endif
#define WIDE 3 /* vectors at a time: ROWS * WIDE sums stay in registers */
#define LANES ((ptrdiff_t)(VECTOR / sizeof(real)))
#define PANEL (WIDE * LANES)
typedef real vec __attribute__((vector_size(VECTOR), aligned(sizeof(real)), may_alias));
#ifdef DOUBLE
typedef int64_t lanes __attribute__((vector_size(VECTOR))); /* numbers of lanes */
#else
typedef int32_t lanes __attribute__((vector_size(VECTOR)));
#endif

static inline ptrdiff_t padded(ptrdiff_t columns) { return (columns + LANES - 1) / LANES * LANES; }
static inline ptrdiff_t smaller(ptrdiff_t a, ptrdiff_t b) { return a < b ? a : b; }

/* `reals` numbers and room behind them, where vectors may begin; to be freed */
static inline void *memory(ptrdiff_t reals)
{ return aligned_alloc(VECTOR, (reals * sizeof(real) + 2 * VECTOR - 1) / VECTOR * VECTOR); }

/* m[i * by_row + j * by_column] of a matrix [rows, columns] -> panels of up to PANEL columns, each row by row, the
   last one filled up with zeros to whole vectors; padded(columns) * rows numbers. */
static inline void pack(real *out, const real *m, ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t by_row,
                        ptrdiff_t by_column)
{
    for (ptrdiff_t from = 0; from < padded(columns); from += PANEL) {
        ptrdiff_t width = smaller(PANEL, padded(columns) - from), there = smaller(width, columns - from);
        for (ptrdiff_t i = 0; i < rows; i++, out += width) {
            const real *row = m + i * by_row + from * by_column;
            if (by_column == 1) memcpy(out, row, there * sizeof *out);
            else
                for (ptrdiff_t j = 0; j < there; j++) out[j] = row[j * by_column];
            for (ptrdiff_t j = there; j < width; j++) out[j] = 0;
        }
    }
}

/* A product's left side: row i is a[i][0], a[i][step], ..., `inner` numbers. */
typedef struct {
    const real *const *a;
    ptrdiff_t step, inner;
} Left;

/* a[i] = the address of row i, `stride` numbers apart */
static inline void spread(ptrdiff_t rows, const real **a, const real *first, ptrdiff_t stride)
{
    for (ptrdiff_t i = 0; i < rows; i++) a[i] = first + i * stride;
}

/* out [rows, columns, rows `stride` apart] = (more ? out : 0) + left times b; whole vectors of columns are written.

   b [inner, columns], its rows b_stride apart and whole vectors long, or packed in panels if b_stride is 0. */
void product(ptrdiff_t rows, Left left, const real *b, ptrdiff_t b_stride, ptrdiff_t columns, real *out,
             ptrdiff_t stride, int more);

/* to += from */
static APART void add(ptrdiff_t n, real *restrict to, const real *restrict from)
{
    for (ptrdiff_t j = 0; j < n; j++) to[j] += from[j];
}

/* to [n] = the sum of the rows rows[at] - base, ..., rows[end - 1] - base of from [., n] */
static inline void sum_of_rows(ptrdiff_t n, const real *from, const int64_t *rows, int64_t at, int64_t end,
                               int64_t base, real *to)
{
    if (at == end) memset(to, 0, n * sizeof *to);
    for (int64_t k = at; k < end; k++)
        if (k == at) memcpy(to, from + (rows[k] - base) * n, n * sizeof *to);
        else add(n, to, from + (rows[k] - base) * n);
}

/* An activation that is linear on both sides of zero. */
static APART void bend(ptrdiff_t n, real below, real *restrict x)
{
    for (ptrdiff_t j = 0; j < n; j++) {
        real low = x[j] * below;
        x[j] = x[j] > 0 ? x[j] : low;
    }
}

static APART void bend_backward(ptrdiff_t n, real below, const real *restrict result, real *restrict by)
{
    for (ptrdiff_t j = 0; j < n; j++) {
        real low = by[j] * below;
        by[j] = result[j] > 0 ? by[j] : low;
    }
}

/* Of a maximum over rows: count += 1 where x attains it */
static APART void count_hits(ptrdiff_t n, const real *restrict x, const real *restrict most, real *restrict count)
{
    for (ptrdiff_t j = 0; j < n; j++) count[j] += x[j] == most[j] ? 1 : 0;
}

static APART real dot(ptrdiff_t n, const real *restrict x, const real *restrict y)
{
    real sum = 0;
#pragma omp simd reduction(+ : sum)
    for (ptrdiff_t j = 0; j < n; j++) sum += x[j] * y[j];
    return sum;
}

static APART real total(ptrdiff_t n, const real *restrict x)
{
    real sum = 0;
#pragma omp simd reduction(+ : sum)
    for (ptrdiff_t j = 0; j < n; j++) sum += x[j];
    return sum;
}

/* out [rows, columns], its rows `apart` apart = the sum over the threads' own [rows, stride], which lie `size`
   numbers apart; of the calling thread's share of the rows */
static APART void reduce(ptrdiff_t rows, ptrdiff_t columns, real *restrict out, ptrdiff_t apart,
                         const real *restrict own, ptrdiff_t stride, ptrdiff_t size)
{
    for (ptrdiff_t i = THREAD; i < rows; i += THREADS) {
        memcpy(out + i * apart, own + i * stride, columns * sizeof *out);
        for (ptrdiff_t k = 1; k < THREADS; k++) add(columns, out + i * apart, own + k * size + i * stride);
    }
}
