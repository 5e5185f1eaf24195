#include "norm.h"

/* Mish and CoMPT's norms, one row at a time (mish.py, norm.py). */

/* With s = sigmoid(x) and w = s (2 - s), t = tanh(softplus(x)) = w / (2 - w). This takes one sigmoid and no exponential
   that could overflow. The slope is t + x s (1 - t^2) = t + s (x - t y) for y = x t. */
static inline real mish_at(real x, real *slope)
{
    real s = sigmoid(x), w = s + s * (1 - s), t = w / (2 - w);
    *slope = t + s * (x - t * x * t);
    return x * t;
}

static APART void mish_row(ptrdiff_t n, const real *restrict x, real *restrict y, real *restrict slope)
{
    for (ptrdiff_t j = 0; j < n; j++) y[j] = mish_at(x[j], slope + j);
}

/* From x, y = mish(x) and its slope, all [n]. */
int mish(ptrdiff_t threads, ptrdiff_t n, const real *x OF(n), real *y OF(n), real *slope OF(n))
{
    ptrdiff_t size = 4096;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (ptrdiff_t at = 0; at < n; at += size) mish_row(smaller(size, n - at), x + at, y + at, slope + at);
    return 0;
}

static APART void scaled(ptrdiff_t n, real factor, const real *restrict x, real *restrict y)
{
    for (ptrdiff_t j = 0; j < n; j++) y[j] = x[j] * factor;
}

/* out = factor x + other y */
static APART void combined(ptrdiff_t n, real factor, const real *restrict x, real other, const real *restrict y,
                           real *restrict out)
{
    for (ptrdiff_t j = 0; j < n; j++) out[j] = factor * x[j] + other * y[j];
}

/* From x [n, d], gain [1] and the least length: y [n, d] and length [n]. */
int scale_norm(ptrdiff_t threads, ptrdiff_t n, ptrdiff_t d, double least, const real *x OF(n * d),
               const real *gain OF(1), real *length OF(n), real *y OF(n * d))
{
    real shortest = (real)least;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (ptrdiff_t i = 0; i < n; i++) {
        length[i] = (real)sqrt((double)dot(d, x + i * d, x + i * d));
        scaled(d, *gain / (length[i] > shortest ? length[i] : shortest), x + i * d, y + i * d);
    }
    return 0;
}

/* From the gradient of y, by_x, all [n]; returns the gradient of the gain. */
static real scale_row(ptrdiff_t n, real length, real least, real gain, const real *x, const real *grad, real *by_x)
{
    int bounded = !(length > least);
    real bound = bounded ? least : length, factor = gain / bound, by_gain = dot(n, x, grad) / bound;
    combined(n, factor, grad, bounded ? 0 : -by_gain * factor / length, x, by_x);
    return by_gain;
}

/* From grad [n, d], the gradient of y: by_x [n, d], and by_gain [n], the share of each row. */
int scale_norm_backward(ptrdiff_t threads, ptrdiff_t n, ptrdiff_t d, double least, const real *x OF(n * d),
                        const real *gain OF(1), const real *length OF(n), const real *grad OF(n * d),
                        real *by_x OF(n * d), real *by_gain OF(n))
{
#pragma omp parallel for num_threads(threads) schedule(static)
    for (ptrdiff_t i = 0; i < n; i++)
        by_gain[i] = scale_row(d, length[i], (real)least, *gain, x + i * d, grad + i * d, by_x + i * d);
    return 0;
}

/* From x and base [n, d] and gain [1]: kept [2, n, d], which is y = mish(x) and its slope; length [n] of the rows of y;
   and out = base + norm(y). */
int mish_scale_norm(ptrdiff_t threads, ptrdiff_t n, ptrdiff_t d, double least, const real *x OF(n * d),
                    const real *base OF(n * d), const real *gain OF(1), real *kept OF(2 * n * d), real *length OF(n),
                    real *out OF(n * d))
{
    real shortest = (real)least;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (ptrdiff_t i = 0; i < n; i++) {
        real *y = kept + i * d;
        mish_row(d, x + i * d, y, y + n * d);
        length[i] = (real)sqrt((double)dot(d, y, y));
        combined(d, *gain / (length[i] > shortest ? length[i] : shortest), y, 1, base + i * d, out + i * d);
    }
    return 0;
}

static APART void multiply(ptrdiff_t n, const real *restrict slope, real *restrict by_x)
{
    for (ptrdiff_t j = 0; j < n; j++) by_x[j] *= slope[j];
}

/* From grad [n, d], the gradient of out: by_x [n, d], and by_gain [n], the share of each row. The gradient of base is
   grad itself. */
int mish_scale_norm_backward(ptrdiff_t threads, ptrdiff_t n, ptrdiff_t d, double least, const real *kept OF(2 * n * d),
                             const real *gain OF(1), const real *length OF(n), const real *grad OF(n * d),
                             real *by_x OF(n * d), real *by_gain OF(n))
{
#pragma omp parallel for num_threads(threads) schedule(static)
    for (ptrdiff_t i = 0; i < n; i++) {
        const real *y = kept + i * d;
        by_gain[i] = scale_row(d, length[i], (real)least, *gain, y, grad + i * d, by_x + i * d);
        multiply(d, y + n * d, by_x + i * d);
    }
    return 0;
}

static real spread_of(ptrdiff_t n, const real *x, real *centred)
{ return (real)sqrt((double)centre(n, x, centred) / (n - 1)); }

/* From x [n, d], gain and bias [d]: y and unit [n, d], and std [n]. */
int layer_norm(ptrdiff_t threads, ptrdiff_t n, ptrdiff_t d, double eps, const real *x OF(n * d), const real *gain OF(d),
               const real *bias OF(d), real *unit OF(n * d), real *std OF(n), real *y OF(n * d))
{
#pragma omp parallel for num_threads(threads) schedule(static)
    for (ptrdiff_t i = 0; i < n; i++) {
        std[i] = spread_of(d, x + i * d, unit + i * d);
        affine(d, 1 / (std[i] + (real)eps), gain, bias, unit + i * d, y + i * d);
    }
    return 0;
}

/* CoMPT's LayerNorm divides by the standard deviation with n - 1 in its denominator, plus eps. */
static void spread_row(ptrdiff_t n, real std, real eps, const real *gain, const real *unit, const real *grad,
                       real *by_x, real *by_gain, real *by_bias)
{ layer_row(n, 1 / (std + eps), std > 0 ? 1 / (std * (n - 1)) : 0, gain, unit, grad, by_x, by_gain, by_bias); }

/* From grad [n, d], the gradient of y: by_x [n, d], and sums [threads, 2, d], which must be zero and get each thread's
   share of the gradients of gain and bias. */
int layer_norm_backward(ptrdiff_t threads, ptrdiff_t n, ptrdiff_t d, double eps, const real *gain OF(d),
                        const real *unit OF(n * d), const real *std OF(n), const real *grad OF(n * d),
                        real *by_x OF(n * d), real *sums OF(threads * 2 * d))
{
#pragma omp parallel for num_threads(threads) schedule(static)
    for (ptrdiff_t i = 0; i < n; i++)
        spread_row(d, std[i], (real)eps, gain, unit + i * d, grad + i * d, by_x + i * d, sums + THREAD * 2 * d,
                   sums + (THREAD * 2 + 1) * d);
    return 0;
}
