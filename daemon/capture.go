package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
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

const (
	// stopGrace is how long a capture process may take to close its devices before it is killed.
	stopGrace = 500 * time.Millisecond
	// writeGrace is how long a capture process may leave a request unread before it counts as stuck.
	writeGrace = 200 * time.Millisecond
)

// launcher starts the capture process and hands over the daemon's end of its socket. Under a service
// manager the process is a unit of its own; here it is a child.
type launcher interface {
	launch(ctx context.Context, want captureSettings) (captureProcess, error)
}

// captureSettings is what the clinic's configuration asks of the capture process.
type captureSettings struct {
	codec              mediacap.Codec // of the picture
	width, height, fps int
	videoBPS, audioBPS int
}

func (w captureSettings) arguments() []string {
	return []string{
		"--codec=" + w.codec.String(),
		fmt.Sprintf("--size=%dx%d", w.width, w.height), fmt.Sprintf("--fps=%d", w.fps),
		fmt.Sprintf("--video-bitrate=%d", w.videoBPS), fmt.Sprintf("--audio-bitrate=%d", w.audioBPS),
	}
}

// captureProcess is one running capture process: reading gives its messages, writing sends requests.
// Close ends it, whatever it does, and returns when its devices are closed; a Read or Write that waits returns then.
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
	socket *os.File
	cmd    *exec.Cmd
	done   chan struct{} // closed when the process has been waited for
	once   sync.Once
	err    error // of Wait; after done
}

func (l *childLauncher) launch(ctx context.Context, want captureSettings) (captureProcess, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("socket pair for the capture process: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "capture"), os.NewFile(uintptr(pair[1]), "capture-child")
	defer theirs.Close()
	// What we inherited ourselves, from a shell for instance, is not marked to be closed as what we opened is.
	if err := unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		ours.Close()
		return nil, fmt.Errorf("keep our descriptors from the capture process: %w", err)
	}
	cmd := exec.Command(l.command[0], append(slices.Clone(l.command[1:]), want.arguments()...)...)
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.Env = childEnvironment(os.Environ())
	cmd.Stderr = &logWriter{log: l.log}
	cmd.WaitDelay = writeGrace // for whoever inherited its standard error and stays
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := cmd.Start(); err != nil {
		ours.Close()
		return nil, fmt.Errorf("start the capture process: %w", err)
	}
	c := &child{socket: ours, cmd: cmd, done: make(chan struct{})}
	go c.reap()
	if ctx.Err() != nil {
		return nil, errors.Join(ctx.Err(), c.Close())
	}
	return c, nil
}

// reap waits for the process. What it started and left behind could keep a device open, so its group is killed while
// the process is still a zombie: its number cannot be anybody else's yet.
func (c *child) reap() {
	pid := c.cmd.Process.Pid
	for errors.Is(unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil), unix.EINTR) {
	}
	_ = unix.Kill(-pid, unix.SIGKILL) // most often nobody is left
	c.err = c.cmd.Wait()
	close(c.done)
}

// Read reads what the process sends.
func (c *child) Read(p []byte) (int, error) { return c.socket.Read(p) }

// Write sends p, or fails when the process does not read.
func (c *child) Write(p []byte) (int, error) {
	if err := c.socket.SetWriteDeadline(time.Now().Add(writeGrace)); err != nil {
		return 0, fmt.Errorf("write to the capture process: %w", err)
	}
	return c.socket.Write(p)
}

// Close asks the process to stop, waits, and kills it with everything it started if it does not.
func (c *child) Close() error {
	killed := false
	c.once.Do(func() {
		defer c.socket.Close()
		grace := time.NewTimer(stopGrace)
		defer grace.Stop()
		_ = mediacap.NewRequestWriter(c).Send(mediacap.Stop{}) // one that is gone has stopped, one that is stuck is killed
		select {
		case <-c.done:
		case <-grace.C:
			killed = true
			_ = c.cmd.Process.Kill()
			<-c.done
		}
	})
	var exit *exec.ExitError
	switch {
	case killed:
		return errors.New("capture process: it did not stop and was killed")
	case errors.As(c.err, &exit):
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

// logWriter turns the child's standard error into log lines. The child is not trusted with the size of our log:
// a line has at most 500 bytes, and beyond a first burst there is one line a second; what is left out is counted.
type logWriter struct {
	log    *slog.Logger
	line   []byte
	budget int
	since  time.Time
	left   int
}

const (
	logLine  = 500 // bytes
	logBurst = 50  // lines
)

func (w *logWriter) Write(p []byte) (int, error) {
	for _, b := range p {
		if b != '\n' {
			if len(w.line) < logLine {
				w.line = append(w.line, b)
			}
			continue
		}
		w.flush()
	}
	return len(p), nil
}

func (w *logWriter) flush() {
	line := w.line
	w.line = w.line[:0]
	if len(line) == 0 {
		return
	}
	now := time.Now()
	if w.since.IsZero() {
		w.budget, w.since = logBurst, now
	}
	if more := int(now.Sub(w.since) / time.Second); more > 0 {
		w.budget, w.since = min(w.budget+more, logBurst), now
	}
	if w.budget == 0 {
		w.left++
		return
	}
	w.budget--
	if w.left > 0 {
		w.log.Warn("capture process says too much", "lines_left_out", w.left)
		w.left = 0
	}
	w.log.Info("capture process says", "line", string(line))
}
