/* What the backend of Windows offers beyond the contract. */
#ifndef ROUSE_BACKEND_IOCP_H
#define ROUSE_BACKEND_IOCP_H

#include "backend/backend.h"

/* From now on each completion of an overlapped operation on this handle, a pipe's for example, is an event of kind PACKET
 * whose token is the address of the OVERLAPPED. For good: closing the handle ends it. Who closes the backend must have
 * waited for those operations. */
int backend_associate(struct backend *backend, os_handle handle);

#endif
