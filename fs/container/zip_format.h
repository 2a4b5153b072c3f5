/* Signatures and sizes of zip structures; internal to zip_*.c. */
#ifndef CFS_CONTAINER_ZIP_FORMAT_H
#define CFS_CONTAINER_ZIP_FORMAT_H

#define ZIP_LOCAL_SIG	   0x04034b50u
#define ZIP_LOCAL_SIZE	   30
#define ZIP_DESCRIPTOR_SIG 0x08074b50u
#define ZIP_CENTRAL_SIG	   0x02014b50u
#define ZIP_CENTRAL_SIZE   46
#define ZIP_END_SIG	   0x06054b50u
#define ZIP_END_SIZE	   22
#define ZIP_END64_SIG	   0x06064b50u
#define ZIP_END64_SIZE	   56
#define ZIP_LOCATOR_SIG	   0x07064b50u
#define ZIP_LOCATOR_SIZE   20

#define ZIP_EXTRA64 0x0001 /* extra field: 64-bit sizes and offset */

#define ZIP_FLAG_ENCRYPTED  0x0001
#define ZIP_FLAG_DESCRIPTOR 0x0008
#define ZIP_FLAG_PATCH	    0x0020
#define ZIP_FLAG_STRONG	    0x0040
#define ZIP_FLAG_UTF8	    0x0800
#define ZIP_FLAG_MASKED	    0x2000
#define ZIP_FLAGS_REFUSED                                                      \
	(ZIP_FLAG_ENCRYPTED | ZIP_FLAG_PATCH | ZIP_FLAG_STRONG |               \
	 ZIP_FLAG_MASKED)

#define ZIP_STORED   0
#define ZIP_DEFLATED 8

#endif
