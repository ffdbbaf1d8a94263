package main

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/alcove-room/alcove/daemon/e2e/stack"
)

// look is what an idle daemon takes.
type look struct {
	rss, heap, goroutines, descriptors float64
}

// measureSessions compares the daemon after one session with the same daemon after many.
func measureSessions(ctx context.Context, c config, r *report) error {
	k, err := newClinic(ctx, c, nil)
	if err != nil {
		return err
	}
	defer k.Close()
	idle, err := k.look()
	if err != nil {
		return err
	}
	r.add(figure{name: "daemon_rss_before_sessions", unit: "MiB", value: idle.rss / (1 << 20), goal: none, stretch: none, spread: none, n: 1})
	var starts []float64
	one := func() error {
		ms, err := k.shortSession(ctx)
		starts = append(starts, ms)
		return err
	}
	if err := one(); err != nil {
		return err
	}
	before, err := k.lookIdle(ctx, c)
	if err != nil {
		return err
	}
	for range c.sessions - 1 {
		if err := one(); err != nil {
			return fmt.Errorf("session %d: %w\n%s", len(starts), err, k.Logs())
		}
	}
	after, err := k.lookIdle(ctx, c)
	if err != nil {
		return err
	}
	n := c.sessions
	r.add(figure{
		name: fmt.Sprintf("daemon_rss_after_%d_sessions_vs_1", n), unit: "ratio", value: after.rss / before.rss, goal: 1.1, stretch: 1,
		spread: none, n: n, comparison: fmt.Sprintf("resident %.1f MiB, then %.1f MiB; heap in use %.1f MiB, then %.1f MiB",
			before.rss/(1<<20), after.rss/(1<<20), before.heap/(1<<20), after.heap/(1<<20)),
	})
	for _, f := range []struct {
		name      string
		was, then float64
	}{{"goroutines", before.goroutines, after.goroutines}, {"descriptors", before.descriptors, after.descriptors}} {
		r.add(figure{
			name: "daemon_" + f.name + "_left_over", unit: f.name, value: f.then - f.was, goal: 0, stretch: none, spread: none, n: n,
			comparison: fmt.Sprintf("%g, then %g", f.was, f.then),
		})
	}
	r.add(figure{name: "room_start_to_first_picture", unit: "ms", value: median(starts), goal: none, stretch: none, spread: none, n: len(starts)})
	r.varied("room start to first picture, ms: %s", histogram(starts, 100))
	return nil
}

// shortSession runs a session of one person who sends and receives, and returns the milliseconds from the press on
// start to the first picture.
func (k *clinic) shortSession(ctx context.Context) (float64, error) {
	if err := k.newSession(ctx, "therapist:"+viewer); err != nil {
		return 0, err
	}
	p, err := k.knock(ctx, k.viewers, viewer, "camera", "microphone")
	if err != nil {
		return 0, err
	}
	defer p.Close()
	if _, err := k.Press(ctx, "admit"); err != nil {
		return 0, err
	}
	if err := k.here(ctx, 1); err != nil {
		return 0, err
	}
	pressed := time.Now()
	if _, err := k.Press(ctx, "start"); err != nil {
		return 0, err
	}
	t, err := picture(p)
	if err != nil {
		return 0, err
	}
	_, err = k.Await(ctx, 10*time.Second, "pictures from the page", func(st stack.Status) bool {
		return st.Session != nil && len(st.Session.People) == 1 && st.Session.People[0].Received.VideoFrames > 0
	})
	if err != nil {
		return 0, err
	}
	if _, err := k.Press(ctx, "end"); err != nil {
		return 0, err
	}
	_, err = k.Await(ctx, 10*time.Second, "the end of the session", func(st stack.Status) bool { return st.Session == nil && st.Camera == "off" })
	return t.First - float64(pressed.UnixMicro())/1000, err
}

// lookIdle leaves the daemon alone first.
func (k *clinic) lookIdle(ctx context.Context, c config) (look, error) {
	select {
	case <-ctx.Done():
		return look{}, ctx.Err()
	case <-time.After(c.idle):
	}
	return k.look()
}

// look reads the kernel's word on the daemon's memory and the daemon's own on the rest.
func (k *clinic) look() (look, error) {
	var l look
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", k.RoomPID()))
	if err != nil {
		return l, err
	}
	if l.rss, err = line(string(status), `VmRSS:\s+(\d+) kB`); err != nil {
		return l, err
	}
	l.rss *= 1024
	metrics, err := k.Metrics()
	if err != nil {
		return l, err
	}
	for name, to := range map[string]*float64{
		"go_memstats_heap_inuse_bytes": &l.heap, "go_goroutines": &l.goroutines, "process_open_fds": &l.descriptors,
	} {
		if *to, err = line(metrics, `(?m)^`+name+` (\S+)$`); err != nil {
			return l, err
		}
	}
	return l, nil
}

func line(text, form string) (float64, error) {
	m := regexp.MustCompile(form).FindStringSubmatch(text)
	if m == nil {
		return 0, fmt.Errorf("nothing like %s in what was read", strings.TrimPrefix(form, "(?m)"))
	}
	return strconv.ParseFloat(m[1], 64)
}
