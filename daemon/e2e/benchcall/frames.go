package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
)

// measureFrames runs the comparison of daemon/e2ee, whose rivals are in its test files: nothing but tests may use raw
// AES-GCM and the SDK's encryptor.
func measureFrames(ctx context.Context, c config, r *report) error {
	cmd := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", "^BenchmarkGoals$", "-benchtime", "1x", "./daemon/e2ee")
	cmd.Dir = c.root
	out, err := cmd.CombinedOutput()
	if n := r.pass(string(out)); n == 0 {
		return errors.Join(fmt.Errorf("no figure in what the benchmark printed:\n%s", out), err)
	}
	return nil // a missed goal is in the lines
}
