package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"net"
)

// programs are those whose size is told.
var programs = []string{"alcoved", "alcove-capture", "alcove-hub", "alcovectl"}

// measureStart measures how long the daemon takes from its start until it can be pressed, and the programs' sizes.
func measureStart(ctx context.Context, c config, r *report) error {
	for _, name := range programs {
		info, err := os.Stat(filepath.Join(c.bin, name))
		if err != nil {
			return err
		}
		r.add(figure{name: "size_of_" + name, unit: "MiB", value: float64(info.Size()) / (1 << 20), goal: none, stretch: none, spread: none, n: 1})
	}
	dir, err := os.MkdirTemp("", "alcove-start-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	conf := filepath.Join(dir, "alcoved.yaml")
	text := fmt.Sprintf("state_dir: %q\nrun_dir: %q\nclaim: %q\ncapture: [\"/bin/false\"]\nmetrics: \"\"\n",
		filepath.Join(dir, "state"), filepath.Join(dir, "run"), filepath.Join(dir, "claim.json"))
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		return err
	}
	var all []float64
	for range c.pairs + 1 {
		ms, err := startOnce(ctx, c, conf, filepath.Join(dir, "run", "control.sock"))
		if err != nil {
			return err
		}
		all = append(all, ms)
	}
	r.add(figure{name: "daemon_first_start", unit: "ms", value: all[0], goal: none, stretch: none, spread: none, n: 1,
		comparison: "makes its keys and its log"})
	r.add(figure{name: "daemon_start", unit: "ms", value: median(all[1:]), goal: none, stretch: none, spread: none, n: c.pairs})
	return nil
}

func startOnce(ctx context.Context, c config, conf, socket string) (ms float64, err error) {
	cmd := exec.CommandContext(ctx, filepath.Join(c.bin, "alcoved"), "serve", "--config", conf)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	defer func() {
		if e := cmd.Process.Signal(syscall.SIGTERM); e != nil {
			err = errors.Join(err, e)
		}
		err = errors.Join(err, cmd.Wait())
	}()
	for deadline := began.Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		conn, err := net.Dial("unix", socket)
		if err == nil {
			conn.Close()
			return float64(time.Since(began).Microseconds()) / 1000, nil
		}
		if time.Now().After(deadline) {
			return 0, fmt.Errorf("the daemon cannot be pressed 10 s after its start: %w", err)
		}
	}
}
