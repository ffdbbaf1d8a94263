package session

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alcove-room/alcove/daemon/audit"
	"github.com/alcove-room/alcove/daemon/e2ee"
	"github.com/alcove-room/alcove/daemon/e2ee/agreement"
)

func TestCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoom(t).run(t)
		p := r.hub.page(agreement.RoleTherapist, "Dr Lee")
		notNow(t, r.Start(false)) // nobody is there
		if r.sealable() {
			t.Fatal("a sender has a key before anybody was admitted")
		}
		r.meet(t, p, "lee")
		if r.captures() {
			t.Fatal("being admitted opened the camera")
		}
		st := r.Status()
		if st.State != stateAdmitted || st.People[0].Name != "Dr Lee" || len(st.Pictures) != 4 {
			t.Fatalf("status %+v", st)
		}
		if !p.get(func() bool { return p.epoch.Code == st.Code && len(p.recv) == 1 }) {
			t.Fatal("the two ends do not have the same code, or no key")
		}
		if !r.sealable() {
			t.Fatal("no key although sending is allowed")
		}
		if err := r.Start(false); err != nil {
			t.Fatal(err)
		}
		until(t, "capture", time.Second, r.captures)
		if got := r.Status().State; got != stateTalking {
			t.Fatalf("state %s", got)
		}
		if err := r.Pause(); err != nil {
			t.Fatal(err)
		}
		until(t, "paused", time.Second, func() bool { return !r.captures() })
		if err := r.End(""); err != nil {
			t.Fatal(err)
		}
		out := <-r.result
		if out.Failed || out.Reason != "ended" {
			t.Fatalf("outcome %+v", out)
		}
		until(t, "the page hears of the end", time.Second, func() bool { return p.get(func() bool { return p.ended == "ended ended" }) })
		if r.sealable() {
			t.Fatal("a sender has a key after the end")
		}
		if got := r.hub.heard(); got[len(got)-1] != "close ended" {
			t.Fatalf("the hub heard %q", got)
		}
		for _, err := range []error{r.Start(true), r.Pause(), r.Admit(""), r.End(""), r.Remove("lee", ""), r.Refuse("", "")} {
			notNow(t, err)
		}
		for a, want := range map[audit.Action]int{audit.Admit: 1, audit.SessionStart: 1, audit.Pause: 1, audit.SessionEnd: 1} {
			if got := r.ledger.count(a); got != want {
				t.Errorf("%s: %d entries, want %d", a, got, want)
			}
		}
	})
}

// Whoever is admitted after all others have left finds camera and microphone closed.
func TestNextPersonNeedsAPress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoom(t).run(t)
		first := r.hub.page(agreement.RoleTherapist, "First")
		r.meet(t, first, "first")
		if err := r.Start(false); err != nil {
			t.Fatal(err)
		}
		until(t, "capture", time.Second, r.captures)
		r.Left(first.e.D())
		until(t, "closed", time.Second, func() bool { return !r.captures() })
		first.close()
		if r.sealable() {
			t.Fatal("a sender keeps a key when everybody has left")
		}
		st := r.Status()
		if st.State != stateOpen || len(st.People) != 0 || st.Code != "" {
			t.Fatalf("status %+v", st)
		}
		notNow(t, r.Start(false))
		second := r.hub.page(agreement.RolePatient, "Second")
		r.meet(t, second, "second")
		time.Sleep(5 * time.Second)
		if r.captures() || r.opened != 1 {
			t.Fatal("the camera opened for the next person without a press")
		}
	})
}

func TestStartInAdvanceCountsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoom(t).run(t)
		if err := r.Start(true); err != nil {
			t.Fatal(err)
		}
		p := r.hub.page(agreement.RoleTherapist, "A")
		r.meet(t, p, "a")
		until(t, "capture", time.Second, r.captures)
		r.Left(p.e.D())
		until(t, "closed", time.Second, func() bool { return !r.captures() })
		p.close()
		q := r.hub.page(agreement.RoleTherapist, "B")
		r.meet(t, q, "b")
		time.Sleep(3 * time.Second)
		if r.captures() {
			t.Fatal("one press started two times")
		}
		if err := r.Start(true); err != nil {
			t.Fatal(err)
		}
		until(t, "capture", time.Second, r.captures)
		if err := r.Pause(); err != nil {
			t.Fatal(err)
		}
		until(t, "paused", time.Second, func() bool { return !r.captures() })
	})
}

