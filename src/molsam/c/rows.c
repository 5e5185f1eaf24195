#include "product.h"

/* Mish and CoMPT's norms, a row at a time (mish.py, norm.py). */

static APART void mish_row(ptrdiff_t n, const real *restrict x, real *restrict y, real *restrict slope)
{
    for (ptrdiff_t j = 0; j < n; j++) {
        real s = sigmoid(x[j]), w = s + s * (1 - s), t = w / (2 - w);
        y[j] = x[j] * t;
        slope[j] = t + s * (x[j] - t * y[j]);
    }
}

/* x -> y = mish(x) and its slope, all [n]; the equations are mish.py's. */
int mish(ptrdiff_t threads, ptrdiff_t n, const real *x, real *y, real *slope)
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

/* x [n, d], gain [1] and the least length -> y [n, d] and length [n] */
int scale_norm(ptrdiff_t threads, ptrdiff_t n, ptrdiff_t d, const real *x, const real *gain, const real *least,
               real *length, real *y)
{
#pragma omp parallel for num_threads(threads) schedule(static)
    for (ptrdiff_t i = 0; i < n; i++) {
        length[i] = (real)sqrt((double)dot(d, x + i * d, x + i * d));
        scaled(d, *gain / (length[i] > *least ? length[i] : *least), x + i * d, y + i * d);
    }
    return 0;
}

/* grad [n, d] of y -> by_x [n, d] and by_gain [n], each row's share */
int scale_norm_backward(ptrdiff_t threads, ptrdiff_t n, ptrdiff_t d, const real *x, const real *gain,
                        const real *least, const real *length, const real *grad, real *by_x, real *by_gain)
{
#pragma omp parallel for num_threads(threads) schedule(static)
    for (ptrdiff_t i = 0; i < n; i++) {
        int bounded = !(length[i] > *least);
        real bound = bounded ? *least : length[i], factor = *gain / bound;
        by_gain[i] = dot(d, x + i * d, grad + i * d) / bound;
        combined(d, factor, grad + i * d, bounded ? 0 : -by_gain[i] * factor / length[i], x + i * d, by_x + i * d);
    }
    return 0;
}

static APART real centre(ptrdiff_t n, const real *restrict x, real *restrict out)
{
    real sum = 0, square = 0;
#pragma omp simd reduction(+ : sum)
    for (ptrdiff_t j = 0; j < n; j++) sum += x[j];
#pragma omp simd reduction(+ : square)
    for (ptrdiff_t j = 0; j < n; j++) out[j] = x[j] - sum / n, square += out[j] * out[j];
    return (real)sqrt((double)square / (n - 1));
}

static APART void affine(ptrdiff_t n, real factor, const real *restrict gain, const real *restrict bias,
                         real *restrict unit, real *restrict y)
{
    for (ptrdiff_t j = 0; j < n; j++) unit[j] *= factor, y[j] = bias[j] + unit[j] * gain[j];
}

/* x [n, d], gain and bias [d], eps [1] -> y and unit [n, d], std [n] */
int layer_norm(ptrdiff_t threads, ptrdiff_t n, ptrdiff_t d, const real *x, const real *gain, const real *bias,
               const real *eps, real *unit, real *std, real *y)
{
#pragma omp parallel for num_threads(threads) schedule(static)
    for (ptrdiff_t i = 0; i < n; i++) {
        std[i] = centre(d, x + i * d, unit + i * d);
        affine(d, 1 / (std[i] + *eps), gain, bias, unit + i * d, y + i * d);
    }
    return 0;
}

static APART void layer_row(ptrdiff_t n, real std, real eps, const real *restrict gain, const real *restrict unit,
                            const real *restrict grad, real *restrict by_x, real *restrict by_gain,
                            real *restrict by_bias)
{
    real along = 0, mean = 0;
#pragma omp simd reduction(+ : along, mean)
    for (ptrdiff_t j = 0; j < n; j++) {
        by_gain[j] += grad[j] * unit[j], by_bias[j] += grad[j];
        by_x[j] = grad[j] * gain[j];
        along += by_x[j] * unit[j], mean += by_x[j];
    }
    real turn = std > 0 ? along / (std * (n - 1)) : 0, shift = mean / n, factor = 1 / (std + eps);
    for (ptrdiff_t j = 0; j < n; j++) by_x[j] = (by_x[j] - shift) * factor - unit[j] * turn;
}

/* grad [n, d] of y -> by_x [n, d]; by_gain and by_bias [threads, d], zeros before, receive each thread's share */
int layer_norm_backward(ptrdiff_t threads, ptrdiff_t n, ptrdiff_t d, const real *gain, const real *eps,
                        const real *unit, const real *std, const real *grad, real *by_x, real *by_gain, real *by_bias)
{
#pragma omp parallel for num_threads(threads) schedule(static)
    for (ptrdiff_t i = 0; i < n; i++)
        layer_row(d, std[i], *eps, gain, unit + i * d, grad + i * d, by_x + i * d, by_gain + THREAD * d,
                  by_bias + THREAD * d);
    return 0;
}
