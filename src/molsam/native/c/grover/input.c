#include "input.h"
#include "norm.h"
#include "tables.h"

/* sum = the mapped rows of both tables that belong to row i; mapped: [kinds + others, wide]. */
static void mapped_of(const Features *s, ptrdiff_t i, const real *mapped, real *sum)
{
    memcpy(sum, mapped + s->a[i] * s->wide, s->h * sizeof *sum);
    if (s->g) add(s->h, sum, mapped + (s->kinds + s->b[i]) * s->wide);
}

int input_layer(ptrdiff_t threads, const Features *s, const InputLayer *given)
{
    ptrdiff_t h = s->h, wide = s->wide, kinds = s->kinds, f = s->f, others = s->others, g = s->g;
    const real *W = s->W;
    real *mapped = given->mapped;
    real *panels = memory((f + g) * padded(h));
#pragma omp parallel num_threads(threads)
    {
        map_table((Table){kinds, f, h, f + g, s->A, W}, given->bias, panels, mapped, wide);
        if (g)
            map_table((Table){others, g, h, f + g, s->B, W + f}, NULL, panels + f * padded(h), mapped + kinds * wide,
                      wide);
#pragma omp for schedule(static)
        for (ptrdiff_t i = 0; i < s->n; i++) {
            real *y = given->out + i * h;
            mapped_of(s, i, mapped, y);
            bend(h, (real)s->below, y);
            given->factor[i] = layer_norm_of(h, (real)given->eps, y, given->gain, given->shift, given->unit + i * h, y);
        }
    }
    free(panels);
    return !panels;
}

int input_layer_backward(ptrdiff_t threads, const Features *s, const InputLayerBackward *given)
{
    ptrdiff_t h = s->h, kinds = s->kinds, f = s->f, others = s->others, g = s->g;
    const real *W = s->W, *factor = given->factor;
    real *by = given->by, *by_W = given->by_W;
    ptrdiff_t rows = kinds + others + 2, few = ROWS * padded(f > g ? f : g), size = (rows + 2) * h + few;
    real *own = memory(threads * size); /* each thread's gradients and scratch rows */
    real *panels = memory(kinds * padded(f) + others * padded(g));
    int failed = !own || !panels;
#pragma omp parallel num_threads(failed ? 1 : threads)
    if (!failed) {
        real *mine = own + THREAD * size, *last = mine + (kinds + others) * h, *sum = last + 2 * h, *x = sum + h;
        memset(mine, 0, (rows + 2) * h * sizeof *mine);
#pragma omp for schedule(static)
        for (ptrdiff_t i = 0; i < s->n; i++) {
            layer_row(h, factor[i], factor[i] / h, given->gain, given->unit + i * h, given->grad + i * h, x, last,
                      last + h);
            mapped_of(s, i, given->mapped, sum);
            bend_backward(h, (real)s->below, sum, x);
            add(h, mine + s->a[i] * h, x);
            if (g) add(h, mine + (kinds + s->b[i]) * h, x);
        }
        reduce(rows, h, by, h, own, h, size);
#pragma omp barrier
        map_table_backward((Table){kinds, f, h, f + g, s->A, W}, by, panels, x + h, by_W, given->by_bias);
        if (g)
            map_table_backward((Table){others, g, h, f + g, s->B, W + f}, by + kinds * h, panels + kinds * padded(f),
                               x + h, by_W + f, NULL);
    }
    free(own), free(panels);
    return failed;
}
