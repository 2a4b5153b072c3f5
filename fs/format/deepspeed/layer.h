/*
 * Parameters by layer: what a name says, in the forms there are.
 * Private to fs/format/deepspeed.
 *
 *   pipeline     3.attention.dense.weight
 *   tied         tied_modules.embed.word_embeddings.weight
 *   sequential   sequential.3.attention.dense.weight
 *   prefixed     language_model.encoder.layers.3.self_attention.dense.weight
 *
 * Rules: DeepSpeed 0.19.8 runtime/pipe/module.py; GPT-NeoX ea7aefd8
 * megatron/model/utils.py (SequentialWrapper); Megatron-DeepSpeed 4efb479d
 * megatron/model/language_model.py.
 */
#ifndef CFS_FORMAT_DEEPSPEED_LAYER_H
#define CFS_FORMAT_DEEPSPEED_LAYER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum cfs_ds_form {
	CFS_DS_FORM_PLAIN, /* not by layer */
	CFS_DS_FORM_PIPELINE,
	CFS_DS_FORM_TIED,
	CFS_DS_FORM_SEQUENTIAL,
	CFS_DS_FORM_PREFIXED, /* Megatron's without pipeline: of no number */
};

struct cfs_ds_layer_name {
	enum cfs_ds_form form;
	uint32_t layer;	 /* PIPELINE, SEQUENTIAL */
	const char *key; /* TIED; PREFIXED: what is before; key_len bytes */
	size_t key_len;
	const char *name; /* in the layer; PLAIN: the whole */
};

/* Pointers into @full. */
struct cfs_ds_layer_name cfs_ds_layer_parse(const char *full);
/* Into @buf; -ENAMETOOLONG. */
int cfs_ds_layer_format(const struct cfs_ds_layer_name *name, char *buf,
			size_t size);

struct cfs_ds_family;

/*
 * What steps of one model call a parameter alike, whatever their form; what
 * @family (or NULL) ties is of its embedding's layer.  Into @buf;
 * -ENAMETOOLONG.
 */
int cfs_ds_layer_key(const struct cfs_ds_layer_name *name,
		     const struct cfs_ds_family *family, char *buf,
		     size_t size);

#endif