func TestPauseTakesBackAPressInAdvance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoom(t).run(t)
		for _, press := range []func() error{func() error { return r.Start(true) }, r.Pause} {
			if err := press(); err != nil {
				t.Fatal(err)
			}
		}
		p := r.hub.page(agreement.RoleTherapist, "A")
		r.meet(t, p, "a")
		time.Sleep(3 * time.Second)
		if r.captures() {
			t.Fatal("a press that was taken back counted")
		}
	})
}

// An entry that cannot be written refuses what opens, and never what closes.
func TestFullLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoom(t).run(t)
		r.ledger.full = true
		p := r.hub.page(agreement.RoleTherapist, "A")
		p.knock("a")
		if err := r.Admit("a"); err == nil || !strings.Contains(err.Error(), "log") {
			t.Fatalf("admitted without an entry: %v", err)
		}
		time.Sleep(3 * time.Second)
		if got := r.Status(); got.Epoch != 0 || slices.ContainsFunc(r.hub.heard(), func(s string) bool { return strings.HasPrefix(s, "admit") }) {
			t.Fatalf("refused admission had an effect: %+v, %q", got, r.hub.heard())
		}
		r.ledger.mu.Lock()
		r.ledger.full = false
		r.ledger.mu.Unlock()
		r.meet(t, p, "a")
		r.ledger.mu.Lock()
		r.ledger.full = true
		r.ledger.mu.Unlock()
		if err := r.Start(false); err == nil || r.captures() {
			t.Fatalf("started without an entry: %v", err)
		}
		r.ledger.mu.Lock()
		r.ledger.full = false
		r.ledger.mu.Unlock()
		if err := r.Start(false); err != nil {
			t.Fatal(err)
		}
		until(t, "capture", time.Second, r.captures)
		r.ledger.mu.Lock()
		r.ledger.full = true
		r.ledger.mu.Unlock()
		if err := r.Pause(); err != nil {
			t.Fatal(err)
		}
		until(t, "pause works with a full log", time.Second, func() bool { return !r.captures() })
		if err := r.Remove("A", ""); err != nil {
			t.Fatal(err)
		}
		until(t, "so does remove", time.Second, func() bool { return !r.sealable() })
		if err := r.End(""); err != nil {
			t.Fatal(err)
		}
		<-r.result
	})
}

func TestAloneClosesCapture(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoom(t).run(t)
		p := r.hub.page(agreement.RoleTherapist, "A")
		r.meet(t, p, "a")
		if err := r.Start(false); err != nil {
			t.Fatal(err)
		}
		until(t, "capture", time.Second, r.captures)
		// The far end stops to confirm keys: after the next rotation nobody is ready, but nobody has left either.
		p.mu.Lock()
		p.mute = true
		p.mu.Unlock()
		r.Gone(p.e.D())
		began := time.Now()
		until(t, "closed", 3*time.Minute, func() bool { return !r.captures() })
		if took := time.Since(began); took > aloneLimit+2*time.Second {
			t.Fatalf("open for %v with nobody there", took)
		}
		if r.ledger.count(audit.Pause) != 1 {
			t.Fatal("closing is not in the log")
		}
	})
}

func TestRemoveDestroysKeysAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoom(t).run(t)
		a := r.hub.page(agreement.RoleTherapist, "Dr Lee")
		r.meet(t, a, "one")
		b := r.hub.page(agreement.RolePatient, "Sam")
		r.meet(t, b, "two")
		// The hub gives the patient's place the therapist's name: it must not decide who is taken out.
		r.Knock(b.e.D(), "two", "Dr Lee", agreement.RolePatient)
		if err := r.Remove("Dr Lee", "asked to"); err != nil {
			t.Fatal(err)
		}
		if r.sealable() {
			t.Fatal("sending goes on under a key that the removed one has")
		}
		until(t, "the others go on", 10*time.Second, func() bool {
			st := r.Status()
			return st.Sending && len(st.People) == 1 && st.People[0].Name == "Sam"
		})
		want := fmt.Sprintf("remove %.8s asked to", a.e.D())
		if got := r.hub.heard(); !slices.Contains(got, want) || slices.ContainsFunc(got, func(s string) bool { return strings.HasPrefix(s, fmt.Sprintf("remove %.8s", b.e.D())) }) {
			t.Fatalf("the hub heard %q, want %q", got, want)
		}
		if r.ledger.count(audit.Remove) != 1 {
			t.Fatal("one removal is not one entry")
		}
		until(t, "the removed one knows", time.Second, func() bool { return a.get(func() bool { return a.ended != "" }) })
		if err := r.Remove(b.e.EID(), "\x1b[2J"); err != nil {
			t.Fatalf("by the id that status shows: %v", err)
		}
		until(t, "hub told in its own form", time.Second, func() bool {
			return slices.Contains(r.hub.heard(), fmt.Sprintf("remove %.8s removed", b.e.D()))
		})
	})
}

