/* Which library this is. */
#include <rouse/base.h>

#define TEXT2(number) #number
#define TEXT(number)  TEXT2(number)

int rouse_version(void)
{
    return ROUSE_VERSION_HEX;
}

const char *rouse_version_text(void)
{
    return TEXT(ROUSE_VERSION_MAJOR) "." TEXT(ROUSE_VERSION_MINOR) "." TEXT(ROUSE_VERSION_PATCH);
}

const char *rouse_backend_name(void)
{
    return ROUSE_BACKEND_NAME; /* from the build, which chose the folder */
}
