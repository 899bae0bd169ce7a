/* The smallest user: proves that the headers are found and the library links and runs. */
#include <rouse/rouse.h>
#include <stdio.h>

int main(void)
{
    printf("rouse %s with %s\n", rouse_version_text(), rouse_backend_name());
    return rouse_version() == ROUSE_VERSION_HEX ? 0 : 1;
}
