package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/alcove-room/alcove/daemon/session"
)

// fakeTouch is a room that writes down what is pressed.
type fakeTouch struct {
	mu      sync.Mutex
	pressed []string
	answer  error
}

func (f *fakeTouch) press(format string, a ...any) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pressed = append(f.pressed, fmt.Sprintf(format, a...))
	return f.answer
}

func (f *fakeTouch) Status() Status {
	return Status{Room: "Room 1", Enrolled: true, Camera: "off", Microphone: "off"}
}
func (f *fakeTouch) Start(when bool) error         { return f.press("start %v", when) }
func (f *fakeTouch) Pause() error                  { return f.press("pause") }
func (f *fakeTouch) Admit(p string) error          { return f.press("admit %s", p) }
func (f *fakeTouch) Refuse(p, reason string) error { return f.press("refuse %s %s", p, reason) }
func (f *fakeTouch) Remove(p, reason string) error { return f.press("remove %s %s", p, reason) }
func (f *fakeTouch) Mute(m bool) error             { return f.press("mute %v", m) }
func (f *fakeTouch) Camera(on bool) error          { return f.press("camera %v", on) }
func (f *fakeTouch) End(reason string) error       { return f.press("end %s", reason) }

// serve serves f on a control socket and returns its path.
func serve(t *testing.T, f touch) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "c.sock")
	l, err := listenControl(path, "")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- serveControl(ctx, l, controlHandler(func() (touch, error) {
			if f == nil {
				return nil, errNoSession
			}
			return f, nil
		}))
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return path
}

// command runs `alcoved room …` and returns what it printed and its exit status.
func command(socket string, args ...string) (string, int) {
	cmd := RoomCommand()
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SilenceUsage, cmd.SilenceErrors = true, true
	cmd.SetArgs(append(args, "--socket", socket))
	if err := cmd.ExecuteContext(context.Background()); err != nil {
		return out.String() + err.Error(), ExitCode(err)
	}
	return out.String(), 0
}

func TestRoomVerbs(t *testing.T) {
	f := &fakeTouch{}
	socket := serve(t, f)
	for _, c := range []struct{ args, want string }{
		{"start", "start false"}, {"start --when-admitted", "start true"}, {"pause", "pause"}, {"admit", "admit "},
		{"admit lee", "admit lee"}, {"refuse lee --reason later", "refuse lee later"}, {"remove lee", "remove lee "},
		{"mute", "mute true"}, {"unmute", "mute false"}, {"camera-off", "camera false"}, {"camera-on", "camera true"},
		{"end --reason done", "end done"},
	} {
		if out, code := command(socket, strings.Fields(c.args)...); code != 0 || !strings.Contains(out, "Room 1") {
			t.Errorf("%s: exit %d, %q", c.args, code, out)
		}
		if got := f.pressed[len(f.pressed)-1]; got != c.want {
			t.Errorf("%s pressed %q, want %q", c.args, got, c.want)
		}
	}
	n := len(f.pressed)
	if out, code := command(socket, "status", "--json"); code != 0 || !strings.Contains(out, `"room": "Room 1"`) || len(f.pressed) != n {
		t.Errorf("status: exit %d, %q", code, out)
	}
	for _, c := range []struct {
		answer error
		code   int
		words  string
	}{
		{&session.NotNow{Why: "Nobody is waiting."}, 1, "Nobody is waiting."},
		{errNoSession, 1, "no session is open"},
		{errors.New("the log cannot be written"), 1, "the log cannot be written"},
	} {
		f.answer = c.answer
		if out, code := command(socket, "admit"); code != c.code || !strings.Contains(out, c.words) {
			t.Errorf("%v: exit %d, %q", c.answer, code, out)
		}
	}
	if out, code := command(filepath.Join(t.TempDir(), "none"), "status"); code != exitUnreachable || !strings.Contains(out, "alcoved serve") {
		t.Errorf("no daemon: exit %d, %q", code, out)
	}
	if _, code := command(socket, "remove"); code == 0 {
		t.Error("remove without a person")
	}
}

func TestBoxWithoutAClinic(t *testing.T) {
	socket := serve(t, nil)
	if out, code := command(socket, "status"); code != 0 || !strings.Contains(out, "no clinic") {
		t.Errorf("exit %d, %q", code, out)
	}
	if _, code := command(socket, "start"); code != exitRefused {
		t.Errorf("start: exit %d", code)
	}
}

