package stack

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// LiveKit is a LiveKit server that a hub uses by URL, key and secret, as a clinic's own would be.
type LiveKit struct {
	URL         string // http, on loopback
	Key, Secret string
	UDPPort     int

	process *Process
	pipe    *os.File
	dir     string
}

// StartLiveKit starts the server that the hub brings along, apart from any hub.
func StartLiveKit(ctx context.Context, bin string) (*LiveKit, error) {
	ports, err := FreePorts("127.0.0.1", 2)
	if err != nil {
		return nil, err
	}
	l := &LiveKit{
		URL: fmt.Sprintf("http://127.0.0.1:%d", ports[0]), UDPPort: ports[1],
		Key: "e2e", Secret: "a secret of a test that is long enough for LiveKit",
	}
	if l.dir, err = os.MkdirTemp("", "alcove-livekit-"); err != nil {
		return nil, err
	}
	if err := l.start(ports[0], bin); err != nil {
		l.Stop()
		return nil, err
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		res, err := http.Get(l.URL)
		if err == nil {
			res.Body.Close()
			return l, nil
		}
		if ctx.Err() != nil || time.Now().After(deadline) {
			l.Stop()
			return nil, errors.Join(errors.New("LiveKit does not answer"), err)
		}
	}
}

// start hands the child its configuration as the hub's supervisor does: one line of JSON on descriptor 3, which
// stays open for as long as the child is to live.
func (l *LiveKit) start(signalPort int, bin string) error {
	line, err := json.Marshal(map[string]any{
		"signal_port": signalPort, "udp_port": l.UDPPort, "tcp_port": 0, "node_ip": "127.0.0.1",
		"key": l.Key, "secret": l.Secret,
	})
	if err != nil {
		return err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	l.pipe = w
	log, err := os.Create(filepath.Join(l.dir, "livekit.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(filepath.Join(bin, "alcove-hub"), "sfu")
	cmd.ExtraFiles, cmd.Stdout, cmd.Stderr = []*os.File{r}, log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start LiveKit: %w", err)
	}
	l.process = &Process{Cmd: cmd, Log: log.Name(), done: make(chan struct{})}
	go func() {
		_ = cmd.Wait() // how it ends does not matter
		close(l.process.done)
	}()
	_, err = w.Write(append(line, '\n'))
	return err
}

// Section is what hub.yaml says of this server when it is reached at url.
func (l *LiveKit) Section(url string) string {
	return fmt.Sprintf("url: %q, key: %q, secret: %q", url, l.Key, l.Secret)
}

// Stop ends the server.
func (l *LiveKit) Stop() {
	if l.pipe != nil {
		l.pipe.Close() // the child ends with it
	}
	if l.process != nil {
		_ = l.process.Cmd.Process.Kill()
		<-l.process.done
	}
	os.RemoveAll(l.dir)
}
