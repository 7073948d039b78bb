/* The process's two clocks. What can take the time as an argument does; these are read at the edges. */
#ifndef RINGBACK_SERVER_BASE_CLOCK_H
#define RINGBACK_SERVER_BASE_CLOCK_H

#include <stdint.h>

int64_t clock_wall_ms(void);      /* Unix milliseconds; may step */
int64_t clock_monotonic_us(void); /* since some start; never goes back, and goes on while the machine sleeps */

#endif
