package daemon

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/alcove-room/alcove/mediacap"
)

// childMark among the arguments makes this test binary a capture process, and the next argument says which.
const childMark = "capture-child"

func TestMain(m *testing.M) {
	if i := slices.Index(os.Args, childMark); i >= 0 {
		beChild(os.Args[i+1], os.Args[i+2:])
		syscall.Exit(0) // os.Exit waits a second for the race detector
	}
	os.Exit(m.Run())
}

func beChild(mode string, args []string) {
	socket := os.NewFile(3, "socket")
	w := mediacap.NewWriter(socket)
	stop := make(chan struct{})
	go func() {
		r := mediacap.NewRequestReader(socket)
		for {
			m, err := r.Read()
			if _, ok := m.(mediacap.Stop); ok || err != nil {
				close(stop)
				return
			}
		}
	}()
	switch mode {
	case "report":
		var names, files []string
		for _, kv := range os.Environ() {
			name, _, _ := strings.Cut(kv, "=")
			names = append(names, name)
		}
		entries, _ := os.ReadDir("/proc/self/fd")
		for _, e := range entries {
			to, err := os.Readlink("/proc/self/fd/" + e.Name())
			if err != nil || strings.HasPrefix(to, "anon_inode:") || strings.HasPrefix(to, "/sys/fs/cgroup/") || strings.HasPrefix(to, "/proc/") {
				continue // the runtime's own
			}
			kind, _, _ := strings.Cut(to, ":")
			files = append(files, e.Name()+" "+kind)
		}
		fmt.Fprintf(os.Stderr, "names %s\nfiles %s\narguments %s\n", strings.Join(names, ","), strings.Join(files, ","), strings.Join(args, ","))
		<-stop
	case "stubborn":
		_ = w.Hello(mediacap.Hello{Build: "x"})
		select {}
	case "leaves a grandchild":
		cmd := exec.Command(os.Args[0], childMark, "grandchild")
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		fmt.Fprintf(os.Stderr, "grandchild %d\n", cmd.Process.Pid)
		<-stop
	case "grandchild":
		time.Sleep(time.Minute)
	case "floods":
		line := strings.Repeat("x", 5000)
		for range 300 {
			fmt.Fprintln(os.Stderr, line)
		}
		_ = w.Hello(mediacap.Hello{Build: "x"})
		<-stop
	case "polite":
		_ = w.Hello(mediacap.Hello{Build: "x"})
		<-stop
	case "fails":
		syscall.Exit(7)
	}
}

// lines is a log whose lines can be waited for.
type lines struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.Write(p)
}

func (l *lines) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.String()
}

func (l *lines) find(t *testing.T, prefix string) string {
	t.Helper()
	var found string
	eventually(t, "the child says "+prefix, func() bool {
		for s := bufio.NewScanner(strings.NewReader(l.text())); s.Scan(); {
			if _, after, ok := strings.Cut(s.Text(), "line=\""+prefix+" "); ok {
				found = after
				return true
			}
		}
		return false
	})
	return found
}

func launchChild(t *testing.T, mode string) (captureProcess, *lines) {
	t.Helper()
	out := &lines{}
	l := &childLauncher{command: []string{os.Args[0], childMark, mode}, log: slog.New(slog.NewTextHandler(out, nil))}
	p, err := l.launch(context.Background(), captureSettings{codec: mediacap.VP8, width: 640, height: 360, fps: 15, videoBPS: 600_000, audioBPS: 32_000})
	if err != nil {
		t.Fatal(err)
	}
	return p, out
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestChildGetsOneSocketAndLittleElse(t *testing.T) {
	t.Setenv("ALCOVE_SECRET", "not for it")
	t.Setenv("NOTIFY_SOCKET", "/run/notify")
	t.Setenv("LC_ALL", "C.UTF-8")
	other, err := os.Open("/dev/zero") // something that is open here and none of its business
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	p, out := launchChild(t, "report")
	list := func(what string) []string { return strings.Split(strings.TrimSuffix(out.find(t, what), `"`), ",") }
	names, files, args := list("names"), list("files"), list("arguments")
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if !slices.Contains([]string{"PATH", "LANG", "HOME", "XDG_RUNTIME_DIR"}, name) && !strings.HasPrefix(name, "LC_") &&
			!strings.HasPrefix(name, "PULSE_") && !strings.HasPrefix(name, "PIPEWIRE_") {
			t.Errorf("the child has %s", name)
		}
	}
	if !slices.Contains(names, "LC_ALL") {
		t.Errorf("the child does not have the locale: %q", names)
	}
	if !slices.Equal(files, []string{"0 /dev/null", "1 /dev/null", "2 pipe", "3 socket"}) {
		t.Errorf("the child has %q", files)
	}
	if want := "--codec=vp8 --size=640x360 --fps=15 --video-bitrate=600000 --audio-bitrate=32000"; strings.Join(args, " ") != want {
		t.Errorf("arguments %q", args)
	}
}

