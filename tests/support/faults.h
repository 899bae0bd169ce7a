/* Making things fail on purpose, and counting heap blocks. Works on calls from the files that are linked into the test
 * program, which the library's are: the linker sends them through wrappers (wrapped_symbols.txt names them). */
#ifndef TEST_SUPPORT_FAULTS_H
#define TEST_SUPPORT_FAULTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Compilers spell it differently. */
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define FAULTS_ADDRESS_SANITIZER 1
#endif
#if __has_feature(thread_sanitizer)
#define FAULTS_THREAD_SANITIZER 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) && !defined(FAULTS_ADDRESS_SANITIZER)
#define FAULTS_ADDRESS_SANITIZER 1
#endif
#if defined(__SANITIZE_THREAD__) && !defined(FAULTS_THREAD_SANITIZER)
#define FAULTS_THREAD_SANITIZER 1
#endif
#if !defined(FAULTS_ADDRESS_SANITIZER)
#define FAULTS_ADDRESS_SANITIZER 0
#endif
#if !defined(FAULTS_THREAD_SANITIZER)
#define FAULTS_THREAD_SANITIZER 0
#endif
#define FAULTS_SANITIZED (FAULTS_ADDRESS_SANITIZER || FAULTS_THREAD_SANITIZER)

/* Undoes everything that the calls below have set up. */
void faults_reset(void);

/* ---- heap blocks (for the harness) ---- */

void faults_blocks_begin(void);    /* blocks count from now on */
size_t faults_blocks_alive(void);  /* how many of them are alive; 0 under a sanitizer */
void faults_blocks_report(void);   /* prints the size and the origin of some of them */

#endif
