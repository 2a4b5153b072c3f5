/*
 * The table of nodes: chains by the vnode's key.  A node's number is its
 * address with the top bit set, which no address of a process has; the kernel
 * names a number only while it holds look-ups of it.
 */
#include "fs/fuse/node.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>

#include "fs/view/view.h"

#define BUCKETS_MIN 1024u
#define ROOT_NUMBER 1u

struct node {
	struct node *next; /* in its bucket */
	uint64_t key, generation, lookups;
	struct cfs_vnode *vnode; /* the latest with this key */
};

struct cfs_nodes {
	pthread_mutex_t lock; /* guards all below, and the nodes */
	struct node **buckets;
	size_t n_buckets, n;
	uint64_t generations;
	struct cfs_vnode *root; /* constant */
};

struct cfs_nodes *cfs_nodes_new(struct cfs_vnode *root)
{
	struct cfs_nodes *nodes = calloc(1, sizeof(*nodes));

	if (!nodes)
		return NULL;
	nodes->buckets = calloc(BUCKETS_MIN, sizeof(*nodes->buckets));
	if (!nodes->buckets) {
		free(nodes);
		return NULL;
	}
	nodes->n_buckets = BUCKETS_MIN;
	nodes->root = root;
	pthread_mutex_init(&nodes->lock, NULL);
	return nodes;
}

void cfs_nodes_free(struct cfs_nodes *nodes)
{
	struct node *node, *next;
	size_t i;

	if (!nodes)
		return;
	for (i = 0; i < nodes->n_buckets; i++)
		for (node = nodes->buckets[i]; node; node = next) {
			next = node->next;
			cfs_vnode_unref(node->vnode);
			free(node);
		}
	cfs_vnode_unref(nodes->root);
	pthread_mutex_destroy(&nodes->lock);
	free(nodes->buckets);
	free(nodes);
}

static struct node *node_of(uint64_t number)
{
	/* set by cfs_nodes_add() */
	return (struct node *)(uintptr_t)(number & ~CFS_NODE_BIT);
}

/* ---- with the lock ---- */

static struct node **find(struct cfs_nodes *nodes, uint64_t key)
{
	struct node **p = &nodes->buckets[key & (nodes->n_buckets - 1)];

	while (*p && (*p)->key != key)
		p = &(*p)->next;
	return p;
}

/* Doubles; longer chains where there is no memory for it. */
static void grow(struct cfs_nodes *nodes)
{
	size_t n = nodes->n_buckets * 2, i;
	struct node **buckets = calloc(n, sizeof(*buckets));
	struct node *node, *next, **p;

	if (!buckets)
		return;
	for (i = 0; i < nodes->n_buckets; i++)
		for (node = nodes->buckets[i]; node; node = next) {
			next = node->next;
			p = &buckets[node->key & (n - 1)];
			node->next = *p;
			*p = node;
		}
	free(nodes->buckets);
	nodes->buckets = buckets;
	nodes->n_buckets = n;
}

static struct node *insert(struct cfs_nodes *nodes, uint64_t key)
{
	struct node **p, *node = calloc(1, sizeof(*node));

	if (!node)
		return NULL;
	if (nodes->n >= nodes->n_buckets)
		grow(nodes);
	node->key = key;
	node->generation = ++nodes->generations;
	p = &nodes->buckets[key & (nodes->n_buckets - 1)];
	node->next = *p;
	*p = node;
	nodes->n++;
	return node;
}

/* ---- the calls ---- */

int cfs_nodes_add(struct cfs_nodes *nodes, struct cfs_vnode *vnode,
		  uint64_t *number_out, uint64_t *generation_out)
{
	uint64_t key = cfs_vnode_key(vnode);
	struct cfs_vnode *old = NULL;
	struct node *node;

	pthread_mutex_lock(&nodes->lock);
	node = *find(nodes, key);
	if (!node)
		node = insert(nodes, key);
	if (node) {
		/* The same object, perhaps under another path now. */
		old = node->vnode;
		node->vnode = cfs_vnode_ref(vnode);
		node->lookups++;
		*number_out = (uint64_t)(uintptr_t)node | CFS_NODE_BIT;
		*generation_out = node->generation;
	}
	pthread_mutex_unlock(&nodes->lock);
	cfs_vnode_unref(old);
	return node ? 0 : -ENOMEM;
}

void cfs_nodes_forget(struct cfs_nodes *nodes, uint64_t number, uint64_t n)
{
	struct cfs_vnode *vnode = NULL;
	struct node *node, **p;

	if (number == ROOT_NUMBER)
		return;
	node = node_of(number);
	pthread_mutex_lock(&nodes->lock);
	assert(node->lookups >= n);
	node->lookups -= n;
	if (!node->lookups) {
		p = find(nodes, node->key);
		assert(*p == node);
		*p = node->next;
		nodes->n--;
		vnode = node->vnode;
		free(node);
	}
	pthread_mutex_unlock(&nodes->lock);
	cfs_vnode_unref(vnode);
}

struct cfs_vnode *cfs_nodes_vnode(struct cfs_nodes *nodes, uint64_t number)
{
	struct cfs_vnode *vnode;

	if (number == ROOT_NUMBER)
		return cfs_vnode_ref(nodes->root);
	pthread_mutex_lock(&nodes->lock);
	vnode = cfs_vnode_ref(node_of(number)->vnode);
	pthread_mutex_unlock(&nodes->lock);
	return vnode;
}

size_t cfs_nodes_count(struct cfs_nodes *nodes)
{
	size_t n;

	pthread_mutex_lock(&nodes->lock);
	n = nodes->n;
	pthread_mutex_unlock(&nodes->lock);
	return n;
}
