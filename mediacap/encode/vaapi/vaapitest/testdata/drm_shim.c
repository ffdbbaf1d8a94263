// Makes libva take any device for a render node: libva's DRM back end looks for /sys/dev/char/M:m/device/drm, which
// only a GPU has. Preloaded, or linked into a program that exports its symbols.
#include <stdlib.h>
#include <string.h>
#include <xf86drm.h>

int drmGetNodeTypeFromFd(int fd) {
	(void)fd;
	return DRM_NODE_RENDER;
}

drmVersionPtr drmGetVersion(int fd) {
	(void)fd;
	drmVersionPtr v = calloc(1, sizeof *v);
	if (v) {
		v->name = strdup("fake");
		v->name_len = 4;
	}
	return v;
}

void drmFreeVersion(drmVersionPtr v) {
	if (v)
		free(v->name);
	free(v);
}
