/* Names by layer, and modules that are trees of dictionaries. */
#include "fs/format/deepspeed/layer.h"

#include <errno.h>
#include <string.h>

#include "fs/format/deepspeed/module_tree.h"
#include "tests/test.h"

static void expect(const char *full, enum cfs_ds_form form, uint32_t layer,
		   const char *name)
{
	struct cfs_ds_layer_name n = cfs_ds_layer_parse(full);
	char buf[128];

	ck_assert_msg(n.form == form, "%s", full);
	ck_assert_uint_eq(n.layer, layer);
	ck_assert_str_eq(n.name, name);
	ck_assert_int_eq(cfs_ds_layer_format(&n, buf, sizeof(buf)), 0);
	ck_assert_str_eq(buf, full);
	ck_assert_int_eq(cfs_ds_layer_format(&n, buf, 3), -ENAMETOOLONG);
}

START_TEST(forms)
{
	expect("3.attention.dense.weight", CFS_DS_FORM_PIPELINE, 3,
	       "attention.dense.weight");
	expect("74.weight", CFS_DS_FORM_PIPELINE, 74, "weight");
	expect("tied_modules.embed.word_embeddings.norm.bias", CFS_DS_FORM_TIED,
	       0, "word_embeddings.norm.bias");
	expect("sequential.3.norm.scale", CFS_DS_FORM_SEQUENTIAL, 3,
	       "norm.scale");
	expect("language_model.encoder.layers.12.mlp.dense_h_to_4h.weight",
	       CFS_DS_FORM_PREFIXED, 0, "mlp.dense_h_to_4h.weight");
	expect("language_model.encoder.final_layernorm.weight",
	       CFS_DS_FORM_PREFIXED, 0, "final_layernorm.weight");
	expect("language_model.embedding.word_embeddings.weight",
	       CFS_DS_FORM_PREFIXED, 0, "word_embeddings.weight");
	expect("language_model.output_layer.weight", CFS_DS_FORM_PREFIXED, 0,
	       "output_layer.weight");
	/* other models' */
	expect("language_model.model.layers.0.mlp.up_proj.weight",
	       CFS_DS_FORM_PLAIN, 0,
	       "language_model.model.layers.0.mlp.up_proj.weight");
	expect("language_model.encoder.layers.x.weight", CFS_DS_FORM_PLAIN, 0,
	       "language_model.encoder.layers.x.weight");
	expect("language_model.encoder.", CFS_DS_FORM_PLAIN, 0,
	       "language_model.encoder.");
	expect("model.norm.weight", CFS_DS_FORM_PLAIN, 0, "model.norm.weight");
}
END_TEST

START_TEST(trees)
{
	_cleanup_(cfs_pickle_freep) struct cfs_pickle *doc =
		cfs_pickle_new(NULL);
	struct cfs_node *tree = cfs_node_dict(doc), *a = cfs_node_dict(doc);
	struct cfs_node *b = cfs_node_ordereddict(doc), *flat, *back;

	cfs_node_set_str(doc, tree, "model", a);
	cfs_node_set_str(doc, a, "encoder", b);
	cfs_node_set_str(doc, b, "layers.0.weight", cfs_node_int(doc, 1));
	cfs_node_set_str(doc, b, "layers.1.weight", cfs_node_int(doc, 2));
	cfs_node_set_str(doc, a, "none", cfs_node_dict(doc));
	ck_assert(cfs_ds_module_is_tree(tree));
	ck_assert(!cfs_ds_module_is_tree(b));
	ck_assert(!cfs_ds_module_is_tree(cfs_node_dict(doc)));
	ck_assert(!cfs_ds_module_is_tree(NULL));
	flat = cfs_ds_module_flat(doc, tree);
	ck_assert_uint_eq(cfs_map_node_count(flat), 2);
	ck_assert_int_eq(
		cfs_node_get(flat, "model.encoder.layers.1.weight")->u.integer,
		2);
	/* other values, the same tree */
	cfs_node_replace(doc, flat, "model.encoder.layers.0.weight",
			 cfs_node_int(doc, 7));
	back = cfs_ds_module_nest(doc, tree, flat);
	ck_assert(!cfs_node_equal(back, tree));
	ck_assert_int_eq(cfs_node_get(cfs_node_get(cfs_node_get(back, "model"),
						   "encoder"),
				      "layers.0.weight")
				 ->u.integer,
			 7);
	ck_assert_int_eq(cfs_node_get(b, "layers.0.weight")->u.integer, 1);
	ck_assert(cfs_node_equal(
		cfs_ds_module_nest(doc, tree, cfs_ds_module_flat(doc, tree)),
		tree));
	/* a name that is not there */
	ck_assert_ptr_null(
		cfs_ds_module_nest(doc, tree, cfs_node_ordereddict(doc)));
}
END_TEST

START_TEST(too_deep)
{
	_cleanup_(cfs_pickle_freep) struct cfs_pickle *doc =
		cfs_pickle_new(NULL);
	struct cfs_node *tree = cfs_node_dict(doc);

	for (int i = 0; i < 20; i++) {
		struct cfs_node *outer = cfs_node_dict(doc);

		cfs_node_set_str(doc, outer, "a", tree);
		tree = outer;
	}
	ck_assert(cfs_ds_module_is_tree(tree));
	ck_assert_ptr_null(cfs_ds_module_flat(doc, tree));
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("layer");
	TCase *tc = tcase_create("layer");

	tcase_add_test(tc, forms);
	tcase_add_test(tc, trees);
	tcase_add_test(tc, too_deep);
	suite_add_tcase(s, tc);
	return s;
}

TEST_MAIN(suite)
