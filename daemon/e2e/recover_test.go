package e2e

import (
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/alcove-room/alcove/daemon/e2e/browser"
	"github.com/alcove-room/alcove/daemon/e2e/stack"
)

const (
	recoverLimit = 15 * time.Second // both directions again: asserted
	recoverGoal  = 5 * time.Second  // median: a figure
	// steady is how long both directions must go on, without a gap of more than breath, to count as back.
	steady = 3 * time.Second
	breath = 700 * time.Millisecond
)

// flow watches the call from outside: the counter in the page's picture, and the room's counts of what arrives.
type flow struct {
	s *stack.Stack
	p *browser.Page
}

var flowNames = [3]string{"picture in the page", "picture in the room", "sound in the room"}

// look returns three numbers that rise while the call goes on; -1 is unknown.
func (f flow) look(t *testing.T) (now [3]int64) {
	var counter int64
	ok(t, f.p.Eval("probe.counter()", &counter))
	now = [3]int64{counter, -1, -1}
	if st, err := f.s.Status(t.Context()); err == nil && st.Session != nil && len(st.Session.People) == 1 {
		got := st.Session.People[0].Received
		now[1], now[2] = int64(got.VideoFrames), int64(got.AudioPackets)
	}
	return now
}

// stalled waits until nothing has risen for a second.
func (f flow) stalled(t *testing.T, limit time.Duration) {
	t.Helper()
	last, since := f.look(t), time.Now()
	for began := time.Now(); time.Since(since) < time.Second; time.Sleep(50 * time.Millisecond) {
		if now := f.look(t); now != last {
			last, since = now, time.Now()
		}
		if time.Since(began) > limit {
			t.Fatalf("media goes on: %v", last)
		}
	}
}

// back returns how long after from both directions went on and stayed.
func (f flow) back(t *testing.T, from time.Time) time.Duration {
	t.Helper()
	var start, rose [3]time.Time
	var still [3]int // looks since it rose: on a busy machine a look takes long, and says nothing about the time between
	last := f.look(t)
	for time.Since(from) < recoverLimit+steady {
		time.Sleep(50 * time.Millisecond)
		now, at := f.look(t), time.Now()
		done := true
		for i := range now {
			still[i]++
			if now[i] > last[i] && last[i] >= 0 {
				if rose[i].IsZero() || at.Sub(rose[i]) > breath && still[i] > 3 {
					start[i] = at
				}
				rose[i], still[i] = at, 0
			}
			done = done && !rose[i].IsZero() && still[i] <= 3 && at.Sub(start[i]) >= steady
		}
		last = now
		if done {
			took := [3]time.Duration{}
			for i := range start {
				took[i] = start[i].Sub(from).Round(10 * time.Millisecond)
			}
			t.Logf("back after %v (%v)", took, flowNames)
			return slices.Max(took[:])
		}
	}
	st, err := f.s.Status(t.Context())
	var text string
	_ = f.p.Eval("document.body.innerText", &text) // only for the message
	t.Fatalf("%v after the repair media does not go on: %v %v; the room says %+v (%v); the page says:\n%s\n%s",
		time.Since(from), flowNames, last, st.Session, err, text, f.p.Said())
	return 0
}

// figure prints the median and asserts the limit for every one.
func figure(t *testing.T, name string, took []time.Duration) {
	t.Helper()
	sorted := slices.Sorted(slices.Values(took))
	median := sorted[len(sorted)/2]
	verdict := "ok"
	if median > recoverGoal {
		verdict = "short"
	}
	fmt.Printf("BENCH name=%s value=%.2f unit=s goal=%v n=%d spread=%.2f on=guest %s\n", name, median.Seconds(),
		recoverGoal.Seconds(), len(sorted), (sorted[len(sorted)-1] - sorted[0]).Seconds(), verdict)
	if worst := sorted[len(sorted)-1]; worst > recoverLimit {
		t.Errorf("%s: %v, longer than %v", name, worst, recoverLimit)
	}
}

// TestSFUKilled kills LiveKit; the hub starts it again, and room and page join it again.
func TestSFUKilled(t *testing.T) {
	s := start(t, stack.Options{})
	b := chromium(t, browser.Options{})
	f := flow{s, call(t, s, b)}
	picture(t, f.p, 15*time.Second)
	f.back(t, time.Now())
	var took []time.Duration
	for range 3 {
		pid := must[int](t)(s.SFUPID())
		ok(t, syscall.Kill(pid, syscall.SIGKILL))
		killed := time.Now()
		took = append(took, f.back(t, killed))
		if again := must[int](t)(s.SFUPID()); again == pid {
			t.Fatal("LiveKit was not started again")
		}
	}
	heard(t, f.p)
	figure(t, "recover_sfu_killed", took)
}

// TestLinkCut cuts the page's network, the room's, and both, for 20 s each.
func TestLinkCut(t *testing.T) {
	const length = 20 * time.Second
	media := newSFU(t)
	s := start(t, media.options(t))
	b := chromium(t, browser.Options{})
	f := flow{s, call(t, s, b)}
	picture(t, f.p, 15*time.Second)
	f.back(t, time.Now())
	for who, w := range media.wires {
		if who != other && w.datagrams.Load() < 100 {
			t.Fatalf("the media of the %s does not pass the wire: %d datagrams", who, w.datagrams.Load())
		}
	}
	var took []time.Duration
	for _, cut := range []struct {
		name string
		who  []party
	}{{"page", []party{aPage}}, {"room", []party{theRoom}}, {"both", []party{aPage, theRoom}}} {
		for _, who := range cut.who {
			media.wires[who].cut()
		}
		began := time.Now()
		f.stalled(t, 6*time.Second)
		time.Sleep(max(0, 7*time.Second-time.Since(began)))
		screenshot(t, f.p, "cut-"+cut.name)
		before := f.look(t)
		time.Sleep(max(0, length-time.Since(began)))
		if now := f.look(t); now != before {
			t.Errorf("while the %s was cut, media went on: %v, then %v", cut.name, before, now)
		}
		for _, who := range cut.who {
			media.wires[who].repair()
		}
		one := f.back(t, time.Now())
		t.Logf("%s: back after %v", cut.name, one)
		took = append(took, one)
	}
	heard(t, f.p)
	screenshot(t, f.p, "cut-repaired")
	figure(t, "recover_link_cut", took)
}
