package hub

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// childPID finds the media server among this process's children.
func (w *world) childPID() int {
	w.t.Helper()
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		w.t.Fatal(err)
	}
	for _, dir := range dirs {
		stat, err := os.ReadFile(dir + "/stat")
		if err != nil {
			continue // it ended meanwhile
		}
		_, rest, _ := strings.Cut(string(stat), ") ")
		f := strings.Fields(rest)
		args, _ := os.ReadFile(dir + "/cmdline")
		if f[0] != "Z" && f[1] == strconv.Itoa(os.Getpid()) && strings.HasSuffix(string(args), "\x00sfu\x00") {
			pid, err := strconv.Atoi(filepath.Base(dir))
			if err != nil {
				w.t.Fatal(err)
			}
			// Nothing secret stands where other processes of the user or `ps` can read it.
			env, _ := os.ReadFile(dir + "/environ")
			if len(env) != 0 || strings.Count(string(args), "\x00") != 2 {
				w.t.Errorf("the child's environment is %q, its arguments %q", env, args)
			}
			return pid
		}
	}
	return 0
}

// openPorts lists what a process listens on, by the kernel's own tables.
func openPorts(t *testing.T, pid int) []string {
	t.Helper()
	own := make(map[string]bool)
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if link, err := os.Readlink(fd); err == nil && strings.HasPrefix(link, "socket:[") {
			own[strings.TrimSuffix(strings.TrimPrefix(link, "socket:["), "]")] = true
		}
	}
	var list []string
	for _, table := range []string{"tcp", "tcp6", "udp", "udp6"} {
		f, err := os.Open(fmt.Sprintf("/proc/%d/net/%s", pid, table))
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(f)
		lines.Scan() // heading
		for lines.Scan() {
			c := strings.Fields(lines.Text())
			listening := strings.HasPrefix(table, "tcp") && c[3] == "0A" || strings.HasPrefix(table, "udp")
			if own[c[9]] && listening {
				list = append(list, table[:3]+" "+kernelAddress(t, c[1]).String())
			}
		}
		f.Close()
	}
	slices.Sort(list)
	return list
}

// kernelAddress reads /proc/net's form: words of four bytes in host order, then the port.
func kernelAddress(t *testing.T, s string) netip.AddrPort {
	t.Helper()
	host, port, _ := strings.Cut(s, ":")
	raw, err := hex.DecodeString(host)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(raw); i += 4 {
		binary.BigEndian.PutUint32(raw[i:], binary.NativeEndian.Uint32(raw[i:]))
	}
	addr, _ := netip.AddrFromSlice(raw)
	n, err := strconv.ParseUint(port, 16, 16)
	if err != nil {
		t.Fatal(err)
	}
	return netip.AddrPortFrom(addr.Unmap(), uint16(n))
}

func TestOnlyConfiguredPortsAreOpen(t *testing.T) {
	w := start(t)
	w.opened(w.addSession()) // with a session, in case something opens late
	pid := w.childPID()
	if pid == 0 {
		t.Fatal("no child")
	}
	want := []string{
		fmt.Sprintf("tcp 127.0.0.1:%d", w.config.LiveKit.SignalPort),
		fmt.Sprintf("udp 127.0.0.1:%d", w.config.LiveKit.UDPPort),
	}
	if got := openPorts(t, pid); !slices.Equal(got, want) {
		t.Errorf("the media server listens on %v, configured is %v", got, want)
	}
	want = nil
	for _, l := range []string{w.config.Page.Listen, w.config.People.Listen, w.config.Devices.Listen, w.config.Metrics.Listen} {
		want = append(want, "tcp "+l)
	}
	slices.Sort(want)
	if got := openPorts(t, os.Getpid()); !slices.Equal(got, want) {
		t.Errorf("the hub listens on %v, configured is %v", got, want)
	}
	info, err := os.Stat(w.config.Admin.Socket)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("admin socket: %v, %v", info.Mode(), err)
	}
}
