package session

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alcove-room/alcove/daemon/audit"
	"github.com/alcove-room/alcove/daemon/e2ee/agreement"
)

// A hub that takes nothing holds up neither a press nor the key agreement's clock.
func TestHubThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoom(t).run(t)
		p := r.hub.page(agreement.RoleTherapist, "A")
		r.meet(t, p, "a")
		if err := r.Start(false); err != nil {
			t.Fatal(err)
		}
		until(t, "capture", time.Second, r.captures)
		hang := make(chan struct{})
		r.hub.set(func() { r.hub.hang = hang })
		for range 10 { // one of them is being written, the others wait
			r.Resync()
		}
		began := time.Now()
		for _, press := range []func() error{r.Pause, func() error { return r.Start(false) }, func() error { return r.Remove("A", "") }} {
			if err := press(); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(began); took > 0 {
			t.Fatalf("presses took %v while the hub hangs", took)
		}
		until(t, "closed", time.Second, func() bool { return !r.captures() && !r.sealable() })
		began = time.Now()
		if err := r.End(""); err != nil {
			t.Fatal(err)
		}
		<-r.result
		if took := time.Since(began); took > 2*farewell {
			t.Fatalf("the end took %v", took)
		}
		close(hang)
	})
}

// What was decided while the hub was away is told when it is back; messages of the agreement are made again.
func TestHubLostAndBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoom(t).run(t)
		a, b, c := r.hub.page(agreement.RoleTherapist, "A"), r.hub.page(agreement.RolePatient, "B"), r.hub.page(agreement.RoleGuest, "C")
		r.meet(t, a, "a")
		b.knock("b")
		c.knock("c")
		r.hub.set(func() { r.hub.down = true })
		r.Disconnected()
		if err := r.Admit("b"); err != nil {
			t.Fatal(err)
		}
		if err := r.Refuse("c", "no"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Second)
		if st := r.Status(); st.HubUp || len(st.People) != 1 || !st.Sending {
			t.Fatalf("status without the hub %+v", st)
		}
		r.hub.set(func() { r.hub.down, r.hub.told = false, nil })
		r.Connected()
		until(t, "open again", time.Second, func() bool { return slices.Equal(r.hub.heard(), []string{"open"}) })
		r.Opened(Ticket{})
		until(t, "decisions", time.Second, func() bool {
			h := r.hub.heard()
			return slices.Contains(h, fmt.Sprintf("admit %.8s", b.e.D())) && slices.Contains(h, fmt.Sprintf("refuse %.8s no", c.e.D()))
		})
		until(t, "B is in", 10*time.Second, func() bool { st := r.Status(); return len(st.People) == 2 && st.Sending })
		r.hub.set(func() { r.hub.told = nil })
		r.Resync()
		until(t, "everything is said again", time.Second, func() bool {
			r.hub.mu.Lock()
			defer r.hub.mu.Unlock()
			return slices.Contains(r.hub.told, "message")
		})
	})
}

// A member's endpoint without a word for a minute is taken out, whatever the hub says.
func TestSilentMember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoom(t).run(t)
		p := r.hub.page(agreement.RoleTherapist, "A")
		r.meet(t, p, "a")
		r.Gone(p.e.D())
		until(t, "shown as away", time.Second, func() bool { return r.Status().People[0].Away })
		time.Sleep(30 * time.Second)
		r.Back(p.e.D())
		time.Sleep(45 * time.Second)
		if st := r.Status(); len(st.People) != 1 || st.People[0].Away {
			t.Fatalf("%+v", st.People)
		}
		r.Gone(p.e.D())
		until(t, "taken out", 2*time.Minute, func() bool { return len(r.Status().People) == 0 })
		if !r.ledger.has(audit.SessionLeave) || r.sealable() {
			t.Fatal("no entry, or a key that stays")
		}
	})
}

func TestEndsFromOutside(t *testing.T) {
	for want, end := range map[string]func(*room){
		"cancelled":   func(r *room) { r.Cancelled() },
		"revoked":     func(r *room) { r.Revoked() },
		"ended":       func(r *room) { r.end() }, // the daemon ends
		"staff_asked": func(r *room) { _ = r.End("staff_asked") },
	} {
		t.Run(want, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRoom(t).run(t)
				p := r.hub.page(agreement.RoleTherapist, "A")
				r.meet(t, p, "a")
				r.Yield() // somebody is here, so this does nothing
				if err := r.Start(false); err != nil {
					t.Fatal(err)
				}
				until(t, "capture", time.Second, r.captures)
				end(r)
				if out := <-r.result; out.Failed || out.Reason != want {
					t.Fatalf("outcome %+v", out)
				}
				if r.captures() || r.sealable() {
					t.Fatal("captures or sends after the end")
				}
				until(t, "the page hears of it", time.Second, func() bool { return p.get(func() bool { return p.ended == "ended ended" }) })
				if got := r.hub.heard(); got[len(got)-1] != "close "+want {
					t.Fatalf("the hub heard %q", got)
				}
			})
		})
	}
	t.Run("nobody came", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRoom(t).run(t)
			r.Yield()
			if out := <-r.result; out.Failed || out.Reason != "nobody_came" {
				t.Fatalf("outcome %+v", out)
			}
			if len(r.ledger.entries) != 0 {
				t.Fatalf("a session that nobody touched fills the log: %v", r.ledger.entries)
			}
		})
	})
}

