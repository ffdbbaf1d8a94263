package daemon

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// forbidDumps keeps the process's memory, which holds a session's keys, out of core files and away from
// other processes of the same user: no ptrace, no /proc/<pid>/mem (prctl(2) PR_SET_DUMPABLE, getrlimit(2)
// RLIMIT_CORE). Root can read it all the same. A process that cannot be protected does not start.
func forbidDumps() error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("forbid core files: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("forbid reading of this process's memory: %w", err)
	}
	return nil
}
