#include "product.h"

#ifdef __AVX__
#include <immintrin.h>
#endif

/* Vectors over the parameters of a model: lists of `count` tensors of size[k] numbers (optim/vector.py). */

#ifdef DOUBLE
#define square_root sqrt
#else
#define square_root sqrtf
#endif

enum { PART = 1 << 12, BLOCK = 1 << 9 };

static ptrdiff_t parts(ptrdiff_t size) { return (size + PART - 1) / PART; }

/* What follows runs for each part of this thread: number `at` of all, tensor k from number `from` on, n numbers. */
#define EACH_PART                                                                                                      \
    for (ptrdiff_t k = 0, at = 0; k < count; k++)                                                                      \
        for (ptrdiff_t from = 0, n; n = smaller(PART, size[k] - from), from < size[k]; from += PART, at++)             \
            if (at % THREADS == THREAD)

/* A mean that no gradient reaches any more shrinks until it is denormal, and then stays so: slow to compute with, for
   the rest of the training. Between these two calls such numbers are 0. */
static inline unsigned flush_denormals(void)
{
    unsigned before = 0;
#ifdef __AVX__
    before = _mm_getcsr();
    _mm_setcsr(before | _MM_FLUSH_ZERO_ON | 0x40); /* what is computed, and 0x40: what is read */
#endif
    return before;
}

static inline void restore_denormals(unsigned before)
{
#ifdef __AVX__
    _mm_setcsr(before);
#endif
    (void)before;
}

/* x = a x + b y */
static APART void blend(ptrdiff_t n, real a, real *restrict x, real b, const real *restrict y)
{
    for (ptrdiff_t j = 0; j < n; j++) x[j] = a * x[j] + b * y[j];
}

/* adds the sum of x, and that of its squares */
static APART void measure(ptrdiff_t n, const real *restrict x, double *sum, double *squared)
{
    real plain = 0, square = 0;
#pragma omp simd reduction(+ : plain, square)
    for (ptrdiff_t j = 0; j < n; j++) {
        plain += x[j];
        square += x[j] * x[j];
    }
    *sum += plain;
    *squared += square;
}

static APART double cubed(ptrdiff_t n, const real *restrict x, const real *restrict y)
{
    real sum = 0;
#pragma omp simd reduction(+ : sum)
    for (ptrdiff_t j = 0; j < n; j++) {
        real move = x[j] * x[j] * y[j];
        sum += move * move;
    }
    return sum;
}

/* sums [count]: the sum of each tensor's parts, in double precision and in order: for any number of threads the same */
static void collect(ptrdiff_t count, const int64_t *size, const double *part, double *sums)
{
    for (ptrdiff_t k = 0, at = 0; k < count; k++) {
        sums[k] = 0;
        for (ptrdiff_t end = at + parts(size[k]); at < end; at++) sums[k] += part[at];
    }
}

static ptrdiff_t all_parts(ptrdiff_t count, const int64_t *size)
{
    ptrdiff_t all = 0;
    for (ptrdiff_t k = 0; k < count; k++) all += parts(size[k]);
    return all;
}

/* sums [2, count]: of the squares of x, or of by^2 x if there is `by`; then, if there is no `by`, of x */
int squares(ptrdiff_t threads, ptrdiff_t count, const int64_t *size OF(count),
            const real *const *x OF(count) EACH(size), const real *const *by OF(count) EACH(size) OR_NULL,
            double *sums OF(2 * count))
{
    ptrdiff_t all = all_parts(count, size);
    double *sum = malloc((2 * all + 1) * sizeof(double));
    if (!sum) return 1;
#pragma omp parallel num_threads(threads)
    EACH_PART
    {
        sum[at] = sum[all + at] = 0;
        for (ptrdiff_t j = from; j < from + n; j += BLOCK) {
            ptrdiff_t some = smaller(BLOCK, from + n - j);
            if (by) sum[at] += cubed(some, by[k] + j, x[k] + j);
            else measure(some, x[k] + j, sum + all + at, sum + at);
        }
    }
    collect(count, size, sum, sums);
    collect(count, size, sum + all, sums + count);
    free(sum);
    return 0;
}

