#include "product.h"

#ifdef __AVX__
#include <immintrin.h>
#endif

/* Vectors over the parameters of a model: lists of `count` tensors of size[k] numbers (optim/vector.py). */

enum { PART = 1 << 13, BLOCK = 1 << 9 };

static ptrdiff_t parts(ptrdiff_t size) { return (size + PART - 1) / PART; }

/* mean = (1 - weight) mean + weight x, exact at both ends */
static APART void lerp(ptrdiff_t n, real *restrict mean, const real *restrict x, double weight)
{
    real part = (real)weight, rest = (real)(1 - weight);
    if (weight < 0.5)
        for (ptrdiff_t j = 0; j < n; j++) mean[j] += part * (x[j] - mean[j]);
    else
        for (ptrdiff_t j = 0; j < n; j++) mean[j] = x[j] - rest * (x[j] - mean[j]);
}

/* sums [count]: of the squares of x, after x moved by `weight` [1] towards `to` if there is one. A sum is of its parts' sums,
   in double precision and in order, so that it does not depend on the number of threads. */
int squares(ptrdiff_t threads, ptrdiff_t count, const ptrdiff_t *size, real *const *x, const real *const *to,
            const double *weight, double *sums)
{
    ptrdiff_t all = 0;
    for (ptrdiff_t k = 0; k < count; k++) all += parts(size[k]);
    double *sum = malloc((all + 1) * sizeof(double));
    if (!sum) return 1;
#pragma omp parallel num_threads(threads)
    for (ptrdiff_t k = 0, at = 0; k < count; k++)
        for (ptrdiff_t from = 0; from < size[k]; from += PART, at++)
            if (at % threads == THREAD) {
                ptrdiff_t n = smaller(PART, size[k] - from);
                sum[at] = 0;
                for (ptrdiff_t j = from; j < from + n; j += BLOCK) {
                    ptrdiff_t some = smaller(BLOCK, from + n - j);
                    if (to) lerp(some, x[k] + j, to[k] + j, *weight);
                    sum[at] += dot(some, x[k] + j, x[k] + j);
                }
            }
    for (ptrdiff_t k = 0, at = 0; k < count; k++) {
        sums[k] = 0;
        for (ptrdiff_t end = at + parts(size[k]); at < end; at++) sums[k] += sum[at];
    }
    free(sum);
    return 0;
}

/* Write past the caches, in which no model of a size that matters would stay: memory need not be read to be written. */
static inline void stream(real *to, vec value)
{
#if defined __AVX512F__
    _mm512_stream_si512((__m512i *)to, (__m512i)value);
#elif defined __AVX__
    _mm256_stream_si256((__m256i *)to, (__m256i)value);
#else
    *(vec *)to = value;
#endif
}

static APART void move(ptrdiff_t n, const real *restrict x, real factor, const real *restrict y, real *restrict out)
{
    ptrdiff_t j = 0;
    if ((size_t)out % VECTOR == 0)
        for (; j + LANES <= n; j += LANES)
            stream(out + j, *(const vec *)(x + j) + factor * *(const vec *)(y + j));
    for (; j < n; j++) out[j] = x[j] + factor * y[j];
}

/* out = x + factor [1] direction */
int moved(ptrdiff_t threads, ptrdiff_t count, const ptrdiff_t *size, const real *const *x,
          const real *const *direction, real *const *out, const double *factor)
{
#pragma omp parallel num_threads(threads)
    {
        for (ptrdiff_t k = 0, at = 0; k < count; k++)
            for (ptrdiff_t from = 0; from < size[k]; from += PART, at++)
                if (at % threads == THREAD)
                    move(smaller(PART, size[k] - from), x[k] + from, (real)*factor, direction[k] + from, out[k] + from);
#ifdef __AVX__
        _mm_sfence();
#endif
    }
    return 0;
}
