/* The table of nodes that the kernel knows. */
#include "fs/fuse/node.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "fs/view/view.h"
#include "store/map/source.h"
#include "tests/test.h"

static struct cfs_source *source;
static struct cfs_views *views;
static struct cfs_nodes *nodes;

static void set_up(void)
{
	struct cfs_views_options options = {.forget_trees = true};
	char path[32];

	source = cfs_source_mem_new();
	for (int i = 0; i < 3000; i++) {
		snprintf(path, sizeof(path), "f%d", i);
		ck_assert_int_eq(
			cfs_source_mem_put(source, path, path, strlen(path)),
			0);
	}
	ck_assert_int_eq(cfs_views_open(source, &options, &views, NULL), 0);
	nodes = cfs_nodes_new(cfs_views_root(views));
	ck_assert_ptr_nonnull(nodes);
}

static void tear_down(void)
{
	cfs_nodes_free(nodes);
	cfs_views_close(views);
	cfs_source_free(source);
}

static uint64_t add(const char *name, uint64_t *generation)
{
	_cleanup_(cfs_vnode_unrefp) struct cfs_vnode *root =
		cfs_views_root(views);
	_cleanup_(cfs_vnode_unrefp) struct cfs_vnode *node = NULL;
	uint64_t number = 0;

	ck_assert_int_eq(cfs_vnode_lookup(root, name, &node, NULL), 0);
	ck_assert_int_eq(cfs_nodes_add(nodes, node, &number, generation), 0);
	return number;
}

static void expect(uint64_t number, const char *path)
{
	_cleanup_(cfs_vnode_unrefp) struct cfs_vnode *node =
		cfs_nodes_vnode(nodes, number);

	ck_assert_str_eq(cfs_vnode_source_path(node), path);
}

START_TEST(test_counts)
{
	uint64_t generation, again, a = add("f1", &generation);

	ck_assert_uint_ne(a, 1);
	ck_assert_uint_eq(add("f1", &again), a);
	ck_assert_uint_eq(again, generation);
	ck_assert_uint_ne(add("f2", &again), a);
	ck_assert_uint_eq(cfs_nodes_count(nodes), 2);
	cfs_nodes_forget(nodes, a, 1);
	expect(a, "f1");
	cfs_nodes_forget(nodes, a, 1);
	ck_assert_uint_eq(cfs_nodes_count(nodes), 1);
	add("f1", &again);
	ck_assert_uint_ne(again, generation);
	expect(1, "");
	cfs_nodes_forget(nodes, 1, 100); /* the root stays */
	expect(1, "");
}
END_TEST

START_TEST(test_version)
{
	uint64_t generation, old = add("f1", &generation);

	ck_assert_int_eq(cfs_source_mem_rewrite(source, "f1", "new!", 4), 0);
	ck_assert_uint_ne(add("f1", &generation), old);
	expect(old, "f1");
}
END_TEST

START_TEST(test_many)
{
	uint64_t numbers[3000], generation;
	char path[32];

	for (int i = 0; i < 3000; i++) {
		snprintf(path, sizeof(path), "f%d", i);
		numbers[i] = add(path, &generation);
	}
	ck_assert_uint_eq(cfs_nodes_count(nodes), 3000);
	for (int i = 0; i < 3000; i++) {
		snprintf(path, sizeof(path), "f%d", i);
		expect(numbers[i], path);
		if (i % 2)
			cfs_nodes_forget(nodes, numbers[i], 1);
	}
	ck_assert_uint_eq(cfs_nodes_count(nodes), 1500);
	expect(numbers[2], "f2");
}
END_TEST

static void *come_and_go(void *arg)
{
	(void)arg;
	for (int i = 0; i < 2000; i++) {
		char path[32];
		uint64_t generation, number;

		snprintf(path, sizeof(path), "f%d", i % 7);
		number = add(path, &generation);
		expect(number, path);
		cfs_nodes_forget(nodes, number, 1);
	}
	return NULL;
}

START_TEST(test_threads)
{
	pthread_t threads[8];

	for (int i = 0; i < 8; i++)
		ck_assert_int_eq(
			pthread_create(&threads[i], NULL, come_and_go, NULL),
			0);
	for (int i = 0; i < 8; i++)
		ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
	ck_assert_uint_eq(cfs_nodes_count(nodes), 0);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("fuse_node");
	TCase *t = tcase_create("node");

	tcase_add_checked_fixture(t, set_up, tear_down);
	tcase_add_test(t, test_counts);
	tcase_add_test(t, test_version);
	tcase_add_test(t, test_many);
	tcase_add_test(t, test_threads);
	suite_add_tcase(s, t);
	return s;
}

TEST_MAIN(suite)
