package session

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/alcove-room/alcove/daemon/audit"
	"github.com/alcove-room/alcove/daemon/e2ee"
	"github.com/alcove-room/alcove/daemon/e2ee/agreement"
	"github.com/alcove-room/alcove/mediacap"
)

// hub is the relay of a test: it carries messages between one room and its pages, and keeps what it was told. It
// can go away, hang, and be asked what it saw.
type hub struct {
	t    *testing.T
	room *Session

	mu    sync.Mutex
	told  []string
	pages []*page
	down  bool
	hang  chan struct{} // writes wait for it; nil: they do not
}

func (h *hub) tell(ctx context.Context, format string, a ...any) error {
	h.mu.Lock()
	hang, down := h.hang, h.down
	if hang == nil && !down {
		h.told = append(h.told, fmt.Sprintf(format, a...))
	}
	h.mu.Unlock()
	if down {
		return errors.New("no connection")
	}
	if hang != nil {
		select {
		case <-hang:
			return errors.New("came too late")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (h *hub) Open(ctx context.Context, _ [16]byte, d string) error { return h.tell(ctx, "open") }
func (h *hub) Admit(ctx context.Context, d string) error            { return h.tell(ctx, "admit %.8s", d) }
func (h *hub) Refuse(ctx context.Context, d, reason string) error {
	return h.tell(ctx, "refuse %.8s %s", d, reason)
}
func (h *hub) Remove(ctx context.Context, d, reason string) error {
	return h.tell(ctx, "remove %.8s %s", d, reason)
}
func (h *hub) Token(ctx context.Context) error { return h.tell(ctx, "token") }
func (h *hub) Close(ctx context.Context, reason string) error {
	return h.tell(ctx, "close %s", reason)
}

func (h *hub) Message(ctx context.Context, raw []byte) error {
	if err := h.tell(ctx, "message"); err != nil {
		return err
	}
	h.mu.Lock()
	pages := slices.Clone(h.pages)
	h.mu.Unlock()
	for _, p := range pages {
		p.take(raw)
	}
	return nil
}

// heard lists what the hub was told, messages of the agreement left out.
func (h *hub) heard() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(h.told), func(s string) bool { return s == "message" })
}

func (h *hub) set(do func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	do()
}

// page is a far end: a real endpoint of the key agreement, driven by its own goroutine.
type page struct {
	hub   *hub
	in    chan []byte
	stop  chan struct{}
	done  chan struct{}
	began time.Time

	mu       sync.Mutex
	e        *agreement.Endpoint
	epoch    *agreement.Epoch
	recv     []agreement.RecvKey
	send     *agreement.SendKey
	sending  agreement.Sending
	ended    string
	mute     bool // says nothing to the room
	received int
}

func (h *hub) page(role agreement.Role, name string) *page {
	h.t.Helper()
	e, err := agreement.New(agreement.Config{
		Role: role, Clinic: testClinic, SID: testSID, Name: name, Prove: agreement.HubProver,
		Verify:   agreement.Proofs{Device: func(agreement.Document, [32]byte) error { return nil }}.Verify,
		MinLevel: testLevels(),
	})
	if err != nil {
		h.t.Fatal(err)
	}
	p := &page{hub: h, e: e, in: make(chan []byte, 256), stop: make(chan struct{}), done: make(chan struct{}), began: time.Now()}
	h.set(func() { h.pages = append(h.pages, p) })
	go p.run()
	return p
}

func (p *page) now() agreement.Millis { return agreement.Millis(time.Since(p.began).Milliseconds()) }

func (p *page) take(raw []byte) {
	select {
	case p.in <- raw:
	case <-p.stop:
	}
}

func (p *page) run() {
	defer close(p.done)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-p.stop:
			return
		case raw := <-p.in:
			p.do(func() []agreement.Effect { p.received++; return p.e.Handle(p.now(), raw) })
		case <-tick.C:
			p.do(func() []agreement.Effect { return p.e.Tick(p.now()) })
		}
	}
}

func (p *page) do(step func() []agreement.Effect) {
	p.mu.Lock()
	var out [][]byte
	for _, x := range step() {
		switch x := x.(type) {
		case agreement.Send:
			out = append(out, x.Message)
		case agreement.Epoch:
			p.epoch = &x
		case agreement.RecvKey:
			p.recv = append(p.recv, x)
		case agreement.SendKey:
			p.send = &x
		case agreement.Sending:
			p.sending = x
		case agreement.Ended:
			p.ended = "ended " + x.Reason.String()
		case agreement.Failed:
			p.ended = "failed " + x.Reason.String()
		}
	}
	quiet := p.mute
	p.mu.Unlock()
	if quiet {
		return
	}
	for _, m := range out {
		p.hub.room.Message(m)
		p.hub.mu.Lock()
		others := slices.Clone(p.hub.pages)
		p.hub.mu.Unlock()
		for _, o := range others {
			if o != p {
				o.take(m)
			}
		}
	}
}

func (p *page) get(f func() bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return f()
}

// leave takes the page out of the call without a word: a tab that was closed.
func (p *page) close() {
	p.hub.set(func() {
		p.hub.pages = slices.DeleteFunc(p.hub.pages, func(o *page) bool { return o == p })
	})
	close(p.stop)
	<-p.done
}

func (p *page) knock(id string) {
	p.hub.room.Knock(p.e.D(), id, "hub says "+id, p.role())
}

