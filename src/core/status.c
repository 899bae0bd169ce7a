/* Names and texts of statuses, and what a program returns for one. */
#include <rouse/base.h>

const char *rouse_status_name(int status)
{
    switch (status) {
#define STATUS_NAME(name, value, text) \
    case value:                        \
        return #name;
        ROUSE_STATUS_MAP(STATUS_NAME)
#undef STATUS_NAME
    default:
        return "UNKNOWN";
    }
}

const char *rouse_status_text(int status)
{
    switch (status) {
#define STATUS_TEXT(name, value, text) \
    case value:                        \
        return text;
        ROUSE_STATUS_MAP(STATUS_TEXT)
#undef STATUS_TEXT
    default:
        return rouse_status_text(ROUSE_UNKNOWN);
    }
}

int rouse_exit_code(int status)
{
    /* Shells use 126 and up for their own purposes. */
    return status >= 0 && status <= 125 ? status : 1;
}
