package sfu

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Restart and stop.
const (
	backoffFirst = 100 * time.Millisecond
	backoffMost  = 2 * time.Second
	steady       = 30 * time.Second // a child that ran this long starts the back-off anew
	probeEvery   = 25 * time.Millisecond
	startTimeout = 20 * time.Second
	drain        = 500 * time.Millisecond // between the two SIGTERMs
	killAfter    = 5 * time.Second
)

// Supervisor keeps one child running.
type Supervisor struct {
	config  Config
	command []string // program and arguments that end up in Child
	log     *slog.Logger
	ready   func() // called each time a child answers

	pid  atomic.Int64
	up   prometheus.Gauge
	runs prometheus.Counter
}

// NewSupervisor returns a supervisor; command is the program and its arguments. ready is called each time that a
// started child answers, from Run's goroutine, and must not block.
func NewSupervisor(c Config, command []string, log *slog.Logger, ready func()) (*Supervisor, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("media server: %w", err)
	}
	if len(command) == 0 {
		return nil, errors.New("media server: no command")
	}
	return &Supervisor{
		config: c, command: command, log: log, ready: ready,
		up:   prometheus.NewGauge(prometheus.GaugeOpts{Name: "alcove_hub_sfu_up", Help: "1 while the media server answers."}),
		runs: prometheus.NewCounter(prometheus.CounterOpts{Name: "alcove_hub_sfu_starts_total", Help: "Starts of the media server."}),
	}, nil
}

// Metrics returns the collectors to register.
func (s *Supervisor) Metrics() []prometheus.Collector { return []prometheus.Collector{s.up, s.runs} }

// PID is the running child's process id; 0 while there is none.
func (s *Supervisor) PID() int { return int(s.pid.Load()) }

// Run starts the child and starts it again whenever it ends, until ctx ends; then it stops the child.
func (s *Supervisor) Run(ctx context.Context) error {
	// The parent-death signal fires when the *thread* that started the child ends (prctl(2), PR_SET_PDEATHSIG), so
	// this goroutine keeps its thread for as long as it keeps children.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	wait := backoffFirst
	for {
		began := time.Now()
		err := s.once(ctx)
		s.pid.Store(0)
		s.up.Set(0)
		if ctx.Err() != nil {
			return nil
		}
		if time.Since(began) > steady {
			wait = backoffFirst
		}
		s.log.Error("the media server ended; it will be started again", "err", err, "wait", wait)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		wait = min(2*wait, backoffMost)
	}
}

// once runs one child from start to end.
func (s *Supervisor) once(ctx context.Context) error {
	config, err := json.Marshal(s.config)
	if err != nil {
		return err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("make pipe: %w", err)
	}
	defer w.Close() // tells a child that outlived everything else to end
	cmd := exec.Command(s.command[0], s.command[1:]...)
	cmd.Env = []string{} // nothing of ours concerns it
	cmd.ExtraFiles = []*os.File{r}
	// A process group of its own: Ctrl-C in a terminal goes to the hub, which stops the child in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StderrPipe()
	if err != nil {
		return errors.Join(err, r.Close())
	}
	cmd.Stdout = nil
	err = cmd.Start()
	if cerr := r.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("start: %w", err)
	}
	s.runs.Inc()
	s.pid.Store(int64(cmd.Process.Pid))
	var logs sync.WaitGroup
	logs.Go(func() { s.copyLog(out) })
	ended := make(chan error, 1)
	go func() {
		logs.Wait() // Wait closes the pipe, so the log is read to its end first
		ended <- cmd.Wait()
	}()
	if _, err := w.Write(append(config, '\n')); err != nil {
		return errors.Join(fmt.Errorf("pass configuration: %w", err), s.stop(cmd, ended))
	}
	return s.watch(ctx, cmd, ended)
}

func (s *Supervisor) watch(ctx context.Context, cmd *exec.Cmd, ended chan error) error {
	probe := time.NewTicker(probeEvery)
	defer probe.Stop()
	late := time.NewTimer(startTimeout)
	defer late.Stop()
	for up := false; ; {
		select {
		case err := <-ended:
			return fmt.Errorf("ended: %w", err)
		case <-ctx.Done():
			return s.stop(cmd, ended)
		case <-late.C:
			if !up {
				return errors.Join(errors.New("did not answer after its start"), s.stop(cmd, ended))
			}
		case <-probe.C:
			if s.answers(ctx) {
				up = true
				probe.Stop()
				s.up.Set(1)
				s.log.Info("the media server answers")
				s.ready()
			}
		}
	}
}

// answers asks the child's health page.
func (s *Supervisor) answers(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1:"+strconv.Itoa(s.config.SignalPort)+"/", nil)
	if err != nil {
		return false
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(req)
	if err != nil {
		return false
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, 1<<10))
	_ = res.Body.Close()
	return res.StatusCode == http.StatusOK
}

// stop ends the child: SIGTERM asks it to drain, the second one ends it, SIGKILL if it does neither.
func (s *Supervisor) stop(cmd *exec.Cmd, ended chan error) error {
	for _, step := range []struct {
		signal os.Signal
		wait   time.Duration
	}{{syscall.SIGTERM, drain}, {syscall.SIGTERM, killAfter}, {os.Kill, killAfter}} {
		if err := cmd.Process.Signal(step.signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
			s.log.Warn("signal the media server", "err", err)
		}
		select {
		case <-ended:
			return nil
		case <-time.After(step.wait):
		}
	}
	return errors.New("the media server does not end")
}

// copyLog repeats the child's log without its fields: they hold addresses, identities and room names.
func (s *Supervisor) copyLog(r io.Reader) {
	lines := bufio.NewReaderSize(r, 64<<10)
	for {
		line, err := lines.ReadSlice('\n')
		var entry struct {
			Level string `json:"level"`
			Msg   string `json:"msg"`
		}
		if json.Unmarshal(line, &entry) == nil && entry.Msg != "" {
			level := slog.LevelWarn
			if entry.Level == "error" {
				level = slog.LevelError
			}
			s.log.Log(context.Background(), level, "LiveKit says", "text", entry.Msg)
		} else if len(line) > 1 && err == nil {
			s.log.Warn("LiveKit wrote a line that is no log entry", "bytes", len(line))
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return
		}
	}
}
