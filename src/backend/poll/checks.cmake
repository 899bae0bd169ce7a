# ppoll takes nanoseconds; poll alone has to do where there is none, and rounds up to milliseconds.
include(CheckSymbolExists)
set(CMAKE_REQUIRED_DEFINITIONS -D_GNU_SOURCE=1)
check_symbol_exists(ppoll "poll.h" ROUSE_HAVE_PPOLL)
unset(CMAKE_REQUIRED_DEFINITIONS)
if(ROUSE_HAVE_PPOLL)
    list(APPEND rouse_backend_definitions ROUSE_HAVE_PPOLL=1)
endif()
