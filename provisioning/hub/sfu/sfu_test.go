package sfu

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMain lets this binary be the child, and a hub that only holds one.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "sfu" {
		if err := Child(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if len(os.Args) == 4 && os.Args[1] == "hold" {
		hold(os.Args[2], os.Args[3])
	}
	os.Exit(m.Run())
}

// hold runs a supervisor and prints the child's process id.
func hold(signalPort, udpPort string) {
	tcp, err := strconv.Atoi(signalPort)
	if err != nil {
		panic(err)
	}
	udp, err := strconv.Atoi(udpPort)
	if err != nil {
		panic(err)
	}
	var s *Supervisor
	s, err = NewSupervisor(NewConfig(netip.MustParseAddr("127.0.0.1"), tcp, udp, 0), []string{"/proc/self/exe", "sfu"},
		slog.New(slog.DiscardHandler), func() { fmt.Println(s.PID()) })
	if err != nil {
		panic(err)
	}
	if err := s.Run(context.Background()); err != nil {
		panic(err)
	}
}

func ports(t *testing.T) (tcp, udp int) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	u, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	return l.Addr().(*net.TCPAddr).Port, u.LocalAddr().(*net.UDPAddr).Port
}

// TestChildEndsWithTheHub kills the hub in the hardest way.
func TestChildEndsWithTheHub(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	tcp, udp := ports(t)
	hub := exec.Command(exe, "hold", strconv.Itoa(tcp), strconv.Itoa(udp))
	out, err := hub.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := hub.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	child, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	if err := hub.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = hub.Wait() // it was killed
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		if err := syscall.Kill(child, 0); errors.Is(err, syscall.ESRCH) || zombie(child) {
			return
		}
		if time.Since(began) > 5*time.Second {
			t.Fatal("the media server outlives the hub")
		}
	}
}

// zombie reports a process that has ended and that nobody has waited for, as under an init that does not.
func zombie(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return strings.HasPrefix(rest, "Z")
}

func TestChildNeedsTheHub(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(exe, "sfu").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "alcove-hub serve") {
		t.Errorf("started by hand: %v, %s", err, out)
	}
}

func TestBackOff(t *testing.T) {
	tcp, udp := ports(t)
	s, err := NewSupervisor(NewConfig(netip.MustParseAddr("127.0.0.1"), tcp, udp, 0), []string{"/bin/false"},
		slog.New(slog.DiscardHandler), func() { t.Error("/bin/false answers") })
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 800*time.Millisecond) // starts at 0, 100, 300, 700 ms
	defer cancel()
	if err := s.Run(ctx); err != nil {
		t.Error(err)
	}
	var m metric
	if n := m.of(t, s); n < 2 || n > 4 {
		t.Errorf("%v starts in 800 ms", n)
	}
}

func TestConfigIsRefused(t *testing.T) {
	good := NewConfig(netip.MustParseAddr("127.0.0.1"), 1000, 1001, 0)
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Config){
		"no signal port":  func(c *Config) { c.SignalPort = 0 },
		"no UDP port":     func(c *Config) { c.UDPPort = 70000 },
		"one port twice":  func(c *Config) { c.TCPPort = c.SignalPort },
		"TCP on loopback": func(c *Config) { c.TCPPort = 1002 },
		"any address":     func(c *Config) { c.NodeIP = netip.IPv4Unspecified() },
		"short secret":    func(c *Config) { c.Secret = "secret" },
	} {
		c := good
		change(&c)
		if c.Validate() == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	text, err := good.yaml()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"development: false", "auto_create: false", "tcp_port: 0", "enable_loopback_candidate: true"} {
		if !strings.Contains(text, want) {
			t.Errorf("LiveKit's configuration lacks %q:\n%s", want, text)
		}
	}
	far := NewConfig(netip.MustParseAddr("192.0.2.1"), 1000, 1001, 0)
	if text, err = far.yaml(); err != nil || strings.Contains(text, "loopback") {
		t.Errorf("loopback candidates off loopback: %v\n%s", err, text)
	}
}
