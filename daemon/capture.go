package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/alcove-room/alcove/mediacap"
)

// stopGrace is how long a capture process may take to close its devices before it is killed.
const stopGrace = 500 * time.Millisecond

// launcher starts the capture process and hands over the daemon's end of its socket. Under a service
// manager the process is a unit of its own; here it is a child.
type launcher interface {
	launch(ctx context.Context, want captureSettings) (captureProcess, error)
}

// captureSettings is what the clinic's configuration asks of the capture process.
type captureSettings struct {
	width, height, fps int
	videoBPS, audioBPS int
}

func (w captureSettings) arguments() []string {
	return []string{
		fmt.Sprintf("--size=%dx%d", w.width, w.height), fmt.Sprintf("--fps=%d", w.fps),
		fmt.Sprintf("--video-bitrate=%d", w.videoBPS), fmt.Sprintf("--audio-bitrate=%d", w.audioBPS),
	}
}

// captureProcess is one running capture process: reading gives its messages, writing sends requests.
// Close ends it and returns when its devices are closed.
type captureProcess interface {
	io.Reader
	io.Writer
	Close() error
}

// childLauncher runs the capture program as a child that holds one end of a socket pair as descriptor 3 and
// nothing else of ours: no environment beyond what finding devices needs, no standard input.
type childLauncher struct {
	command []string
	log     *slog.Logger
}

type child struct {
	*os.File
	cmd  *exec.Cmd
	done chan struct{}
	once sync.Once
	err  error
}

func (l *childLauncher) launch(ctx context.Context, want captureSettings) (captureProcess, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("socket pair for the capture process: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "capture"), os.NewFile(uintptr(pair[1]), "capture-child")
	defer theirs.Close()
	cmd := exec.Command(l.command[0], append(slices.Clone(l.command[1:]), want.arguments()...)...)
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.Env = childEnvironment(os.Environ())
	cmd.Stderr = &logWriter{log: l.log}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := cmd.Start(); err != nil {
		ours.Close()
		return nil, fmt.Errorf("start the capture process: %w", err)
	}
	c := &child{File: ours, cmd: cmd, done: make(chan struct{})}
	go func() {
		c.err = cmd.Wait()
		close(c.done)
	}()
	if ctx.Err() != nil {
		return nil, errors.Join(ctx.Err(), c.Close())
	}
	return c, nil
}

// Close asks the process to stop, waits, and kills it if it does not.
func (c *child) Close() error {
	c.once.Do(func() {
		_ = mediacap.NewRequestWriter(c.File).Send(mediacap.Stop{}) // a process that is gone has stopped
		select {
		case <-c.done:
		case <-time.After(stopGrace):
			_ = c.cmd.Process.Kill()
			<-c.done
		}
		c.File.Close()
	})
	var exit *exec.ExitError
	if errors.As(c.err, &exit) {
		return fmt.Errorf("capture process: %w", c.err)
	}
	return nil
}

// childEnvironment keeps what the sound server and the locale need. Nothing else of ours is the child's business.
func childEnvironment(all []string) []string {
	keep := []string{"PATH=", "LANG=", "LC_", "XDG_RUNTIME_DIR=", "PULSE_", "PIPEWIRE_", "HOME="}
	var out []string
	for _, kv := range all {
		for _, k := range keep {
			if strings.HasPrefix(kv, k) {
				out = append(out, kv)
			}
		}
	}
	return out
}

// logWriter turns the child's standard error into log lines, at most 500 bytes each: the child is not trusted
// with the size of our log.
type logWriter struct {
	log  *slog.Logger
	line []byte
}

func (w *logWriter) Write(p []byte) (int, error) {
	for _, b := range p {
		if b != '\n' {
			if len(w.line) < 500 {
				w.line = append(w.line, b)
			}
			continue
		}
		if len(w.line) > 0 {
			w.log.Info("capture process says", "line", string(w.line))
		}
		w.line = w.line[:0]
	}
	return len(p), nil
}
