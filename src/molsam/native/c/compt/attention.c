#include "attention.h"

/* CoMPT's attention, one molecule at a time, in the notation of bond_attention.py.

   The distance kernel K is common to the heads, and all pairs without a bond share a score. With s = 2 p, per head,
       o_m = s_m0 ((K v)_m - K_mm v_m / 2) + sum over bonds (m, n) of (s_mt - s_m0) K_mn v_n,
   which takes one product for all heads and no attention matrix. */

typedef struct {
    ptrdiff_t n, atom, bond, pair; /* atoms; the first atom, bond and pair */
} Molecule;

/* The molecules of a batch; the caller frees them. */
static Molecule *molecules_of(const Batch *s)
{
    Molecule *all = malloc((s->molecules + 1) * sizeof *all), next = {0};
    for (ptrdiff_t i = 0; all && i < s->molecules; i++) {
        next.n = s->offsets[i + 1] - s->offsets[i], next.atom = s->offsets[i];
        all[i] = next;
        next.bond += s->bonds[i], next.pair += next.n * next.n;
    }
    return all;
}

static ptrdiff_t largest(const Batch *s, const Molecule *all)
{
    ptrdiff_t most = 0;
    for (ptrdiff_t i = 0; i < s->molecules; i++) most = all[i].n > most ? all[i].n : most;
    return most;
}

#define FAR 1e8f /* the distance between fragments, as in the reference; `distance` has -1 for it */

static APART void kernel_row(ptrdiff_t n, real decay, int softmax, const int16_t *restrict distance, real *restrict K)
{
    real most = softmax ? -HUGE_VAL : 0, sum = 0;
    for (ptrdiff_t j = 0; j < n; j++) {
        real far = distance[j] < 0 ? FAR : distance[j], exponent = -decay * far;
        /* With exp and decay < 0 the reference overflows between fragments; the bound changes only these pairs. */
        K[j] = !softmax && distance[j] < 0 && exponent > 0 ? 0 : exponent;
    }
    for (ptrdiff_t j = 0; softmax && j < n; j++) most = K[j] > most ? K[j] : most;
    for (ptrdiff_t j = 0; j < n; j++) K[j] = exponential(K[j] - most);
#pragma omp simd reduction(+ : sum)
    for (ptrdiff_t j = 0; j < n; j++) sum += K[j];
    real factor = softmax ? 1 / sum : 1;
    for (ptrdiff_t j = 0; j < n; j++) K[j] *= factor;
}

/* One row of fall = -dK / d decay. */
static APART void slope_row(ptrdiff_t n, real decay, int softmax, const int16_t *restrict distance,
                            const real *restrict K, real *restrict fall)
{
    real mean = 0;
    for (ptrdiff_t j = 0; j < n; j++) {
        real far = softmax || decay >= 0 ? FAR : 0;
        fall[j] = distance[j] < 0 ? far : distance[j];
    }
#pragma omp simd reduction(+ : mean)
    for (ptrdiff_t j = 0; j < n; j++) mean += K[j] * fall[j];
    mean = softmax ? mean : 0;
    for (ptrdiff_t j = 0; j < n; j++) fall[j] = K[j] * (fall[j] - mean);
}

/* to += factor x */
static APART void more(ptrdiff_t n, real factor, const real *restrict x, real *restrict to)
{
    for (ptrdiff_t j = 0; j < n; j++) to[j] += factor * x[j];
}

static APART void times(ptrdiff_t n, real factor, const real *restrict x, real *restrict to)
{
    for (ptrdiff_t j = 0; j < n; j++) to[j] = factor * x[j];
}

static void kernels(const Batch *s, const Molecule *m, real *K, real *fall)
{
    for (ptrdiff_t i = 0; i < m->n; i++) {
        const int16_t *distance = s->distance + m->pair + i * m->n;
        kernel_row(m->n, *s->decay, s->softmax != 0, distance, K + i * m->n);
        if (fall) slope_row(m->n, *s->decay, s->softmax != 0, distance, K + i * m->n, fall + i * m->n);
    }
}

/* mass = softmax(scores + log_counts) over the types, share = mass * weight; of one head of an atom */
static APART void type_row(ptrdiff_t n, const real *restrict scores, const real *restrict log_counts,
                           const real *restrict weight, real *restrict mass, real *restrict share)
{
    real most = -HUGE_VAL, sum = 0;
    for (ptrdiff_t t = 0; t < n; t++) {
        mass[t] = scores[t] + log_counts[t];
        most = mass[t] > most ? mass[t] : most;
    }
    for (ptrdiff_t t = 0; t < n; t++) mass[t] = exponential(mass[t] - most);
#pragma omp simd reduction(+ : sum)
    for (ptrdiff_t t = 0; t < n; t++) sum += mass[t];
    for (ptrdiff_t t = 0; t < n; t++) mass[t] /= sum, share[t] = mass[t] * weight[t];
}

/* Turn `by`, the gradient of share, into the gradient of the scores. */
static APART void type_row_backward(ptrdiff_t n, const real *restrict weight, const real *restrict mass,
                                    real *restrict by)
{
    real mean = 0;
#pragma omp simd reduction(+ : mean)
    for (ptrdiff_t t = 0; t < n; t++) by[t] *= weight[t], mean += by[t] * mass[t];
    for (ptrdiff_t t = 0; t < n; t++) by[t] = (by[t] - mean) * mass[t];
}

/* a[i] = from + i * step for i < n; returns a */
static const real **rows_at(const real **a, const real *from, ptrdiff_t n, ptrdiff_t step)
{
    for (ptrdiff_t i = 0; i < n; i++) a[i] = from + i * step;
    return a;
}

