/* Addresses as text.
 *
 * Written by hand, because the system's functions differ in what they let through (short and octal forms of IPv4,
 * spaces, scopes), read no ports, and are no part of every system. What is read is one IPv4 address of four decimal
 * numbers, or one IPv6 address of RFC 4291 in brackets; what is written is the form of RFC 5952. Each function of the
 * reader moves its place forward over what it has read, and answers false where the text is wrong; none looks behind
 * the final NUL. */
#include <rouse/net.h>

#include "os/os.h"

#define GROUPS     8
#define NO_GAP     SIZE_MAX
#define NAME_BYTES 64 /* more than the name of an interface has on any system */

/* ---- reading ---- */

static bool take(const char **at, char expected)
{
    if (**at != expected)
        return false;
    (*at)++;
    return true;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Decimal, at most `limit`, without sign or leading zeros. */
static bool read_decimal(const char **at, uint32_t limit, uint32_t *value)
{
    const char *p = *at;
    if (!is_digit(*p) || (*p == '0' && is_digit(p[1])))
        return false;
    uint64_t number = 0;
    for (; is_digit(*p); p++) {
        number = number * 10 + (uint64_t)(*p - '0');
        if (number > limit)
            return false;
    }
    *value = (uint32_t)number;
    *at = p;
    return true;
}

static bool read_ipv4(const char **at, uint8_t bytes[4])
{
    for (int i = 0; i < 4; i++) {
        uint32_t number;
        if ((i > 0 && !take(at, '.')) || !read_decimal(at, 255, &number))
            return false;
        bytes[i] = (uint8_t)number;
    }
    return true;
}

static int hex_value(char c)
{
    if (is_digit(c))
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* One to four hexadecimal digits; a fifth is left, and belongs to nothing. */
static bool read_group(const char **at, uint8_t bytes[2])
{
    unsigned value = 0;
    int digits = 0;
    for (; digits < 4 && hex_value(**at) >= 0; digits++, (*at)++)
        value = value * 16 + (unsigned)hex_value(**at);
    bytes[0] = (uint8_t)(value >> 8);
    bytes[1] = (uint8_t)value;
    return digits > 0;
}

/* Do a few digits and a dot come next? */
static bool is_at_ipv4(const char *p)
{
    while (is_digit(*p))
        p++;
    return *p == '.';
}

/* Between two groups: one colon, or two, once in an address, for the zeros left out. False: the address ends here. */
static bool read_separator(const char **at, size_t count, size_t *gap)
{
    const char *p = *at;
    if (p[0] == ':' && p[1] == ':' && *gap == NO_GAP) {
        *gap = count;
        *at = p + 2;
        return hex_value(p[2]) >= 0;
    }
    return count == 0 || take(at, ':');
}

static bool read_ipv6(const char **at, uint8_t bytes[16])
{
    uint8_t found[16];
    size_t count = 0, gap = NO_GAP;
    while (count < sizeof found && read_separator(at, count, &gap)) {
        if (is_at_ipv4(*at)) {
            if (count > sizeof found - 4 || !read_ipv4(at, found + count))
                return false;
            count += 4;
            break;
        }
        if (!read_group(at, found + count))
            return false;
        count += 2;
    }
    /* Two colons stand for one group of zeros at least. */
    if (gap == NO_GAP ? count != sizeof found : count > sizeof found - 2)
        return false;
    size_t head = gap == NO_GAP ? count : gap;
    for (size_t i = 0; i < sizeof found; i++)
        bytes[i] = 0;
    for (size_t i = 0; i < count; i++)
        bytes[i < head ? i : sizeof found - count + i] = found[i];
    return true;
}

/* A scope as it stands in the text. */
struct scope {
    uint32_t number;
    char name[NAME_BYTES]; /* empty: the number counts */
    bool too_long;         /* the name does not fit, so there is no such interface */
};

static bool read_scope(const char **at, struct scope *scope)
{
    const char *digits = *at;
    if (read_decimal(&digits, UINT32_MAX, &scope->number) && *digits == ']') {
        *at = digits;
        return true;
    }
    size_t length = 0;
    bool is_name = false;
    for (; **at != ']' && **at != '\0'; (*at)++) {
        is_name = is_name || !is_digit(**at);
        if (length < NAME_BYTES - 1)
            scope->name[length++] = **at;
        else
            scope->too_long = true;
    }
    scope->name[length] = '\0';
    return is_name; /* else it is a number, and a wrong one */
}

static int find_scope(const struct scope *scope, uint32_t *number)
{
    *number = scope->number;
    if (scope->name[0] != '\0')
        *number = scope->too_long ? 0 : os_interface_index(scope->name);
    return scope->name[0] != '\0' && *number == 0 ? ROUSE_NOT_FOUND : ROUSE_OK;
}

static bool read_host(const char **at, rouse_address *address, struct scope *scope)
{
    if (!take(at, '[')) {
        address->family = ROUSE_IPV4;
        return read_ipv4(at, address->bytes);
    }
    address->family = ROUSE_IPV6;
    if (!read_ipv6(at, address->bytes))
        return false;
    if (take(at, '%') && !read_scope(at, scope))
        return false;
    return take(at, ']');
}

int rouse_address_parse(rouse_address *address, const char *text)
{
    if (address == NULL || text == NULL)
        return ROUSE_INVALID;
    rouse_address found = {0};
    struct scope scope = {0};
    uint32_t port;
    if (!read_host(&text, &found, &scope) || !take(&text, ':') || !read_decimal(&text, UINT16_MAX, &port) ||
        *text != '\0')
        return ROUSE_INVALID;
    found.port = (uint16_t)port;
    int status = find_scope(&scope, &found.scope);
    if (status == ROUSE_OK)
        *address = found;
    return status;
}

/* ---- writing ---- */

struct writer {
    char text[ROUSE_ADDRESS_TEXT_MAX];
    size_t length;
};

static void put(struct writer *writer, char c)
{
    writer->text[writer->length++] = c;
}

/* Without leading zeros. */
static void put_number(struct writer *writer, uint32_t number, uint32_t base)
{
    char digits[10];
    size_t count = 0;
    do
        digits[count++] = "0123456789abcdef"[number % base];
    while ((number /= base) != 0);
    while (count > 0)
        put(writer, digits[--count]);
}

static void put_ipv4(struct writer *writer, const uint8_t *bytes)
{
    for (int i = 0; i < 4; i++) {
        if (i > 0)
            put(writer, '.');
        put_number(writer, bytes[i], 10);
    }
}

static unsigned group(const uint8_t *bytes, size_t i)
{
    return (unsigned)bytes[2 * i] << 8 | bytes[2 * i + 1];
}

/* The first of the longest runs of at least two groups of zeros; length 0: there is none. */
static void find_gap(const uint8_t *bytes, size_t *start, size_t *length)
{
    *start = *length = 0;
    size_t run = 0;
    for (size_t i = 0; i < GROUPS; i++) {
        run = group(bytes, i) == 0 ? run + 1 : 0;
        if (run >= 2 && run > *length) {
            *length = run;
            *start = i + 1 - run;
        }
    }
}

/* ::ffff:0:0/96: an IPv4 address in IPv6 clothes, the only kind whose last part is written in decimal. */
static bool is_mapped(const uint8_t *bytes)
{
    for (size_t i = 0; i < 5; i++)
        if (group(bytes, i) != 0)
            return false;
    return group(bytes, 5) == 0xffff;
}

static void put_ipv6(struct writer *writer, const uint8_t *bytes)
{
    bool mapped = is_mapped(bytes);
    size_t groups = mapped ? GROUPS - 2 : GROUPS;
    size_t gap, zeros;
    find_gap(bytes, &gap, &zeros);
    for (size_t i = 0; i < groups; i++) {
        if (zeros > 0 && i >= gap && i < gap + zeros) {
            if (i == gap)
                put(writer, ':');
            if (i + 1 == GROUPS)
                put(writer, ':');
            continue;
        }
        if (i > 0)
            put(writer, ':');
        put_number(writer, group(bytes, i), 16);
    }
    if (mapped) {
        put(writer, ':');
        put_ipv4(writer, bytes + 12);
    }
}

static void put_host(struct writer *writer, const rouse_address *address)
{
    if (address->family == ROUSE_IPV4) {
        put_ipv4(writer, address->bytes);
        return;
    }
    put(writer, '[');
    put_ipv6(writer, address->bytes);
    if (address->scope != 0) {
        put(writer, '%');
        put_number(writer, address->scope, 10);
    }
    put(writer, ']');
}

int rouse_address_format(const rouse_address *address, char *text, size_t size)
{
    if (text != NULL && size > 0)
        text[0] = '\0';
    if (address == NULL || (text == NULL && size > 0) ||
        (address->family != ROUSE_IPV4 && address->family != ROUSE_IPV6))
        return ROUSE_INVALID;
    struct writer writer = {.length = 0};
    put_host(&writer, address);
    put(&writer, ':');
    put_number(&writer, address->port, 10);
    if (writer.length >= size)
        return ROUSE_TOO_LARGE;
    for (size_t i = 0; i < writer.length; i++)
        text[i] = writer.text[i];
    text[writer.length] = '\0';
    return (int)writer.length;
}