func (p *page) role() agreement.Role {
	d, err := agreement.ParseDocument(p.e.Document())
	if err != nil {
		p.hub.t.Error(err)
	}
	return d.Role
}

// ledger is the audit log of a test.
type ledger struct {
	mu      sync.Mutex
	full    bool
	entries []string
}

func (l *ledger) Permit(a audit.Action, object string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.full {
		return errors.New("no space left")
	}
	l.entries = append(l.entries, string(a))
	return nil
}

func (l *ledger) Record(a audit.Action, object string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.full {
		l.entries = append(l.entries, string(a))
	}
}

func (l *ledger) has(a audit.Action) bool { return l.count(a) > 0 }

func (l *ledger) count(a audit.Action) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, e := range l.entries {
		if e == string(a) {
			n++
		}
	}
	return n
}

// room is one session under test, with what it does to the world.
type room struct {
	*Session
	hub    *hub
	ledger *ledger
	sink   *sink
	end    context.CancelFunc
	result chan Outcome

	mu        sync.Mutex
	capturing bool
	opened    int // times that capture was opened
	keyFrames int
	rates     []int
}

type sink struct {
	mu     sync.Mutex
	frames []string
}

func (s *sink) Frame(identity, mime string, frame []byte, _ uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.frames = append(s.frames, fmt.Sprintf("%s %s %x", identity, mime, sha256.Sum256(frame)))
}

func (s *sink) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.frames)
}

var (
	testClinic = sha256.Sum256([]byte("clinic"))
	testSID    = [16]byte{1, 2, 3}
)

func testLevels() map[agreement.Role]uint8 {
	return map[agreement.Role]uint8{agreement.RoleDevice: 3, agreement.RoleTherapist: 1, agreement.RolePatient: 1, agreement.RoleGuest: 1}
}

func newRoom(t *testing.T) *room {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	prove, err := agreement.DeviceProver(key)
	if err != nil {
		t.Fatal(err)
	}
	r := &room{hub: &hub{t: t}, ledger: &ledger{}, sink: &sink{}, result: make(chan Outcome, 1)}
	s, err := New(Config{
		SID: testSID, Clinic: testClinic, Label: "Room 1", Prove: prove, Verify: agreement.Proofs{}.Verify, MinLevel: testLevels(),
		VideoMime: mimeVP8, Width: 640, Height: 360, VideoBPS: 600_000, AudioBPS: 32_000,
		Relay: r.hub, Ledger: r.ledger, Sink: r.sink, Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Metrics: NewMetrics(),
		Capture: func(on bool) {
			r.mu.Lock()
			defer r.mu.Unlock()
			if on && !r.capturing {
				r.opened++
			}
			r.capturing = on
		},
		KeyFrame: func() { r.mu.Lock(); r.keyFrames++; r.mu.Unlock() },
		Rate:     func(bps int) { r.mu.Lock(); r.rates = append(r.rates, bps); r.mu.Unlock() },
	})
	if err != nil {
		t.Fatal(err)
	}
	r.Session, r.hub.room = s, s
	return r
}

// run starts the session with a hub that is there. What it started is gone when the test ends.
func (r *room) run(t *testing.T) *room {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r.end = cancel
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		r.result <- r.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
		for _, p := range slices.Clone(r.hub.pages) {
			p.close()
		}
	})
	r.Connected()
	r.Opened(Ticket{})
	return r
}

func (r *room) captures() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.capturing
}

// sealable says whether either sender seals anything now.
func (r *room) sealable() bool {
	_, video := r.Video().Sender.Encrypt(nil, vp8Frame(true))
	_, audio := r.Audio().Sender.Encrypt(nil, opusFrame())
	if errors.Is(video, e2ee.ErrNoKey) != errors.Is(audio, e2ee.ErrNoKey) {
		return true
	}
	return !errors.Is(video, e2ee.ErrNoKey)
}

// vp8Frame is a frame of 640×360 that the sender lets pass (RFC 6386 section 9.1).
func vp8Frame(key bool) []byte {
	f := make([]byte, 300)
	f[0] = 1 | 1<<4 // inter frame, shown, first partition of 8 bytes
	if key {
		f[0] = 1 << 4
		copy(f[3:], []byte{0x9d, 0x01, 0x2a, 640 & 0xff, 640 >> 8, 360 & 0xff, 360 >> 8})
	}
	f[1] = 1
	return f
}

func opusFrame() []byte {
	f := make([]byte, opusLength(32_000))
	f[0] = mediacap.OpusTOC
	return f
}

// until waits, on the bubble's clock, until ok holds.
func until(t *testing.T, what string, most time.Duration, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(most); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", most, what)
		}
	}
}

// meet lets p in and waits until the room may send.
func (r *room) meet(t *testing.T, p *page, id string) {
	t.Helper()
	p.knock(id)
	if err := r.Admit(id); err != nil {
		t.Fatal(err)
	}
	until(t, id+" is in", 10*time.Second, func() bool {
		st := r.Status()
		return st.Sending && slices.ContainsFunc(st.People, func(q Person) bool { return q.ID == p.e.EID() })
	})
}

func notNow(t *testing.T, err error) {
	t.Helper()
	var n *NotNow
	if !errors.As(err, &n) || n.Why == "" {
		t.Fatalf("got %v, want a NotNow with words", err)
	}
}
