/* What all engines share. */
#include "store/pack/engine.h"

void cfs_engine_close(struct cfs_engine *engine)
{
	if (engine)
		engine->ops->close(engine);
}
