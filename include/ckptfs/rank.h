/*
 * Saving a step's tensors straight into a ckptfs store, from all ranks of a job
 * at once, and loading slices of them back.
 *
 *   cfs_rank_open ─▶ cfs_rank_save_begin ─▶ put, put_object, file_* … ─▶ commit
 *                └─▶ cfs_rank_load_open  ─▶ list, get, get_object, read
 *
 * A daemon on this machine has the store mounted; bytes go to it through shared
 * memory.  Nothing of a step is seen before commit, and then all of it is, with
 * the pointer (`latest`) that names it; or none of it, for every rank.
 *
 * Errors.  Calls return 0 (or what they say) or a negative errno; the reason in
 * words is cfs_rank_error(), of the last failed call of this thread.  Once
 * anything of a save failed on any rank, its commit fails on every rank with
 * one and the same text.
 *
 * Threads.  One handle and all that was made of it are used by one thread at a
 * time; different handles by any.  The library has a thread of its own for each
 * handle, which blocks all signals.
 *
 * Collective calls are entered by all ranks of the communicator, in the same
 * order, or by none.
 */
#ifndef CKPTFS_RANK_H
#define CKPTFS_RANK_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct cfs_rank;      /* a rank's connection to a store */
struct cfs_rank_save; /* a step being saved */
struct cfs_rank_file; /* a file of it being written */
struct cfs_rank_load; /* a step open for reading */

/* Why the last call of this thread failed; "" if none did.  Never NULL; until
 * the next call of this thread. */
const char *cfs_rank_error(void);
/* "0.1.0" */
const char *cfs_rank_version(void);

/* ---- communicators ---- */

/*
 * Who the ranks are.  Only cfs_rank_open() talks to the others through it;
 * afterwards the daemon brings them together, so that a rank that dies is an
 * error on all others and never a hang.  All ranks are on one machine.
 */
struct cfs_rank_comm {
	size_t size;		/* of this struct */
	uint32_t rank, n_ranks; /* 4096 at most */
	/* Rank 0's @len bytes at @data become everyone's.  Collective.  0 or a
	 * negative errno. */
	int (*broadcast)(void *arg, void *data, size_t len);
	void *arg;
};
/* MPI: ckptfs/rank_mpi.h. */

/* ---- opening ---- */

struct cfs_rank_progress {
	size_t size;
	const char *what;     /* "save" or "load" */
	uint64_t done_bytes;  /* taken by the daemon, or delivered */
	uint64_t total_bytes; /* put or asked for so far */
};

struct cfs_rank_options {
	size_t size; /* of this struct; members beyond are taken as 0 */
	const struct cfs_rank_comm *comm; /* NULL: alone; copied */
	/* Shared memory between this process and the daemon, 0: 256 MiB; up to
	 * 64 GiB (-EINVAL), which must be there, for every rank of it.  A put
	 * returns as soon as its bytes are in it, so a ring as large as what is
	 * saved hides all of the daemon's work. */
	uint64_t ring_bytes;
	/* How long a collective call waits for ranks that live but do not come;
	 * 0: 1800.  The same on all ranks. */
	uint32_t timeout_s;
	/* Called by the thread that put, waits or gets, at most ten times a
	 * second and at the end; or NULL. */
	void (*progress)(void *arg, const struct cfs_rank_progress *progress);
	void *progress_arg;
};

/**
 * cfs_rank_open - connect all ranks of a job to the run they save to
 * @path: the run's directory, in a mount (/mnt/ckpt/run1) or below the store's
 *        own (/data/store/run1); it need not exist below the store yet
 *
 * Collective.  -ENOTCONN: no daemon has that store mounted.  -EACCES: this user
 * may not write there (loading then still works for what may be read).
 * -ENOENT, -EINVAL: no store.  -EPROTONOSUPPORT: daemon and library are of
 * different releases.  -EREMOTE: the ranks are not all on this machine.
 * -ETIMEDOUT: a rank did not come within a minute.  -ENOMEM, -EPIPE.
 */
int cfs_rank_open(const char *path, const struct cfs_rank_options *options,
		  struct cfs_rank **rank_out);
/* Ends what is still open of it, as abort does.  A save whose commit has begun
 * is not taken back: its step may appear afterwards, and only cfs_rank_wait()
 * before tells whether it did.  NULL is fine. */
void cfs_rank_close(struct cfs_rank *rank);

/* ---- tensors ---- */

enum cfs_rank_dtype {
	CFS_RANK_F32 = 1,
	CFS_RANK_F16,
	CFS_RANK_BF16,
	CFS_RANK_F64,
	CFS_RANK_I64,
	CFS_RANK_I32,
	CFS_RANK_I16,
	CFS_RANK_I8,
	CFS_RANK_U8,
	CFS_RANK_BOOL,
};

