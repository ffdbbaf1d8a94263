// Package vaapitest gives tests a VA-API driver on a machine without a GPU: the sources in testdata, built by the C
// compiler, and a run of the test program in which libva finds them. What the driver does is scripted by environment
// variables, which testdata/fake_drv_video.c lists; it reads them when it is initialized, so t.Setenv in front of an
// open is enough.
package vaapitest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Node is a device that the driver takes for a render node.
const Node = os.DevNull

const inside = "VAAPITEST_DIR" // set in the run that has the driver

// Main is what TestMain calls: it builds the driver, runs the test program again with it and returns the exit status.
// sources is the path of this package's testdata.
func Main(m *testing.M, sources string) int {
	if os.Getenv(inside) != "" {
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "vaapitest-")
	if err != nil {
		return fail(err)
	}
	defer os.RemoveAll(dir)
	if err := Build(sources, dir); err != nil {
		return fail(err)
	}
	self, err := os.Executable()
	if err != nil {
		return fail(err)
	}
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Env = append(os.Environ(), inside+"="+dir, "LD_PRELOAD="+filepath.Join(dir, "drm_shim.so"),
		"LIBVA_DRIVERS_PATH="+dir, "LIBVA_DRIVER_NAME=fake")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	err = cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit) && exit.ExitCode() > 0:
		return exit.ExitCode()
	case err != nil:
		return fail(err)
	}
	return 0
}

func fail(err error) int {
	fmt.Fprintln(os.Stderr, "vaapitest:", err)
	return 1
}

// Build compiles the driver and what makes libva take any device for a render node into dir.
func Build(sources, dir string) error {
	for _, b := range []struct {
		out, source string
		libraries   []string
	}{
		{"fake_drv_video.so", "fake_drv_video.c", []string{"libva", "libdrm", "openh264"}},
		{"drm_shim.so", "drm_shim.c", []string{"libdrm"}},
	} {
		args := []string{"-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O2", "-g", "-shared", "-fPIC",
			"-o", filepath.Join(dir, b.out), filepath.Join(sources, b.source)}
		if err := Compile(args, b.libraries...); err != nil {
			return err
		}
	}
	return nil
}

// Compile runs the C compiler with what the libraries need.
func Compile(args []string, libraries ...string) error {
	flags, err := exec.Command("pkg-config", append([]string{"--cflags", "--libs"}, libraries...)...).Output()
	if err != nil {
		return fmt.Errorf("pkg-config %v: %w", libraries, err)
	}
	out, err := exec.Command("gcc", append(args, strings.Fields(string(flags))...)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("gcc: %w\n%s", err, out)
	}
	return nil
}

// Log is what drivers that start after this call write down, one line each.
type Log struct {
	t    testing.TB
	path string
}

// NewLog makes the driver write a log of its own for this test.
func NewLog(t testing.TB) *Log {
	t.Helper()
	l := &Log{t, filepath.Join(t.TempDir(), "driver.log")}
	t.Setenv("FAKE_VA_LOG", l.path)
	return l
}

// Lines returns the lines that begin with what, without it.
func (l *Log) Lines(what string) []string {
	l.t.Helper()
	raw, err := os.ReadFile(l.path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		l.t.Fatal(err)
	}
	var out []string
	for _, line := range strings.Split(string(raw), "\n") {
		if rest, ok := strings.CutPrefix(line, what+" "); ok {
			out = append(out, rest)
		} else if rest, ok := strings.CutPrefix(line, what+": "); ok {
			out = append(out, rest)
		}
	}
	return out
}

// Clean fails the test if an application broke the driver's contract or left something behind.
func (l *Log) Clean() {
	l.t.Helper()
	for _, line := range l.Lines("contract") {
		l.t.Errorf("the driver complains: %s", line)
	}
	l.Nothing()
}

// Nothing fails the test if a driver ended with something left in it, or did not end.
func (l *Log) Nothing() {
	l.t.Helper()
	ends := l.Lines("end")
	for _, line := range ends {
		if line != "configs=0 contexts=0 surfaces=0 buffers=0 images=0" {
			l.t.Errorf("left in the driver: %s", line)
		}
	}
	if began := len(l.Lines("begin")); began != len(ends) {
		l.t.Errorf("%d drivers began, %d ended", began, len(ends))
	}
}
