// Package systemd is the Go that talks to the service manager: readiness, status, stopping and the
// watchdog, by the protocol of sd_notify(3).
//
// A program that runs outside systemd (NOTIFY_SOCKET unset) uses the same calls; they then do nothing.
// What is said to the service manager ends up in the journal and in `systemctl status`, which more people
// may read than the audit log. A status therefore names states and counts, never a person, a session or
// an address.
//
// The package reads NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID and leaves them in the environment; a
// program that starts children clears them there (see Unset), so that a child cannot speak for its parent.
package systemd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// ErrStatus is returned for a status text that would be read as more than one assignment.
var ErrStatus = errors.New("status text holds a line break")

// Notifier tells the service manager how the program is. Its methods may be called from any goroutine.
type Notifier struct {
	log      *slog.Logger
	send     func(state string) (bool, error)
	interval func() (time.Duration, error)
}

// New returns a Notifier for this process.
func New(log *slog.Logger) *Notifier {
	return &Notifier{
		log:      log,
		send:     func(state string) (bool, error) { return daemon.SdNotify(false, state) },
		interval: func() (time.Duration, error) { return daemon.SdWatchdogEnabled(false) },
	}
}

// Ready says that the program can do its work (READY=1). Units that are ordered after this one start then,
// so it is called after the last socket listens and never before.
func (n *Notifier) Ready() error { return n.notify(daemon.SdNotifyReady) }

// Stopping says that the program has begun to end (STOPPING=1).
func (n *Notifier) Stopping() error { return n.notify(daemon.SdNotifyStopping) }

// Reloading says that the configuration is being read again; Ready ends it. With Type=notify-reload the
// service manager wants the monotonic time along (sd_notify(3), MONOTONIC_USEC=).
func (n *Notifier) Reloading() error {
	return n.notify(daemon.SdNotifyReloading + "\n" + daemon.SdNotifyMonotonicUsec())
}

// Status gives one line for `systemctl status`.
func (n *Notifier) Status(text string) error {
	// A line break would let a part of the text act as an assignment of its own, READY=1 for example.
	if strings.ContainsAny(text, "\r\n") {
		return ErrStatus
	}
	return n.notify("STATUS=" + text)
}

// Watchdog reports the program alive at half of the interval that the unit sets (WatchdogSec=), as
// sd_watchdog_enabled(3) advises, for as long as healthy returns nil. While healthy returns an error
// nothing is reported, so the service manager restarts a program that hangs or knows itself broken.
// It returns when ctx ends, or at once when the unit sets no watchdog.
func (n *Notifier) Watchdog(ctx context.Context, healthy func(context.Context) error) error {
	interval, err := n.interval()
	if err != nil {
		return fmt.Errorf("read the watchdog's interval: %w", err)
	}
	if interval <= 0 {
		return nil
	}
	tick := time.NewTicker(interval / 2)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := healthy(ctx); err != nil {
			n.log.Error("not healthy, the watchdog is not fed", "err", err)
			continue
		}
		if err := n.notify(daemon.SdNotifyWatchdog); err != nil {
			n.log.Error("the watchdog could not be fed", "err", err)
		}
	}
}

func (n *Notifier) notify(state string) error {
	if _, err := n.send(state); err != nil {
		return fmt.Errorf("notify the service manager: %w", err)
	}
	return nil
}

// Unset returns env without the variables by which a process speaks to the service manager, for the
// environment of children.
func Unset(env []string) []string {
	kept := make([]string, 0, len(env))
	for _, kv := range env {
		name, _, _ := strings.Cut(kv, "=")
		switch name {
		case "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID":
		default:
			kept = append(kept, kv)
		}
	}
	return kept
}

// UnderSystemd reports whether a service manager listens.
func UnderSystemd() bool { return os.Getenv("NOTIFY_SOCKET") != "" }
