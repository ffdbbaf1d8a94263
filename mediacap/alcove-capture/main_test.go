package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/alcove-room/alcove/mediacap"
	"github.com/alcove-room/alcove/mediacap/device"
)

// binary is the program, built once per run of the tests, with the race detector when
// the tests have it.
var binary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "alcove-capture")
	if err != nil {
		panic(err)
	}
	binary = filepath.Join(dir, "alcove-capture")
	args := []string{"build", "-o", binary}
	if raceEnabled {
		args = append(args, "-race")
	}
	if out, err := exec.Command("go", append(args, ".")...).CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build alcove-capture: %v\n%s", err, out)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// child is a running alcove-capture with the daemon's end of its socket.
type child struct {
	t      *testing.T
	cmd    *exec.Cmd
	conn   net.Conn
	in     *mediacap.Reader
	out    *mediacap.RequestWriter
	stderr bytes.Buffer
	exited chan error
}

func start(t *testing.T, args ...string) *child {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "daemon"), os.NewFile(uintptr(fds[1]), "capture")
	conn, err := net.FileConn(ours)
	ours.Close()
	if err != nil {
		t.Fatal(err)
	}
	c := &child{t: t, conn: conn, in: mediacap.NewReader(conn), out: mediacap.NewRequestWriter(conn), exited: make(chan error, 1)}
	c.cmd = exec.Command(binary, args...)
	c.cmd.ExtraFiles = []*os.File{theirs}
	c.cmd.Stderr = &c.stderr
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	go func() { c.exited <- c.cmd.Wait() }()
	t.Cleanup(func() {
		conn.Close()
		c.cmd.Process.Kill()
	})
	if err := conn.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *child) read() mediacap.Event {
	c.t.Helper()
	e, err := c.in.Read()
	if err != nil {
		c.t.Fatalf("read: %v\n%s", err, c.stderr.String())
	}
	return e
}

// unit returns the next unit of a medium.
func (c *child) unit(m mediacap.Medium) *mediacap.Unit {
	c.t.Helper()
	for {
		if u, ok := c.read().(*mediacap.Unit); ok && u.Codec.Medium() == m {
			return u
		}
	}
}

func (c *child) send(q mediacap.Request) {
	c.t.Helper()
	if err := c.out.Send(q); err != nil {
		c.t.Fatal(err)
	}
}

// wait returns how long the child took to exit, and its error.
func (c *child) wait() (time.Duration, error) {
	c.t.Helper()
	begin := time.Now()
	select {
	case err := <-c.exited:
		return time.Since(begin), err
	case <-time.After(10 * time.Second):
		c.t.Fatalf("still running\n%s", c.stderr.String())
		return 0, nil
	}
}

// exitLimit is how long a stop may take; the race detector makes everything slower.
func exitLimit() time.Duration {
	if raceEnabled {
		return 1500 * time.Millisecond
	}
	return 200 * time.Millisecond
}