/* x = factors[0] x + factors[1 + k] y, and the sums [count] of the squares of that */
int combined(ptrdiff_t threads, ptrdiff_t count, const int64_t *size OF(count), real *const *x OF(count) EACH(size),
             const real *const *y OF(count) EACH(size), const double *factors OF(1 + count), double *sums OF(count))
{
    double *sum = malloc((all_parts(count, size) + 1) * sizeof(double));
    if (!sum) return 1;
#pragma omp parallel num_threads(threads)
    {
        unsigned before = flush_denormals();
        EACH_PART
        {
            double plain = 0;
            sum[at] = 0;
            for (ptrdiff_t j = from; j < from + n; j += BLOCK) {
                ptrdiff_t some = smaller(BLOCK, from + n - j);
                blend(some, (real)factors[0], x[k] + j, (real)factors[1 + k], y[k] + j);
                measure(some, x[k] + j, &plain, sum + at);
            }
        }
        restore_denormals(before);
    }
    collect(count, size, sum, sums);
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

static APART void move(ptrdiff_t n, const real *x, real factor, const real *y, real *out, int adaptive)
{
    ptrdiff_t j = 0;
    if ((size_t)out % VECTOR == 0)
        for (; j + LANES <= n; j += LANES) {
            vec start = *(const vec *)(x + j), way = factor * *(const vec *)(y + j);
            if (adaptive) way *= start * start;
            stream(out + j, start + way);
        }
    for (; j < n; j++) out[j] = x[j] + (adaptive ? x[j] * x[j] : 1) * (factor * y[j]);
}

/* out = x + factor [count] direction, or, if adaptive, x + factor x^2 direction */
int moved(ptrdiff_t threads, ptrdiff_t count, ptrdiff_t adaptive, const int64_t *size OF(count),
          const real *const *x OF(count) EACH(size), const real *const *direction OF(count) EACH(size),
          real *const *out OF(count) EACH(size), const double *factor OF(count))
{
#pragma omp parallel num_threads(threads)
    {
        EACH_PART move(n, x[k] + from, (real)factor[k], direction[k] + from, out[k] + from, adaptive);
#ifdef __AVX__
        _mm_sfence();
#endif
    }
    return 0;
}

/* of one tensor: the constants of its step */
typedef struct {
    real beta1, rest1, beta2, rest2, rate, eps, decay, kept;
} Step;

static APART void adam_part(ptrdiff_t n, Step s, real *restrict x, const real *restrict gradient, real *restrict mean,
                            real *restrict square)
{
    for (ptrdiff_t j = 0; j < n; j++) {
        real g = gradient[j] + s.decay * x[j];
        mean[j] = s.beta1 * mean[j] + s.rest1 * g;
        square[j] = s.beta2 * square[j] + s.rest2 * g * g;
        x[j] = s.kept * x[j] - s.rate * mean[j] / (square_root(square[j]) + s.eps);
    }
}

/* A step of Adam, or of AdamW if `decoupled`; step [count] are how many each tensor has made, settings [5] the
   learning rate, beta1, beta2, eps and the weight decay. */
int adam(ptrdiff_t threads, ptrdiff_t count, ptrdiff_t decoupled, const double *settings OF(5),
         const int64_t *size OF(count), real *const *x OF(count) EACH(size),
         const real *const *gradient OF(count) EACH(size), real *const *mean OF(count) EACH(size),
         real *const *square OF(count) EACH(size), float *const *step OF(count) EACH(1))
{
    double lr = settings[0], beta1 = settings[1], beta2 = settings[2], decay = settings[4];
    for (ptrdiff_t k = 0; k < count; k++) *step[k] += 1;
#pragma omp parallel num_threads(threads)
    {
        unsigned before = flush_denormals();
        EACH_PART
        {
            /* lr (mean / bias) / (sqrt(square / root^2) + eps), with one division a number */
            double bias = 1 - pow(beta1, *step[k]), root = sqrt(1 - pow(beta2, *step[k]));
            Step s = {beta1,
                      1 - beta1,
                      beta2,
                      1 - beta2,
                      lr / bias * root,
                      settings[3] * root,
                      decoupled ? 0 : decay,
                      decoupled ? 1 - lr * decay : 1};
            adam_part(n, s, x[k] + from, gradient[k] + from, mean[k] + from, square[k] + from);
        }
        restore_denormals(before);
    }
    return 0;
}