func TestChildEnds(t *testing.T) {
	before := openFiles(t)
	for _, c := range []struct {
		mode        string
		least, most time.Duration
		fails       bool
	}{
		{"polite", 0, stopGrace, false},
		{"stubborn", stopGrace, 4 * stopGrace, true},
		{"fails", 0, stopGrace, true},
	} {
		p, _ := launchChild(t, c.mode)
		_, _ = p.Read(make([]byte, 1)) // until it is up, or gone
		began := time.Now()
		err := p.Close()
		if took := time.Since(began); took < c.least || took > c.most {
			t.Errorf("%s: ended after %v", c.mode, took)
		}
		if (err != nil) != c.fails {
			t.Errorf("%s: %v", c.mode, err)
		}
		if e := p.Close(); (e != nil) != (err != nil) && c.mode == "fails" {
			t.Errorf("%s: closed again: %v", c.mode, e)
		}
		pid := p.(*child).cmd.Process.Pid
		if err := unix.Kill(pid, 0); err == nil {
			t.Errorf("%s: process %d is still there", c.mode, pid)
		}
	}
	eventually(t, "no descriptor stays", func() bool { return openFiles(t) <= before })
}

// A process whose socket is full of requests that it does not read is ended all the same.
func TestChildThatReadsNothing(t *testing.T) {
	out := &lines{}
	l := &childLauncher{command: []string{"/bin/sh", "-c", "exec sleep 60", "sh"}, log: slog.New(slog.NewTextHandler(out, nil))}
	p, err := l.launch(context.Background(), captureSettings{})
	if err != nil {
		t.Fatal(err)
	}
	w := mediacap.NewRequestWriter(p)
	began := time.Now()
	for i := 0; ; i++ {
		if err := w.Send(mediacap.KeyFrame{}); err != nil {
			break
		}
		if i > 1<<20 {
			t.Fatal("the socket never fills")
		}
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Fatalf("a full socket held its writer for %v", took)
	}
	began = time.Now()
	_ = p.Close()
	if took := time.Since(began); took > 4*stopGrace {
		t.Fatalf("ended after %v", took)
	}
}

// What a capture process starts does not outlive it: it could hold a device.
func TestChildsChildren(t *testing.T) {
	p, out := launchChild(t, "leaves a grandchild")
	pid, err := strconv.Atoi(strings.TrimSuffix(out.find(t, "grandchild"), `"`))
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	_ = p.Close()
	if took := time.Since(began); took > 4*stopGrace {
		t.Fatalf("ended after %v", took)
	}
	eventually(t, "the grandchild ends", func() bool {
		raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		return err != nil || strings.Contains(string(raw), ") Z ") // nobody may be there to reap it
	})
}

func TestChildThatFloodsTheLog(t *testing.T) {
	p, out := launchChild(t, "floods")
	eventually(t, "the burst is logged", func() bool { return strings.Count(out.text(), "capture process says") >= logBurst })
	_, _ = p.Read(make([]byte, 1)) // all is said
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if n := len(out.text()); n > (logBurst+10)*(logLine+200) {
		t.Fatalf("%d bytes of log", n)
	}
}

// The kernel ends a capture process with its daemon, however that ends.
func TestChildDiesWithTheDaemon(t *testing.T) {
	l := &childLauncher{command: []string{"true"}, log: slog.New(slog.DiscardHandler)}
	p, err := l.launch(context.Background(), captureSettings{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if sys := p.(*child).cmd.SysProcAttr; sys.Pdeathsig != unix.SIGKILL || !sys.Setpgid {
		t.Fatalf("%+v", sys)
	}
}

func TestChildThatCannotStart(t *testing.T) {
	before := openFiles(t)
	l := &childLauncher{command: []string{"/does/not/exist"}, log: slog.New(slog.DiscardHandler)}
	if _, err := l.launch(context.Background(), captureSettings{}); err == nil || !strings.Contains(err.Error(), "capture process") {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	l.command = []string{os.Args[0], childMark, "polite"}
	if _, err := l.launch(ended, captureSettings{}); err == nil {
		t.Fatal("started although the daemon ends")
	}
	eventually(t, "no descriptor stays", func() bool { return openFiles(t) <= before })
}
