package systemd

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestOverTheSocket speaks to a real datagram socket, as the service manager would listen.
func TestOverTheSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	n := New(slog.New(slog.DiscardHandler))

	if !UnderSystemd() {
		t.Error("NOTIFY_SOCKET is set and UnderSystemd says no")
	}
	for _, c := range []struct {
		call func() error
		want string
	}{
		{n.Ready, "READY=1"},
		{func() error { return n.Status("2 people in the session") }, "STATUS=2 people in the session"},
		{n.Reloading, "RELOADING=1\nMONOTONIC_USEC="},
		{n.Stopping, "STOPPING=1"},
	} {
		if err := c.call(); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 256)
		conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		k, err := conn.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		if got := string(buf[:k]); !strings.HasPrefix(got, c.want) {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}

func TestOutsideSystemd(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	n := New(slog.New(slog.DiscardHandler))
	if err := n.Ready(); err != nil {
		t.Errorf("without a service manager: %v", err)
	}
	if UnderSystemd() {
		t.Error("NOTIFY_SOCKET is empty and UnderSystemd says yes")
	}
}

func TestStatusIsOneAssignment(t *testing.T) {
	n := &Notifier{send: func(string) (bool, error) { t.Error("sent"); return true, nil }}
	for _, text := range []string{"a\nREADY=1", "a\rb"} {
		if err := n.Status(text); !errors.Is(err, ErrStatus) {
			t.Errorf("%q: got %v, want ErrStatus", text, err)
		}
	}
}

// TestWatchdog checks that an unhealthy program is silent, and that a recovered one speaks again.
func TestWatchdog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		start := time.Now()
		var fed []time.Duration
		n := &Notifier{
			log:      slog.New(slog.DiscardHandler),
			interval: func() (time.Duration, error) { return 2 * time.Second, nil },
			send: func(state string) (bool, error) {
				if state != "WATCHDOG=1" {
					t.Errorf("sent %q", state)
				}
				fed = append(fed, time.Since(start))
				return true, nil
			},
		}
		sick := func(context.Context) error {
			if since := time.Since(start); since > 3*time.Second && since < 8*time.Second {
				return errors.New("no frame for 3 s")
			}
			return nil
		}
		if err := n.Watchdog(ctx, sick); err != nil {
			t.Fatal(err)
		}
		want := []time.Duration{1 * time.Second, 2 * time.Second, 3 * time.Second, 8 * time.Second, 9 * time.Second}
		if len(fed) == len(want)+1 && fed[5] == 10*time.Second {
			fed = fed[:5] // the last tick and the deadline fall together
		}
		if !reflect.DeepEqual(fed, want) {
			t.Errorf("fed at %v, want %v", fed, want)
		}
	})
}

func TestWatchdogNotSet(t *testing.T) {
	n := &Notifier{interval: func() (time.Duration, error) { return 0, nil }}
	if err := n.Watchdog(t.Context(), nil); err != nil {
		t.Error(err)
	}
}

func TestUnset(t *testing.T) {
	got := Unset([]string{"PATH=/bin", "NOTIFY_SOCKET=/run/x", "WATCHDOG_USEC=1", "WATCHDOG_PID=2", "NOTIFY_SOCKETS=y"})
	if want := []string{"PATH=/bin", "NOTIFY_SOCKETS=y"}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