func TestControlRefusesWhatItDoesNotKnow(t *testing.T) {
	f := &fakeTouch{}
	socket := serve(t, f)
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", socket) }}}
	for _, c := range []struct {
		method, path, body string
		code               int
	}{
		{"POST", "/v1/start", `{"when_admitted":true}`, 200},
		{"POST", "/v1/start", ``, 200},
		{"POST", "/v1/start", `{"When_Admitted":true}`, 400},
		{"POST", "/v1/start", `{"when_admitted":false,"when_admitted":true}`, 400},
		{"POST", "/v1/start", `{"force":true}`, 400},
		{"POST", "/v1/start", `[]`, 400},
		{"POST", "/v1/start", `{} {}`, 400},
		{"POST", "/v1/admit", `{"person":"` + strings.Repeat("x", maxControlBody) + `"}`, 400},
		{"GET", "/v1/start", ``, 405},
		{"DELETE", "/v1/status", ``, 405},
		{"POST", "/v1/", `{}`, 404},
		{"POST", "/v1/capture", `{}`, 404},
	} {
		f.pressed = nil
		req, err := http.NewRequest(c.method, "http://room"+c.path, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, res.Body)
		res.Body.Close()
		if res.StatusCode != c.code || (c.code == 200) != (len(f.pressed) == 1) {
			t.Errorf("%s %s %.40s: %d, pressed %q", c.method, c.path, c.body, res.StatusCode, f.pressed)
		}
	}
}

func TestControlSocketIsItsOwnersAlone(t *testing.T) {
	dir := t.TempDir()
	path, victim := filepath.Join(dir, "c.sock"), filepath.Join(dir, "victim")
	if err := os.WriteFile(victim, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(victim, path); err != nil {
		t.Fatal(err)
	}
	stop, modes := make(chan struct{}), make(chan []os.FileMode, 1)
	go func() { // look at it from the first moment on
		var seen []os.FileMode
		for {
			select {
			case <-stop:
				modes <- seen
				return
			default:
			}
			if st, err := os.Lstat(path); err == nil && st.Mode()&os.ModeSocket != 0 && (len(seen) == 0 || seen[len(seen)-1] != st.Mode().Perm()) {
				seen = append(seen, st.Mode().Perm())
			}
		}
	}()
	for range 20 { // the second and later ones replace a socket
		l, err := listenControl(path, fmt.Sprint(os.Getuid()))
		if err != nil {
			t.Fatal(err)
		}
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		l.Close()
	}
	close(stop)
	if seen := <-modes; !slices.Equal(seen, []os.FileMode{0o600}) {
		t.Errorf("modes %o", seen)
	}
	st, err := os.Stat(victim)
	if raw, _ := os.ReadFile(victim); err != nil || string(raw) != "x" || st.Mode().Perm() != 0o644 {
		t.Errorf("what a link pointed to was changed: %v", st)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 2 {
		t.Errorf("left behind: %v", left)
	}
	if _, err := listenControl(filepath.Join(dir, "d.sock"), "no-such-user-here"); err == nil {
		t.Error("a socket for nobody")
	}
	if _, err := os.Lstat(filepath.Join(dir, "d.sock")); err == nil {
		t.Error("a socket that could not be given away is there")
	}
}

func TestConfig(t *testing.T) {
	dir := t.TempDir()
	read := func(text string) (Config, error) {
		path := filepath.Join(dir, "alcoved.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return ReadConfig(path)
	}
	c, err := read("")
	if err != nil || c.StateDir != "/var/lib/alcove" || c.RunDir != "/run/alcove" || c.Claim != "/var/lib/alcove/claim.json" ||
		*c.Metrics != "127.0.0.1:9464" || c.LogLevel != "info" || !slices.Equal(c.Capture, []string{"alcove-capture"}) || c.ControlUser != "" ||
		c.ControlSocket() != "/run/alcove/control.sock" {
		t.Fatalf("%+v, %v", c, err)
	}
	c, err = read("state_dir: /s\nmetrics: \"\"\nlog_level: debug\ncapture: [a, b]\ncontrol_user: kiosk\n")
	if err != nil || c.Claim != "/s/claim.json" || *c.Metrics != "" || c.ControlUser != "kiosk" || len(c.Capture) != 2 {
		t.Fatalf("%+v, %v", c, err)
	}
	for _, bad := range []string{"demo: true\n", "state_dirs: /s\n", "log_level: loud\n", "capture: 7: 8\n", "encrypt: false\n"} {
		if c, err := read(bad); err == nil {
			t.Errorf("%q was taken: %+v", bad, c)
		}
	}
	if _, err := ReadConfig(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

func TestClaimFile(t *testing.T) {
	dir := t.TempDir()
	file := func(name string, mode os.FileMode, size int) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, make([]byte, size), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, mode := range []os.FileMode{0o600, 0o640, 0o644, 0o400} {
		if _, err := readClaimFile(file("good", mode, 100)); err != nil {
			t.Errorf("%o: %v", mode, err)
		}
		os.Remove(filepath.Join(dir, "good"))
	}
	pipe := filepath.Join(dir, "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{
		"others can write": file("w", 0o666, 10), "the group can": file("g", 0o620, 10), "too large": file("large", 0o600, maxClaim+1),
		"a pipe": pipe, "a folder": dir, "a device": "/dev/zero", "nothing": filepath.Join(dir, "none"),
	} {
		began := time.Now()
		if _, err := readClaimFile(path); err == nil {
			t.Errorf("%s: read", name)
		}
		if time.Since(began) > time.Second {
			t.Errorf("%s: waited", name)
		}
	}
}