enum cfs_rank_memory {
	CFS_RANK_HOST = 0,
	CFS_RANK_CUDA = 1, /* device memory, or managed */
};

#define CFS_RANK_DIMS_MAX 8

/*
 * A slice of a tensor of the step: the box [offset, offset + extent) of the
 * global shape, and of this box, flattened row-major, the elements
 * [flat_start, flat_start + flat_count).  flat_count 0 means all of the box.
 * ZeRO shards are flat slices; tensor parallelism makes boxes.
 *
 * Every element of a tensor must be put by some rank.  Several ranks may put
 * the same slice (replicas: the same box and flat range), and then the same
 * bytes: commit fails where they differ, as where slices overlap otherwise, and
 * names the tensor and both ranks.
 */
struct cfs_rank_tensor {
	size_t size;	  /* of this struct */
	const char *name; /* the parameter's, "transformer.wte.weight" */
	/* "weight": what the model computes with; "master": the optimizer's
	 * fp32 copy; "buffer": part of the model, not trained; else the name of
	 * an optimizer's state: "exp_avg", "exp_avg_sq", … */
	const char *role;
	uint32_t dtype; /* enum cfs_rank_dtype */
	uint32_t ndim;
	uint64_t shape[CFS_RANK_DIMS_MAX];  /* of the whole tensor */
	uint64_t offset[CFS_RANK_DIMS_MAX]; /* elements */
	uint64_t extent[CFS_RANK_DIMS_MAX];
	uint64_t flat_start, flat_count; /* elements of the box */
};

/* ---- saving ---- */

struct cfs_rank_save_options {
	size_t size; /* of this struct */
	/*
	 * What stands in the store afterwards:
	 *   "deepspeed"    model states and optimizer files for the ranks below
	 *   "universal"    DeepSpeed's universal checkpoint
	 *   "safetensors"  model.safetensors, optimizer state beside it
	 *   "files"        only what cfs_rank_file_*() wrote
	 */
	const char *format;
	/* The ranks that the files are made for; 0: 1.  "deepspeed" only. */
	uint32_t dp, tp, pp;
	int32_t zero_stage; /* 0 to 3; "deepspeed" only */
	/* The run's file that is to name the step; NULL: the format's own
	 * ("latest", "latest_universal"), "": none. */
	const char *pointer;
	/* Not 0: a step of this name is replaced at commit; else -EEXIST. */
	uint32_t replace;
};

/**
 * cfs_rank_save_begin - begin to save a step
 * @step: name of its directory in the run, "global_step1000"
 *
 * Collective; waits for all ranks.  -EINVAL: they disagree about the step or
 * the options (all ranks get the text that names both), or an option is none.
 * -EEXIST; -EPIPE: a rank is gone; -EBUSY: a save of this handle is open;
 * -EROFS, -EACCES, -ETIMEDOUT.
 */
int cfs_rank_save_begin(struct cfs_rank *rank, const char *step,
			const struct cfs_rank_save_options *options,
			struct cfs_rank_save **save_out);

/**
 * cfs_rank_put - add a slice of a tensor
 * @data:   its elements, row-major and without gaps
 * @memory: enum cfs_rank_memory, where @data points
 * @stream: CUDA: the stream on which @data was computed (a cudaStream_t; NULL
 *          is the default stream); ignored for host memory
 *
 * A stream that is being captured into a graph is -EINVAL.  Once the save has
 * failed on any rank, this fails with the reason that commit will give.
 * Host memory may be changed again when this returns.  Device memory is copied
 * on @stream: work that is put on it later may change it, anything else must
 * wait for cfs_rank_wait_copied().  Blocks while the ring is full.
 * Not collective.  -EINVAL with the tensor named; -ENOSPC, -EPIPE, …: the save
 * has failed.  -ENODEV: device memory without a usable CUDA.
 */
int cfs_rank_put(struct cfs_rank_save *save,
		 const struct cfs_rank_tensor *tensor, const void *data,
		 uint32_t memory, void *stream);
/* Waits until all device memory that was put has been copied. */
int cfs_rank_wait_copied(struct cfs_rank_save *save);

