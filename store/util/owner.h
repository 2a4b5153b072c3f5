/* What root makes in a store of somebody else is to be that one's. */
#ifndef CFS_UTIL_OWNER_H
#define CFS_UTIL_OWNER_H

/*
 * @fd, just made, gets the owner and group of the directory @like.  Nothing
 * happens but for root, and nothing that fails is told: the file is there.
 */
void cfs_owner_give(int fd, int like);
/* The directory at @path and what is in it, those of the one it is in. */
void cfs_owner_give_dir(const char *path);

#endif