int attention(ptrdiff_t threads, const Batch *s, const Attention *given)
{
    const int64_t *src = s->src, *dst = s->dst, *type = s->type;
    const real *values = given->values;
    real *share = given->share, *mixed = given->mixed, *out = given->out;
    Molecule *all = molecules_of(s);
    ptrdiff_t most = all ? largest(s, all) : 0, heads = s->heads, d = s->d, types = s->types, width = heads * d;
    int failed = !all;
#pragma omp parallel num_threads(threads) reduction(| : failed)
    {
        real *K = memory(most * most);
        const real **a = malloc((most + 1) * sizeof *a);
        failed = !all || !K || !a;
#pragma omp for schedule(dynamic)
        for (ptrdiff_t i = 0; i < s->molecules; i++) {
            if (failed) continue;
            Molecule m = all[i];
            const real *v = values + m.atom * width;
            kernels(s, &m, K, NULL);
            product(m.n, (Left){rows_at(a, K, m.n, m.n), 1, m.n}, v, width, width, mixed + m.atom * width, width, 0);
            for (ptrdiff_t row = 0; row < m.n; row++)
                for (ptrdiff_t h = 0; h < heads; h++) {
                    ptrdiff_t at = (m.atom + row) * width + h * d, p = ((m.atom + row) * heads + h) * types;
                    ptrdiff_t atom = (m.atom + row) * types;
                    type_row(types, given->scores + p, given->log_counts + atom, given->weight + atom, given->mass + p,
                             share + p);
                    real none = share[p];
                    times(d, none, mixed + at, out + at);
                    more(d, none * K[row * m.n + row] / -2, values + at, out + at);
                }
            for (ptrdiff_t e = m.bond; e < m.bond + s->bonds[i]; e++)
                for (ptrdiff_t h = 0; h < heads; h++) {
                    const real *p = share + (dst[e] * heads + h) * types;
                    real A = (p[type[e] + 1] - p[0]) * K[(dst[e] - m.atom) * m.n + src[e] - m.atom];
                    more(d, A, values + src[e] * width + h * d, out + dst[e] * width + h * d);
                }
        }
        free(K), free(a);
    }
    free(all);
    return failed;
}

int attention_backward(ptrdiff_t threads, const Batch *s, const AttentionBackward *given)
{
    const int64_t *src = s->src, *dst = s->dst, *type = s->type;
    const real *values = given->values, *share = given->share, *mixed = given->mixed, *grad = given->grad;
    real *by_scores = given->by_scores, *by_values = given->by_values;
    Molecule *all = molecules_of(s);
    ptrdiff_t most = all ? largest(s, all) : 0, heads = s->heads, d = s->d, types = s->types, width = heads * d;
    int failed = !all;
#pragma omp parallel num_threads(threads) reduction(| : failed)
    {
        real *K = memory(most * most), *fall = memory(most * most), *g = memory(most * width),
             *u = memory(most * width);
        const real **a = malloc((most + 1) * sizeof *a);
        failed = !all || !K || !fall || !g || !u || !a;
#pragma omp for schedule(dynamic)
        for (ptrdiff_t i = 0; i < s->molecules; i++) {
            if (failed) continue;
            Molecule m = all[i];
            const real *v = values + m.atom * width;
            real *by_v = by_values + m.atom * width, down = 0;
            kernels(s, &m, K, fall);
            for (ptrdiff_t row = 0; row < m.n; row++)
                for (ptrdiff_t h = 0; h < heads; h++)
                    times(d, share[((m.atom + row) * heads + h) * types], grad + (m.atom + row) * width + h * d,
                          g + row * width + h * d);
            product(m.n, (Left){rows_at(a, K, m.n, 1), m.n, m.n}, g, width, width, by_v, width, 0);
            product(m.n, (Left){rows_at(a, fall, m.n, m.n), 1, m.n}, v, width, width, u, width, 0);
            down = dot(m.n * width, g, u);
            for (ptrdiff_t row = 0; row < m.n; row++)
                for (ptrdiff_t h = 0; h < heads; h++) {
                    ptrdiff_t at = (m.atom + row) * width + h * d, p = ((m.atom + row) * heads + h) * types;
                    real own = K[row * m.n + row] / 2, along = dot(d, grad + at, values + at);
                    by_scores[p] += dot(d, grad + at, mixed + at) - own * along;
                    more(d, -own * share[p], grad + at, by_values + at);
                    down -= fall[row * m.n + row] / 2 * share[p] * along;
                }
            for (ptrdiff_t e = m.bond; e < m.bond + s->bonds[i]; e++)
                for (ptrdiff_t h = 0; h < heads; h++) {
                    ptrdiff_t p = (dst[e] * heads + h) * types, pair = (dst[e] - m.atom) * m.n + src[e] - m.atom;
                    const real *from = grad + dst[e] * width + h * d;
                    real along = dot(d, from, values + src[e] * width + h * d),
                         extra = share[p + type[e] + 1] - share[p];
                    by_scores[p + type[e] + 1] += K[pair] * along;
                    by_scores[p] -= K[pair] * along;
                    more(d, extra * K[pair], from, by_values + src[e] * width + h * d);
                    down += extra * fall[pair] * along;
                }
            for (ptrdiff_t row = m.atom * heads; row < (m.atom + m.n) * heads; row++)
                type_row_backward(types, given->weight + row / heads * types, given->mass + row * types,
                                  by_scores + row * types);
            given->by_decay[i] = -down;
        }
        free(K), free(fall), free(g), free(u), free(a);
    }
    free(all);
    return failed;
}