func TestRefuse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoom(t).run(t)
		a, b := r.hub.page(agreement.RoleGuest, "A"), r.hub.page(agreement.RoleGuest, "B")
		notNow(t, r.Refuse("", ""))
		a.knock("a")
		b.knock("b")
		notNow(t, r.Admit("")) // two wait
		notNow(t, r.Admit("nobody"))
		if err := r.Refuse(a.e.EID(), "not today"); err != nil {
			t.Fatal(err)
		}
		if err := r.Admit(""); err != nil {
			t.Fatal(err)
		}
		until(t, "hub told", time.Second, func() bool {
			return slices.Contains(r.hub.heard(), fmt.Sprintf("refuse %.8s not today", a.e.D())) &&
				slices.Contains(r.hub.heard(), fmt.Sprintf("admit %.8s", b.e.D()))
		})
	})
}

func TestFarEndThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoom(t).run(t)
		p := r.hub.page(agreement.RoleTherapist, "A")
		r.meet(t, p, "a")
		if err := r.Start(false); err != nil {
			t.Fatal(err)
		}
		until(t, "capture", time.Second, r.captures)
		p.do(func() []agreement.Effect { return p.e.MarkDifferent(p.now()) })
		out := <-r.result
		if !out.Failed || out.Reason != agreement.ReasonDifferent.String() {
			t.Fatalf("outcome %+v", out)
		}
		if r.captures() || r.sealable() || r.Status().State != stateFailed {
			t.Fatal("a failed session captures or sends")
		}
		if slices.ContainsFunc(r.hub.heard(), func(s string) bool { return strings.HasPrefix(s, "close") }) {
			t.Fatal("a failed session closes the appointment")
		}
	})
}

// While nothing may be sent, no sender holds a key: looked at after every step of a busy session.
func TestNoKeyWhileSendingIsNotAllowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoom(t).run(t)
		states := make(map[string]int)
		watch := func() {
			_ = r.ask(func() error { // on the owner: status and keys of one moment
				if !r.sending.Allowed {
					states[r.sending.Reason.String()]++
					if r.sealable() {
						t.Errorf("a key although %s", r.sending.Reason)
					}
					if _, err := r.keys.seal([]byte("x")); !errors.Is(err, e2ee.ErrNoKey) {
						t.Errorf("data sealed although %s", r.sending.Reason)
					}
				} else {
					states["allowed"]++
				}
				return nil
			})
		}
		watching := func(d time.Duration) {
			for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(time.Millisecond) {
				watch()
			}
		}
		a, b := r.hub.page(agreement.RoleTherapist, "A"), r.hub.page(agreement.RolePatient, "B")
		watch()
		a.knock("a")
		if err := r.Admit("a"); err != nil {
			t.Fatal(err)
		}
		watching(3 * time.Second)
		r.meet(t, b, "b")
		watch()
		if err := r.Remove("A", ""); err != nil {
			t.Fatal(err)
		}
		watching(3 * time.Second)
		r.Left(b.e.D())
		watching(time.Second)
		if err := r.End(""); err != nil {
			t.Fatal(err)
		}
		<-r.result
		if r.sealable() {
			t.Error("a key after the end")
		}
		for _, want := range []string{"allowed", agreement.ReasonNoEpoch.String(), agreement.ReasonChanging.String()} {
			if states[want] == 0 {
				t.Errorf("never seen: %s (%v)", want, states)
			}
		}
	})
}

func TestRekeyWhenAKeyIsUsedUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoom(t).run(t)
		p := r.hub.page(agreement.RoleTherapist, "A")
		r.meet(t, p, "a")
		out := r.Audio()
		var err error
		for range e2ee.MaxFrames + 1 {
			if _, err = out.Sender.Encrypt(nil, opusFrame()); err != nil {
				break
			}
		}
		if !errors.Is(err, e2ee.ErrKeyExhausted) {
			t.Fatalf("after %d frames: %v", e2ee.MaxFrames, err)
		}
		for range 100 { // once for each frame that is refused meanwhile
			r.Rekey()
		}
		until(t, "a new generation", 5*time.Second, func() bool {
			_, err := out.Sender.Encrypt(nil, opusFrame())
			return err == nil
		})
		if !p.get(func() bool { return len(p.recv) == 2 }) {
			t.Fatalf("the far end has %d keys", len(p.recv))
		}
	})
}
