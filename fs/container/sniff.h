/*
 * Where the tensors of a file lie, told while the file is written: hints for
 * cutting it into chunks.  Knows torch zip archives (also several in a row, as
 * torch.distributed.checkpoint writes them), safetensors and .npy.
 */
#ifndef CFS_CONTAINER_SNIFF_H
#define CFS_CONTAINER_SNIFF_H

#include "store/chunk/chunker.h"

/*
 * Any thread; what begin() yields is one file's and used by one thread at a
 * time.  Whatever is odd ends the hints and nothing else.
 */
extern const struct cfs_sniffer_ops cfs_sniffer;

#endif