/**
 * cfs_rank_put_object - add a piece of state that is no tensor
 * @name:  one path component
 * @bytes: any, 64 MiB at most (-EFBIG: write a file), and 1 GiB of all objects
 *         of the step; copied
 *
 * Scheduler, random number generators, the user's own.  The step has it as
 * ckptfs/@name.  Each name is put by one rank, or by several with the same
 * bytes.  "deepspeed" and "universal" take some as pickles, which are decoded,
 * never executed:
 *   "param_groups"     needed: the optimizer's list; `params` are names of
 *                      parameters and tell groups and order; `step` counts the
 *                      optimizer's steps, unless tensors of role "step" do
 *   "ds_config"        a dictionary; else one that says the stage and types
 *   "client_state"     a dictionary whose keys stand in the model states beside
 *                      the framework's own: "global_steps", "lr_scheduler", …
 *   "optimizer_state"  "loss_scaler" (fp16 needs it), "dynamic_loss_scale",
 *                      "overflow", "clip_grad"
 *   "shared_params"    second names of tied parameters: {name: first name}
 *   "universal_checkpoint_info"   how parameters are cut over tp ranks
 */
int cfs_rank_put_object(struct cfs_rank_save *save, const char *name,
			const void *bytes, size_t len);

/*
 * A file of the step, written in order, from host or device memory (as
 * cfs_rank_put()).  @name may have directories.  Two ranks may not write the
 * same file, nor one that the format makes; several files may be open at once.
 * end() or abort ends it; an unfinished file makes commit fail.
 */
int cfs_rank_file_begin(struct cfs_rank_save *save, const char *name,
			struct cfs_rank_file **file_out);
int cfs_rank_file_write(struct cfs_rank_file *file, const void *data,
			uint64_t len, uint32_t memory, void *stream);
int cfs_rank_file_end(struct cfs_rank_file *file);

/**
 * cfs_rank_commit - make the step, for all ranks or for none
 *
 * Collective.  Begins the commit and returns once all that was put is in shared
 * memory; cfs_rank_wait() has the result.  No put may follow.  Also where a put
 * failed on this rank: all ranks then hear why.  A forked child has no part in
 * a save (-EPERM).
 */
int cfs_rank_commit(struct cfs_rank_save *save);
/**
 * cfs_rank_wait - the result of a commit
 *
 * Blocks.  0: the step and its pointer are there, and durable.  Else nothing of
 * it is, and all ranks get the same errno and text.  Ends @save in any case.
 */
int cfs_rank_wait(struct cfs_rank_save *save);
/* 1: cfs_rank_wait() would not block; 0. */
int cfs_rank_test(struct cfs_rank_save *save);
/* Nothing of it is saved; ends @save.  Not collective: the other ranks' commit
 * fails and says who aborted and @reason (NULL: none).  NULL @save is fine. */
void cfs_rank_abort(struct cfs_rank_save *save, const char *reason);

/* ---- loading ---- */

/**
 * cfs_rank_load_open - open a step for reading
 * @step: name of its directory; NULL: the step to resume from (what `latest`
 *        names, or the newest whole one before it)
 *
 * Not collective.  The step stays as it was opened, also while it is removed.
 * All that loads waits while a commit of the same handle is under way; another
 * handle need not.
 * -ENOENT, -EACCES, -EINVAL, -ENOTSUP (its tensors cannot be told for certain:
 * the reason names what; files can still be read).
 */
int cfs_rank_load_open(struct cfs_rank *rank, const char *step,
		       struct cfs_rank_load **load_out);
void cfs_rank_load_close(struct cfs_rank_load *load);
/* "global_step1000"; lives as long as @load. */
const char *cfs_rank_load_step(const struct cfs_rank_load *load);

/* Every tensor, whole (offset 0, extent = shape), in the step's order.
 * Non-zero from @fn stops and is returned. */
int cfs_rank_list(struct cfs_rank_load *load,
		  int (*fn)(void *arg, const struct cfs_rank_tensor *tensor),
		  void *arg);
/**
 * cfs_rank_get - any slice of any tensor, however it was saved
 * @tensor: dtype may differ from the saved one where both are floating point:
 *          rounded to nearest even
 * @data:   room for its elements, row-major and without gaps
 *
 * Host: filled when this returns.  Device: filled for work that is put on
 * @stream later.  -ENOENT no such tensor; -EINVAL outside its shape; -EIO
 * damaged; -ENOTSUP.
 */
int cfs_rank_get(struct cfs_rank_load *load,
		 const struct cfs_rank_tensor *tensor, void *data,
		 uint32_t memory, void *stream);
/* What cfs_rank_put_object() put: *bytes_out is malloc()ed, the caller's. */
int cfs_rank_get_object(struct cfs_rank_load *load, const char *name,
			void **bytes_out, size_t *len_out);
/* Size of a file of the step. */
int cfs_rank_file_size(struct cfs_rank_load *load, const char *name,
		       uint64_t *size_out);
/* Exactly @len bytes at @off of it, as cfs_rank_get(). */
int cfs_rank_file_read(struct cfs_rank_load *load, const char *name,
		       uint64_t off, uint64_t len, void *data, uint32_t memory,
		       void *stream);

#ifdef __cplusplus
}
#endif

#endif
