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
	out, err := frameBenchmark(ctx, c, "Goals", "1x")
	if n := r.pass(out); n == 0 {
		return errors.Join(fmt.Errorf("no figure in what the benchmark printed:\n%s", out), err)
	} // a missed goal is in the lines
	const rounds = 50_000
	if out, err = frameBenchmark(ctx, c, "EncryptVP8_10k", fmt.Sprintf("%dx", rounds)); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	allocations, err := line(out, `(\d+) allocs/op`)
	if err != nil {
		return err
	}
	r.add(figure{name: "e2ee_vp8_10k_allocations", unit: "allocations", value: allocations, goal: 2, stretch: none, spread: none, n: rounds})
	return nil
}

func frameBenchmark(ctx context.Context, c config, name, rounds string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", "^Benchmark"+name+"$", "-benchtime", rounds, "./daemon/e2ee")
	cmd.Dir = c.root
	out, err := cmd.CombinedOutput()
	return string(out), err
}