func TestCaptureOfTheTestSource(t *testing.T) {
	c := start(t, "--source=test")
	if h, ok := c.read().(*mediacap.Hello); !ok || !h.Synthetic || h.Build == "" {
		t.Fatalf("first message %+v", h)
	}
	if s, ok := c.read().(*mediacap.Status); !ok || s.State != mediacap.Starting {
		t.Fatalf("second message %+v", s)
	}
	s, ok := c.read().(*mediacap.Status)
	if !ok || s.State != mediacap.Running || s.Video.Width != 640 || s.Video.Height != 360 ||
		!strings.Contains(s.Video.Encoder, "libvpx") || !strings.Contains(s.Audio.Encoder, "libopus") {
		t.Fatalf("third message %+v", s)
	}
	checkUnits(t, c, 60)

	c.send(mediacap.KeyFrame{})
	for n := 1; ; n++ {
		if c.unit(mediacap.Video).KeyFrame {
			break
		}
		if n == 3 { // one picture may have been encoded already when the request was sent
			t.Fatal("no key frame within two frames of the request")
		}
	}

	// The sound's size follows its rate at once: 24 kbit/s are 60 bytes per 20 ms.
	c.send(mediacap.Rate{Video: 100_000, Audio: 24_000})
	for n := 0; len(c.unit(mediacap.Audio).Payload) != 60; n++ {
		if n == 50 {
			t.Fatal("the audio rate did not change within a second")
		}
	}
	for range 15 { // the rate control's buffer of one second
		c.unit(mediacap.Video)
	}
	sum := 0
	for range 30 {
		sum += len(c.unit(mediacap.Video).Payload)
	}
	if rate := sum * 8 / 2; rate > 130_000 {
		t.Errorf("%d bit/s after 100 000 were asked for", rate)
	}

	begin := time.Now()
	c.send(mediacap.Stop{})
	last := ""
	for {
		e, err := c.in.Read()
		if err != nil {
			if err != io.EOF {
				t.Errorf("after the stop: %v", err)
			}
			break
		}
		if s, ok := e.(*mediacap.Status); ok {
			last = s.State.String()
		}
	}
	if last != "stopped" {
		t.Errorf("last state %q", last)
	}
	_, err := c.wait()
	if d := time.Since(begin); err != nil || d > exitLimit() {
		t.Errorf("exit after %v: %v\n%s", d, err, c.stderr.String())
	} else {
		t.Logf("exit %v after the stop", d)
	}
}

// checkUnits reads n units and checks that both media come, in time, and without loss.
func checkUnits(t *testing.T, c *child, n int) {
	t.Helper()
	var count [2]int
	var first, last [2]mediacap.Time
	levels := 0
	for count[0]+count[1] < n {
		switch e := c.read().(type) {
		case *mediacap.Level:
			levels++
		case *mediacap.Unit:
			m := e.Codec.Medium()
			if !e.Synthetic || e.Lost != 0 || (m == mediacap.Audio && len(e.Payload) != 80) {
				t.Errorf("unit %+v", *e)
			}
			if age := mediacap.Now().Sub(e.CaptureTime); age < 0 || age > time.Second {
				t.Errorf("%v captured %v ago", e.Codec, age)
			}
			if count[m] == 0 {
				first[m] = e.CaptureTime
			}
			last[m] = e.CaptureTime
			count[m]++
		}
	}
	video, audio := last[mediacap.Video].Sub(first[mediacap.Video]), last[mediacap.Audio].Sub(first[mediacap.Audio])
	if math.Abs((audio - time.Duration(count[mediacap.Audio]-1)*20*time.Millisecond).Seconds()) > 0.01 {
		t.Errorf("%d units of sound in %v", count[mediacap.Audio], audio)
	}
	if count[mediacap.Video] < 8 || math.Abs((video-audio).Seconds()) > 0.3 || levels == 0 {
		t.Errorf("%d pictures in %v, %d of sound in %v, %d levels", count[mediacap.Video], video, count[mediacap.Audio], audio, levels)
	}
}

func TestCaptureEndsWithItsSocket(t *testing.T) {
	c := start(t, "--source=test", "--size", "320x180")
	c.unit(mediacap.Video)
	c.conn.Close()
	if d, err := c.wait(); err != nil || d > exitLimit() {
		t.Errorf("exit after %v: %v\n%s", d, err, c.stderr.String())
	}
}

func TestStopWhileStarting(t *testing.T) {
	c := start(t, "--source=test")
	c.send(mediacap.Stop{})
	if _, err := c.wait(); err != nil {
		t.Errorf("%v\n%s", err, c.stderr.String())
	}
}

func TestSignalStops(t *testing.T) {
	c := start(t, "--source=test")
	c.unit(mediacap.Video)
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if d, err := c.wait(); err != nil || d > exitLimit() {
		t.Errorf("exit after %v: %v", d, err)
	}
}

