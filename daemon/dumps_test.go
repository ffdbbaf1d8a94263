package daemon

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestForbidDumps(t *testing.T) {
	if err := forbidDumps(); err != nil {
		t.Fatal(err)
	}
	var core unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &core); err != nil || core.Cur != 0 || core.Max != 0 {
		t.Errorf("core files: limit %+v, %v", core, err)
	}
	if d, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); err != nil || d != 0 {
		t.Errorf("dumpable: %d, %v", d, err)
	}
}
