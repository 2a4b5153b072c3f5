/*
 * Linked into the tests labelled `threadless`: they have no business with the
 * thread sanitizer as long as this is not called.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

int pthread_create(pthread_t *restrict thread,
		   const pthread_attr_t *restrict attr, void *(*start)(void *),
		   void *restrict arg)
{
	(void)thread;
	(void)attr;
	(void)start;
	(void)arg;
	(void)fputs("a test labelled THREADLESS makes a thread\n", stderr);
	abort();
}