// TestSlowDaemon lets the socket fill for 3 s. What then arrives keeps the rules of the wire (the Reader
// checks them), has lost more pictures than sound, and goes on.
func TestSlowDaemon(t *testing.T) {
	c := start(t, "--source=test", "--video-bitrate", "3000000")
	c.unit(mediacap.Video)
	time.Sleep(3 * time.Second)
	var lost [2]uint32
	var late time.Duration
	for caught := 0; caught < 15; {
		u, ok := c.read().(*mediacap.Unit)
		if !ok {
			continue
		}
		m := u.Codec.Medium()
		lost[m] += u.Lost
		age := mediacap.Now().Sub(u.CaptureTime)
		if m == mediacap.Video && age < 300*time.Millisecond {
			caught++
		}
		late = max(late, age)
	}
	t.Logf("lost %d pictures and %d of sound; the oldest unit was %v late", lost[mediacap.Video], lost[mediacap.Audio], late)
	if lost[mediacap.Video] == 0 {
		t.Error("no picture was dropped")
	}
}

func TestGarbageFromTheDaemonIsFailure(t *testing.T) {
	c := start(t, "--source=test")
	if _, err := c.conn.Write([]byte("GET / HTTP/1.1\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	_, err := c.wait()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("exit: %v", err)
	}
}

// TestWithoutDevicesNothingPretends runs the program's logic in this process, where mediadevices' drivers can
// be taken away, so that it is the same on a machine that has a camera.
func TestWithoutDevicesNothingPretends(t *testing.T) {
	device.Keep()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours := os.NewFile(uintptr(fds[0]), "daemon")
	defer ours.Close()
	var stderr bytes.Buffer
	if code := run(t.Context(), []string{"--socket-fd", strconv.Itoa(fds[1])}, io.Discard, &stderr); code != 1 {
		t.Errorf("exit status %d\n%s", code, stderr.String())
	}
	var last *mediacap.Status
	for in := mediacap.NewReader(ours); ; {
		e, err := in.Read()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if s, ok := e.(*mediacap.Status); ok {
			last = s
		}
	}
	if last == nil || last.State != mediacap.Failed || !strings.Contains(last.Reason, "find camera: no device") ||
		!strings.Contains(last.Reason, "find microphone: no device") {
		t.Errorf("last status %+v", last)
	}
}

func TestOnlyUnixStreamSocketsAreTaken(t *testing.T) {
	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	tcp, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	overTCP, err := tcp.(*net.TCPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	datagram, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_SEQPACKET|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(datagram[0])
	for name, fd := range map[string]int{"file": dup(t, file), "TCP": dup(t, overTCP), "datagrams": datagram[1], "nothing": 900} {
		if c, err := (&options{socketFD: fd}).connect(); err == nil {
			c.Close()
			t.Errorf("%s was taken for the daemon's socket", name)
		}
	}
}

// dup returns a descriptor that the callee may close, and closes f.
func dup(t *testing.T, f *os.File) int {
	t.Helper()
	defer f.Close()
	fd, err := syscall.Dup(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

func TestDialedSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cmd := exec.Command(binary, "--source=test", "--socket", path)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if e, err := mediacap.NewReader(conn).Read(); err != nil {
		t.Errorf("%T, %v", e, err)
	}
	conn.Close()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

func TestArguments(t *testing.T) {
	for _, args := range []string{"--source=screen", "--size 640", "--size 640x360x2", "--size 640x1", "--fps 0", "--fps NaN",
		"--video-bitrate 5", "--audio-bitrate 900000", "--codec av1", "camera", "--unknown"} {
		if _, err := parse(strings.Fields(args), io.Discard); err == nil {
			t.Errorf("%s was accepted", args)
		}
	}
	o, err := parse(strings.Fields("--source=test --size 1280x720 --fps 29.97"), io.Discard)
	if err != nil || o.width != 1280 || o.height != 720 {
		t.Errorf("%+v, %v", o, err)
	}
	var help bytes.Buffer
	if _, err := parse([]string{"--help"}, &help); err == nil || !strings.Contains(help.String(), "--source=test") {
		t.Errorf("help: %v\n%s", err, help.String())
	}
}