// A hub cannot fill memory or the screen with people who wait.
func TestFloodOfKnocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoom(t).run(t)
		p := r.hub.page(agreement.RoleTherapist, "A")
		r.meet(t, p, "a")
		for i := range 300 {
			r.Knock(agreement.D{byte(i), byte(i >> 8), 7}, fmt.Sprintf("id-%d", i), "\x1b[2J\u202e"+strings.Repeat("診", 1000), agreement.RolePatient)
		}
		r.Knock(r.agree.D(), "self", "the room itself", agreement.RolePatient)
		st := r.Status()
		if len(st.Waiting) == 0 || len(st.Waiting) > maxPeople {
			t.Fatalf("%d people wait", len(st.Waiting))
		}
		for _, w := range st.Waiting {
			if len(w.Name) > maxShown || strings.ContainsAny(w.Name, "\x1b\u202e") {
				t.Fatalf("shown: %q", w.Name)
			}
		}
		if len(st.People) != 1 || !st.Sending {
			t.Fatal("the flood pushed a member out")
		}
		for range 200 { // one person who knocks again and again is one
			r.Knock(agreement.D{9, 9, byte(time.Now().Nanosecond())}, "same", "S", agreement.RolePatient)
		}
	})
}

// A flood of junk through the relay changes nothing, and a session that has ended takes nothing more.
func TestFloodOfMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoom(t).run(t)
		p := r.hub.page(agreement.RoleTherapist, "A")
		r.meet(t, p, "a")
		for i := range 2000 {
			r.Message([]byte(strings.Repeat("x", i%300)))
		}
		if st := r.Status(); !st.Sending || st.State != stateAdmitted {
			t.Fatalf("%+v", st)
		}
		if err := r.End(""); err != nil {
			t.Fatal(err)
		}
		<-r.result
		before := runtime.NumGoroutine()
		for range 1000 {
			r.Message([]byte("x"))
			r.Knock(agreement.D{1}, "x", "x", agreement.RoleGuest)
			r.Ticket(Ticket{})
			r.Resync()
			r.Connected()
			r.Rekey()
		}
		if n := runtime.NumGoroutine(); n > before {
			t.Fatalf("%d goroutines more after the end", n-before)
		}
	})
}

func TestOutboxBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refilled := 0
		o := newOutbox(slog.New(slog.DiscardHandler), func() { refilled++ })
		gate := make(chan struct{})
		var sent []string
		say := func(what string, keep bool) {
			o.put(letter{what: what, size: 100, keep: keep, send: func(ctx context.Context) error {
				select {
				case <-gate:
					sent = append(sent, what)
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			}})
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); o.run(ctx) }()
		say("lost", false) // nobody to send it to
		say("kept", true)
		o.setUp(true)
		o.settleOwed()
		for i := range 10_000 {
			say(fmt.Sprint(i), false)
		}
		o.mu.Lock()
		waiting := len(o.queue)
		o.mu.Unlock()
		if waiting > outboxLetters {
			t.Fatalf("%d letters wait", waiting)
		}
		close(gate)
		o.flush(time.Second)
		synctest.Wait()
		if sent[0] != "kept" || sent[1] != "0" || sent[2] != "1" || slices.Contains(sent, "lost") {
			t.Fatalf("in this order: %q", sent[:3])
		}
		if refilled != 1 {
			t.Fatalf("asked %d times to say again what was dropped", refilled)
		}
		o.setUp(false)
		for i := range 1000 {
			say(fmt.Sprint(i), true)
		}
		if n := len(o.owed); n != owedLetters {
			t.Fatalf("%d decisions wait", n)
		}
		cancel()
		<-done
	})
}

func TestTicketsAreTakenOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoom(t).run(t)
		until(t, "the opening's ticket is there", time.Second, func() bool { r.tickets.mu.Lock(); defer r.tickets.mu.Unlock(); return r.tickets.newest != nil })
		r.Ticket(Ticket{Token: "newer"})
		got, err := r.ticket(t.Context())
		if err != nil || got.Token != "newer" {
			t.Fatalf("%+v, %v", got, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if got, err := r.ticket(ctx); err == nil {
			t.Fatalf("the same ticket again: %+v", got)
		}
		if !slices.Contains(r.hub.heard(), "token") {
			t.Fatal("no token was asked for")
		}
		r.Ticket(Ticket{Token: "late"}) // the answer to the asking that was given up
		if got, err := r.ticket(t.Context()); err != nil || got.Token != "late" {
			t.Fatalf("%+v, %v", got, err)
		}
		r.Ticket(Ticket{Token: "old"})
		time.Sleep(ticketFresh + time.Second)
		if got, ok := r.tickets.take(); ok {
			t.Fatalf("used after %v: %+v", ticketFresh, got)
		}
	})
}
