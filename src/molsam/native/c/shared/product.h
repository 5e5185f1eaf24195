/* Common to the C files: the number type, vectors of it, and products of a few rows with one matrix.

   The files are compiled for float and (-DDOUBLE) for double. Arrays are contiguous and row-major; shapes are in
   brackets; the gradient of x is called by_x. Functions that kernels.py calls take the number of threads first and
   return 0, or 1 if memory cannot be allocated. Functions with more than ten parameters take structs. */

#pragma once

/* For prototypes.py, which reads the prototypes; the compiler ignores them. OF: the length of an array; a name that is
   not a parameter takes its value from the first array that uses it. EACH: for a list of arrays, the array with their
   lengths, or 1. OR_NULL: the array may be missing. */
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
#define THREADS omp_get_num_threads() /* may be fewer than requested */
#else
#define THREAD 0
#define THREADS 1
#endif

#ifdef DOUBLE
typedef double real;
static inline real exponential(real x) { return exp(x); }
#else
typedef float real;
/* e^x within two units in the last place, in a form that compilers vectorize: x = k ln 2 + r, with ln 2 in two parts.
   The result is 0 where it would be denormal, because denormal numbers are slow. */
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

/* Never inlined: in an inlined function compilers lose `restrict` and then do not vectorize. */
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
typedef int64_t lanes __attribute__((vector_size(VECTOR))); /* lane indices */
#else
typedef int32_t lanes __attribute__((vector_size(VECTOR)));
#endif

static inline ptrdiff_t padded(ptrdiff_t columns) { return (columns + LANES - 1) / LANES * LANES; }
static inline ptrdiff_t smaller(ptrdiff_t a, ptrdiff_t b) { return a < b ? a : b; }

/* Aligned memory for `reals` numbers and one more vector; the caller frees it. */
static inline void *memory(ptrdiff_t reals)
{ return aligned_alloc(VECTOR, (reals * sizeof(real) + 2 * VECTOR - 1) / VECTOR * VECTOR); }

/* Copy a matrix [rows, columns] with entries m[i * by_row + j * by_column] to panels of up to PANEL columns. Each panel
   is row by row; the last one is filled up with zeros to whole vectors. They have padded(columns) * rows numbers. */
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

/* The left factor of a product: row i has the `inner` numbers a[i][0], a[i][step], ... */
typedef struct {
    const real *const *a;
    ptrdiff_t step, inner;
} Left;

/* a[i] = the address of row i, `stride` numbers apart */
static inline void spread(ptrdiff_t rows, const real **a, const real *first, ptrdiff_t stride)
{
    for (ptrdiff_t i = 0; i < rows; i++) a[i] = first + i * stride;
}

/* out = (more ? out : 0) + left times b; out [rows, columns] has rows `stride` apart, and whole vectors are written.

   b [inner, columns] has rows b_stride apart and whole vectors long, or is packed in panels if b_stride is 0. */
void product(ptrdiff_t rows, Left left, const real *b, ptrdiff_t b_stride, ptrdiff_t columns, real *out,
             ptrdiff_t stride, int more);

/* to += from */
static APART void add(ptrdiff_t n, real *restrict to, const real *restrict from)
{
    for (ptrdiff_t j = 0; j < n; j++) to[j] += from[j];
}

/* to [n] = the sum of from[rows[k] - base] for at <= k < end; from: [., n] */
static inline void sum_of_rows(ptrdiff_t n, const real *from, const int64_t *rows, int64_t at, int64_t end,
                               int64_t base, real *to)
{
    if (at == end) memset(to, 0, n * sizeof *to);
    for (int64_t k = at; k < end; k++)
        if (k == at) memcpy(to, from + (rows[k] - base) * n, n * sizeof *to);
        else add(n, to, from + (rows[k] - base) * n);
}

/* An activation that is linear on both sides of zero, in place. */
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

/* count += 1 where x attains the maximum `most` over rows */
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

/* The calling thread's share of the rows of out [rows, columns], with rows `apart` apart: the sum over all threads of
   their own [rows, stride], which are `size` numbers apart. */
static APART void reduce(ptrdiff_t rows, ptrdiff_t columns, real *restrict out, ptrdiff_t apart,
                         const real *restrict own, ptrdiff_t stride, ptrdiff_t size)
{
    for (ptrdiff_t i = THREAD; i < rows; i += THREADS) {
        memcpy(out + i * apart, own + i * stride, columns * sizeof *out);
        for (ptrdiff_t k = 1; k < THREADS; k++) add(columns, out + i * apart, own + k * size + i * stride);
    }
}
