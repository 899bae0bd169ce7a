/* The smallest user: proves that the headers are found and the library links and runs, and is the one with the backend that
 * the argument names, if there is one. */
#include <rouse/rouse.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
    printf("rouse %s with %s\n", rouse_version_text(), rouse_backend_name());
    return rouse_version() == ROUSE_VERSION_HEX && (argc < 2 || strcmp(argv[1], rouse_backend_name()) == 0) ? 0 : 1;
}
