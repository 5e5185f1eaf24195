#include "product.h"

/* Topological distances (chem/distances.py). */

/* n atoms, directed bonds src -> dst, both directions of each -> out [n, n], bonds on the shortest path between two atoms, -1
   where there is none. By breadth-first search from every atom. */
int distances(ptrdiff_t n, ptrdiff_t bonds, const int32_t *src, const int32_t *dst, int16_t *out)
{
    int32_t *room = calloc(3 * n + bonds + 2, sizeof *room);
    if (!room) return 1;
    int32_t *offsets = room, *next = offsets + n + 1, *queue = next + n, *neighbours = queue + n;
    for (ptrdiff_t b = 0; b < bonds; b++) offsets[src[b] + 1]++;
    for (ptrdiff_t i = 0; i < n; i++) offsets[i + 1] += offsets[i], next[i] = offsets[i];
    for (ptrdiff_t b = 0; b < bonds; b++) neighbours[next[src[b]]++] = dst[b];
    memset(out, -1, n * n * sizeof *out);
    for (ptrdiff_t from = 0; from < n; from++) {
        int16_t *row = out + from * n;
        ptrdiff_t end = 1;
        queue[0] = (int32_t)from, row[from] = 0;
        for (ptrdiff_t at = 0; at < end; at++)
            for (int32_t k = offsets[queue[at]]; k < offsets[queue[at] + 1]; k++)
                if (row[neighbours[k]] < 0) row[neighbours[k]] = row[queue[at]] + 1, queue[end++] = neighbours[k];
    }
    free(room);
    return 0;
}
