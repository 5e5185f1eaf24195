#include "product.h"

#ifdef __AVX__
#include <immintrin.h>
#endif

/* Operations on vectors over a model's parameters: lists of `count` tensors of size[k] numbers (optim/vector.py). */

#ifdef DOUBLE
#define square_root sqrt
#else
#define square_root sqrtf
#endif

enum { PART = 1 << 12, BLOCK = 1 << 9 };

static ptrdiff_t parts(ptrdiff_t size) { return (size + PART - 1) / PART; }

/* Run the statement for each part of this thread. Part `at` has n numbers of tensor k, from number `from` on. */
#define EACH_PART                                                                                                      \
    for (ptrdiff_t k = 0, at = 0; k < count; k++)                                                                      \
        for (ptrdiff_t from = 0, n; n = smaller(PART, size[k] - from), from < size[k]; from += PART, at++)             \
            if (at % THREADS == THREAD)

/* A moment whose gradient has become 0 shrinks until it is denormal and then stays so, which would slow down the rest
   of the training. Between these two calls denormal numbers count as 0. */
static inline unsigned flush_denormals(void)
{
    unsigned before = 0;
#ifdef __AVX__
    before = _mm_getcsr();
    _mm_setcsr(before | _MM_FLUSH_ZERO_ON | 0x40); /* results, and (0x40) operands */
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

/* These two add the sums of x^2, of x and of x y to sums [3]. */
static APART void measure(ptrdiff_t n, const real *restrict x, double *sums)
{
    real plain = 0, square = 0;
#pragma omp simd reduction(+ : plain, square)
    for (ptrdiff_t j = 0; j < n; j++) {
        plain += x[j];
        square += x[j] * x[j];
    }
    sums[0] += square;
    sums[1] += plain;
}

static APART void measure_with(ptrdiff_t n, const real *restrict x, const real *restrict y, double *sums)
{
    real plain = 0, square = 0, product = 0;
#pragma omp simd reduction(+ : plain, square, product)
    for (ptrdiff_t j = 0; j < n; j++) {
        plain += x[j];
        square += x[j] * x[j];
        product += x[j] * y[j];
    }
    sums[0] += square;
    sums[1] += plain;
    sums[2] += product;
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

static ptrdiff_t all_parts(ptrdiff_t count, const int64_t *size)
{
    ptrdiff_t all = 0;
    for (ptrdiff_t k = 0; k < count; k++) all += parts(size[k]);
    return all;
}

/* sums [3, count]: of the squares of x, or of by^2 x with `by`; then, without `by`, of x; then of x y. The sums of the
   parts are added in double precision and in order, so they do not depend on the number of threads. */
int squares(ptrdiff_t threads, ptrdiff_t count, const int64_t *size OF(count),
            const real *const *x OF(count) EACH(size), const real *const *by OF(count) EACH(size) OR_NULL,
            const real *const *y OF(count) EACH(size) OR_NULL, double *sums OF(3 * count))
{
    ptrdiff_t all = all_parts(count, size);
    double(*part)[3] = calloc(all + 1, sizeof(*part));
    if (!part) return 1;
#pragma omp parallel num_threads(threads)
    EACH_PART
    for (ptrdiff_t j = from; j < from + n; j += BLOCK) {
        ptrdiff_t some = smaller(BLOCK, from + n - j);
        if (by) part[at][0] += cubed(some, by[k] + j, x[k] + j);
        else if (y) measure_with(some, x[k] + j, y[k] + j, part[at]);
        else measure(some, x[k] + j, part[at]);
    }
    for (ptrdiff_t k = 0, at = 0; k < count; k++)
        for (int which = 0; which < 3; which++) {
            ptrdiff_t end = at + parts(size[k]);
            double sum = 0;
            for (ptrdiff_t i = at; i < end; i++) sum += part[i][which];
            sums[which * count + k] = sum;
            if (which == 2) at = end;
        }
    free(part);
    return 0;
}

/* Write past the caches, so that the memory is not read first; a model large enough to matter does not fit in them. */
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

/* out = x + factor direction, or, if adaptive, x + factor x^2 direction; factor: [count], one for each tensor */
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

/* the constants of the step of one tensor */
typedef struct {
    real beta1, rest1, beta2, rest2, rate, eps, decay, kept;
    real push, a, b, ahead;
} Step;

static inline real stepped(Step s, real x, real gradient, real *mean, real *square)
{
    real g = gradient + s.decay * x;
    *mean = s.beta1 * *mean + s.rest1 * g;
    *square = s.beta2 * *square + s.rest2 * g * g;
    return s.kept * x - s.rate * *mean / (square_root(*square) + s.eps);
}

static APART void adam_part(ptrdiff_t n, Step s, real *restrict x, const real *restrict gradient, real *restrict mean,
                            real *restrict square)
{
    for (ptrdiff_t j = 0; j < n; j++) x[j] = stepped(s, x[j], gradient[j], mean + j, square + j);
}

static APART void pushed_part(ptrdiff_t n, Step s, real *restrict x, const real *restrict gradient, real *restrict mean,
                              real *restrict square, const real *restrict other)
{
    for (ptrdiff_t j = 0; j < n; j++) x[j] = stepped(s, x[j], gradient[j] + s.push * other[j], mean + j, square + j);
}

static APART void ahead_block(ptrdiff_t n, Step s, real *restrict x, const real *restrict gradient, real *restrict mean,
                              real *restrict square, real *restrict other, real *restrict displaced)
{
    for (ptrdiff_t j = 0; j < n; j++) {
        x[j] = stepped(s, x[j], gradient[j], mean + j, square + j);
        other[j] = s.a * other[j] + s.b * gradient[j];
        displaced[j] = x[j] + s.ahead * other[j];
    }
}

static void ahead_part(ptrdiff_t n, Step s, real *x, const real *gradient, real *mean, real *square, real *other,
                       real *out)
{
    real displaced[BLOCK] __attribute__((aligned(VECTOR)));
    for (ptrdiff_t from = 0; from < n; from += BLOCK) {
        ptrdiff_t some = smaller(BLOCK, n - from), j = 0;
        ahead_block(some, s, x + from, gradient + from, mean + from, square + from, other + from, displaced);
        if ((size_t)out % VECTOR == 0)
            for (; j + LANES <= some; j += LANES) stream(out + from + j, *(const vec *)(displaced + j));
        for (; j < some; j++) out[from + j] = displaced[j];
    }
}

typedef struct {
    ptrdiff_t count, decoupled;  /* decoupled: AdamW */
    const double *settings OF(9); /* learning rate, beta1, beta2, eps, weight decay; push, a, b, ahead */
    const int64_t *size OF(count);
    real *const *x OF(count) EACH(size);
    const real *const *gradient OF(count) EACH(size);
    real *const *mean OF(count) EACH(size), *const *square OF(count) EACH(size);
    float *const *step OF(count) EACH(1); /* the number of steps of each tensor */
    real *const *other OF(count) EACH(size) OR_NULL;
    real *const *out OF(count) EACH(size) OR_NULL;
} Adam;

/* A step of Adam or AdamW. Other operations on the weights run in the same pass, so that memory is read only once:
   with `other` and no `out`, the gradient is gradient + push other;
   with both, other = a other + b gradient, and then out = x + ahead other: the perturbed weights of the next step. */
int adam(ptrdiff_t threads, const Adam *a)
{
    double lr = a->settings[0], beta1 = a->settings[1], beta2 = a->settings[2], decay = a->settings[4];
    ptrdiff_t count = a->count;
    const int64_t *size = a->size;
    for (ptrdiff_t k = 0; k < count; k++) *a->step[k] += 1;
#pragma omp parallel num_threads(threads)
    {
        unsigned before = flush_denormals();
        EACH_PART
        {
            /* lr (mean / bias) / (sqrt(square / root^2) + eps), with one division per number */
            double bias = 1 - pow(beta1, *a->step[k]), root = sqrt(1 - pow(beta2, *a->step[k]));
            Step s = {
                .beta1 = beta1,
                .rest1 = 1 - beta1,
                .beta2 = beta2,
                .rest2 = 1 - beta2,
                .rate = lr / bias * root,
                .eps = a->settings[3] * root,
                .decay = a->decoupled ? 0 : decay,
                .kept = a->decoupled ? 1 - lr * decay : 1,
                .push = a->settings[5],
                .a = a->settings[6],
                .b = a->settings[7],
                .ahead = a->settings[8],
            };
            real *x = a->x[k] + from, *mean = a->mean[k] + from, *square = a->square[k] + from;
            const real *gradient = a->gradient[k] + from;
            if (a->out) ahead_part(n, s, x, gradient, mean, square, a->other[k] + from, a->out[k] + from);
            else if (a->other) pushed_part(n, s, x, gradient, mean, square, a->other[k] + from);
            else adam_part(n, s, x, gradient, mean, square);
        }
        restore_denormals(before);
#ifdef __AVX__
        _mm_sfence();
#endif
    }
    return 0;
}
