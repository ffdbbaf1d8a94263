package hub

import "syscall"

// umask sets the process's file mode mask and returns the former one.
func umask(mask int) int { return syscall.Umask(mask) }
