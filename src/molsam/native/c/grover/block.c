#include "attend.h"
#include "encoders.h"

int grover_block(ptrdiff_t threads, const Plan *p, const Saved *saved, const Block *b)
{
    ptrdiff_t n = p->n, h = p->h, wide = p->wide, count = p->chunks, encoders = 3 * p->heads, strips = 0;
    const real *qkv[] = {b->W_q, b->b_q, b->W_k, b->b_k, b->W_v, b->b_v};
    Norm norm = {(real)b->eps, b->gain, b->shift};
    Maps maps = {b->W_o, b->b_o, b->W_out, b->b_out};
    Lists lists = {p->rows, p->offsets};
    for (ptrdiff_t k = 0; k < count; k++) strips += strips_of(p, k);
    real *panels = memory((encoders + 1) * h * padded(h)), *of_out = panels + encoders * h * padded(h);
    real *projection = memory(3 * h * (h + 1)), *widened = memory(n * wide),
         *mixing_bias = memory(h); /* projection: [3, h, W and b] */
    int failed = !panels || !projection || !widened || !mixing_bias;
#pragma omp parallel num_threads(threads) reduction(| : failed)
    {
        Room r = room_of(p, 0);
        failed = !panels || !projection || !widened || !mixing_bias || incomplete(&r);
#pragma omp for schedule(static)
        for (ptrdiff_t j = 0; j <= encoders; j++)
            if (panels && j < encoders) pack(panels + j * h * padded(h), b->W + j * h * h, h, h, 1, h);
            else if (panels) pack(of_out, b->W_out, h, h, h, 1);
        mixing_of(p, maps, of_out, b->mixing, mixing_bias, &r, failed);
#pragma omp for schedule(static)
        for (ptrdiff_t i = 0; i < 3 * h; i++)
            if (projection) {
                memcpy(projection + i * (h + 1), qkv[i / h * 2] + i % h * h, h * sizeof *projection);
                projection[i * (h + 1) + h] = qkv[i / h * 2 + 1][i % h];
            }
#pragma omp for schedule(static)
        for (ptrdiff_t k = 0; k < count; k++) {
            Chunk c = chunk_of(p, *saved, k);
            if (widened) widen(p, &c, lists, b->x, widened);
        }
        /* No sums over rows here, so the result does not depend on which thread takes which piece. */
#pragma omp for schedule(dynamic)
        for (ptrdiff_t j = 0; j < encoders * count; j++) {
            Chunk c = chunk_of(p, *saved, j % count);
            if (!failed && c.rows) encode(p, &c, j / count, lists, widened, panels, b->bias, &r);
        }
#pragma omp for schedule(dynamic)
        for (ptrdiff_t i = 0; i < strips; i++) {
            ptrdiff_t k = 0, strip = i;
            while (strip >= strips_of(p, k)) strip -= strips_of(p, k++);
            Chunk c = chunk_of(p, *saved, k);
            if (!failed)
                attend(p, &c, strip_of(p, &c, strip * STRIP), projection, b->mixing, mixing_bias, norm, b->out, &r);
        }
        leave(&r);
    }
    free(panels), free(projection), free(widened), free(mixing_bias);
    return failed;
}

int grover_block_backward(ptrdiff_t threads, const Plan *p, const Saved *saved, const BlockBackward *b)
{
    ptrdiff_t h = p->h, wide = p->wide, count = p->chunks;
    const real *qkv[] = {b->W_q, b->W_k, b->W_v};
    Lists lists = {p->rows, p->offsets}, back = {b->back, b->back_offsets};
    ptrdiff_t *owner = owners(p, threads), encoders = 3 * p->heads, size = gradient_rows(p) * wide;
    real *panels = memory((encoders + 4) * h * padded(h)), *of_projection = panels + encoders * h * padded(h);
    real *of_out = of_projection + 3 * h * padded(h), *own = memory(threads * size);
    Maps maps = {b->W_o, NULL, b->W_out, b->b_out};
    Gradients all = gradients_of(p, b->by_weights, h);
    int failed = !owner || !panels || !own;
#pragma omp parallel num_threads(threads) reduction(| : failed)
    {
        Room r = room_of(p, 1);
        failed = !owner || !panels || !own || incomplete(&r);
        if (own) memset(own + THREAD * size, 0, size * sizeof *own);
        Gradients g = gradients_of(p, own + THREAD * size, wide);
#pragma omp for schedule(static)
        for (ptrdiff_t j = 0; j < encoders + 4; j++)
            if (panels && j < encoders) pack(panels + j * h * padded(h), b->W + j * h * h, h, h, h, 1);
            else if (panels && j < encoders + 3) pack(panels + j * h * padded(h), qkv[j - encoders], h, h, h, 1);
            else if (panels) pack(of_out, b->W_out, h, h, 1, h);
        for (ptrdiff_t k = 0; k < count && !failed; k++)
            if (owner[k] % THREADS == THREAD && p->bounds[k] < p->bounds[k + 1]) {
                Chunk c = chunk_of(p, *saved, k);
                for (ptrdiff_t row = 0; row < c.rows; row += STRIP)
                    attend_backward(p, &c, strip_of(p, &c, row), b->grad + (c.begin + row) * h, of_projection,
                                    b->mixing, b->gain, g, &r);
                encode_backward(p, &c, lists, back, panels, g, b->by_x + c.begin * h, &r);
            }
#pragma omp barrier
        if (own) reduce(gradient_rows(p), h, b->by_weights, h, own, wide, size);
#pragma omp barrier
        mixing_backward(p, maps, of_out, all.mixing, all.mixing_bias, panels, b->by_maps, b->by_maps + h * p->heads * h,
                        b->by_maps + (p->heads + 1) * h * h, &r, failed);
        leave(&r);
    }
    free(owner), free(panels), free(own);
    return failed;
}
