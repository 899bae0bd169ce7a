/* What the backend of the simulated world offers beyond the contract: operations that the kernel has in its hands until
 * their event of kind PACKET, as those on pipes and consoles of Windows are. */
#ifndef ROUSE_BACKEND_SIM_H
#define ROUSE_BACKEND_SIM_H

#include "backend/backend.h"

/* Starts one that fills `data` some time later. record[0] is then the number of bytes, at least one, or a status. Both are
 * the world's until the event, whose token is the record's address. NO_MEMORY. */
int sim_packet_start(struct backend *backend, uint64_t *record, void *data, size_t length);

/* Asks to end it: its event comes soon, perhaps with CANCELLED. Nothing if it has come. */
void sim_packet_cancel(struct backend *backend, const uint64_t *record);

#endif
