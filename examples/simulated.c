/* A program and its test in a simulated world (docs/simulation.md). Linked with rouse-sim.
 *
 * Clients pay into an account over a network that breaks their connections, and try again until they have an answer. What
 * must hold at the end: each payment counts once. With the argument "naive" the server forgets which payments it has seen,
 * and the simulation finds the run in which an answer was lost on its way. */
#include <rouse/rouse.h>
#include <rouse/sim.h>

#include <stdio.h>
#include <string.h>

enum { CLIENTS = 4, PAYMENTS = 10 };

/* ---- the program ---- */

struct payment {
    uint32_t client, number, amount;
};

static struct {
    int naive;              /* do not look at the numbers of payments */
    uint32_t total;         /* what was paid */
    uint32_t last[CLIENTS]; /* number of each client's last payment */
} account;

static int serve(void *stream)
{
    struct payment payment;
    while (rouse_read_exact(stream, &payment, sizeof payment, NULL) == ROUSE_OK) {
        if (account.naive || payment.number > account.last[payment.client])
            account.total += payment.amount;
        account.last[payment.client] = payment.number;
        if (rouse_write_all(stream, &account.total, sizeof account.total, NULL) != ROUSE_OK)
            break;
    }
    return rouse_close(stream);
}

/* Answers ROUSE_OK when the server has confirmed it. */
static int pay_once(const char *server, const struct payment *payment)
{
    rouse_stream *stream;
    uint32_t total;
    int status = rouse_connect(&stream, server);
    if (status != ROUSE_OK)
        return status;
    status = rouse_write_all(stream, payment, sizeof *payment, NULL);
    if (status == ROUSE_OK)
        status = rouse_read_exact(stream, &total, sizeof total, NULL);
    rouse_close(stream);
    return status;
}

static int client(void *number)
{
    struct payment payment = {.client = *(uint32_t *)number, .amount = 5};
    for (payment.number = 1; payment.number <= PAYMENTS; payment.number++)
        while (pay_once("10.0.0.1:9000", &payment) != ROUSE_OK)
            rouse_sleep(ROUSE_MS(10));
    return ROUSE_OK;
}

static int take(void *listener)
{
    return rouse_serve(listener, serve);
}

/* ---- its test: the scenario of one world ---- */

static int everybody(void *unused)
{
    rouse_scope all, clients;
    rouse_listener *listener;
    uint32_t numbers[CLIENTS];
    int status = rouse_listen(&listener, "10.0.0.1:9000", NULL);
    (void)unused;
    if (status != ROUSE_OK)
        return status;
    rouse_scope_open(&all);
    status = rouse_go(take, listener);
    rouse_scope_open(&clients);
    for (uint32_t i = 0; i < CLIENTS && status == ROUSE_OK; i++) {
        numbers[i] = i;
        status = rouse_go(client, &numbers[i]);
    }
    rouse_scope_close(&clients);
    rouse_listener_close(listener);
    rouse_scope_close(&all);
    return status;
}

static int scenario(void *naive)
{
    rouse_options options = ROUSE_OPTIONS_INIT;
    options.executor = ROUSE_EXECUTOR_SINGLE; /* the account has no lock */
    memset(&account, 0, sizeof account);      /* each world begins anew, in one process */
    account.naive = *(int *)naive;
    int status = rouse_run(everybody, NULL, &options);
    if (status == ROUSE_OK && account.total != CLIENTS * PAYMENTS * 5) {
        fprintf(stderr, "%u were paid and %u counted\n", CLIENTS * PAYMENTS * 5, (unsigned)account.total);
        status = ROUSE_FAILED;
    }
    return status;
}

int main(int argc, char **argv)
{
    int naive = argc > 1 && strcmp(argv[1], "naive") == 0;
    rouse_sim_options options = ROUSE_SIM_OPTIONS_INIT;
    options.resets = 1;   /* of a thousand reads and writes */
    options.refusals = 1; /* of a thousand connections */
    int status = rouse_sim_check("payments", scenario, &naive, &options, 200);
    if (status == ROUSE_OK)
        puts("each payment counted once");
    return rouse_exit_code(status);
}
