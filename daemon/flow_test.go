package daemon

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/alcove-room/alcove/daemon/e2ee"
	"github.com/alcove-room/alcove/daemon/session"
	"github.com/alcove-room/alcove/mediacap"
)

// script is a launcher whose processes follow a script.
type script struct {
	play func(p *scripted) // runs on a goroutine of its own; the process ends with it
	fail error
	deaf bool // it never reads a request

	started, living atomic.Int32
}

// scripted is one process of a script: both ends of a socket, as daemon and program would hold them.
type scripted struct {
	net.Conn            // the daemon's end
	peer       net.Conn // the process's
	out        *mediacap.Writer
	requests   chan mediacap.Request
	stopped    chan struct{} // the daemon asked it to stop
	done       chan struct{}
	closed     sync.Once
	videoSeq   uint32
	audioSeq   uint32
	ignoreStop bool
	synthetic  bool
}

func (s *script) launch(context.Context, captureSettings) (captureProcess, error) {
	if s.fail != nil {
		return nil, s.fail
	}
	ours, theirs := net.Pipe()
	p := &scripted{Conn: ours, peer: theirs, out: mediacap.NewWriter(theirs), requests: make(chan mediacap.Request, 64),
		stopped: make(chan struct{}), done: make(chan struct{})}
	s.started.Add(1)
	s.living.Add(1)
	go func() {
		defer s.living.Add(-1)
		defer close(p.done)
		defer theirs.Close()
		if !s.deaf {
			go p.listen()
		}
		s.play(p)
	}()
	return p, nil
}

func (p *scripted) listen() {
	r := mediacap.NewRequestReader(p.peer)
	for {
		m, err := r.Read()
		if err != nil {
			return
		}
		if _, stop := m.(mediacap.Stop); stop {
			close(p.stopped)
			if !p.ignoreStop {
				return
			}
			continue
		}
		select {
		case p.requests <- m:
		default:
		}
	}
}

// Close does what a child's does: ask, wait, take away.
func (p *scripted) Close() error {
	var err error
	p.closed.Do(func() {
		_ = p.SetWriteDeadline(time.Now().Add(writeGrace))
		_ = mediacap.NewRequestWriter(p.Conn).Send(mediacap.Stop{})
		select {
		case <-p.done:
		case <-time.After(stopGrace):
			err = errors.New("had to be killed")
		}
		p.Conn.Close()
		p.peer.Close()
		<-p.done
	})
	return err
}

func (p *scripted) hello() {
	_ = p.out.Hello(mediacap.Hello{Build: "test", Synthetic: p.synthetic})
	_ = p.out.Status(mediacap.Status{State: mediacap.Running,
		Video: mediacap.VideoStream{Codec: mediacap.VP8, Width: 640, Height: 360, FrameInterval: time.Second / 15, Device: "d", Encoder: "e"},
		Audio: mediacap.AudioStream{Codec: mediacap.Opus, SampleRate: 48000, Channels: 1, Device: "d", Encoder: "e"}})
}

func (p *scripted) video() error {
	u := mediacap.Unit{Codec: mediacap.VP8, KeyFrame: p.videoSeq == 0, Synthetic: p.synthetic, Seq: p.videoSeq,
		CaptureTime: mediacap.Now(), Duration: time.Second / 15, Width: 640, Height: 360, Payload: vp8Frame(p.videoSeq == 0, 300)}
	p.videoSeq++
	return p.out.Unit(&u)
}

func (p *scripted) audio() error {
	u := mediacap.Unit{Codec: mediacap.Opus, Synthetic: p.synthetic, Seq: p.audioSeq, CaptureTime: mediacap.Now(),
		Duration: 20 * time.Millisecond, Payload: opusFrame()}
	p.audioSeq++
	return p.out.Unit(&u)
}

// untilStopped sends both media until the daemon asks it to stop, or goes on for ever.
func (p *scripted) untilStopped() {
	for p.video() == nil && p.audio() == nil {
		if p.ignoreStop {
			time.Sleep(2 * time.Millisecond)
			continue
		}
		select {
		case <-p.stopped:
			return
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// vp8Frame is a frame of 640×360 (RFC 6386 section 9.1) that a sender lets pass.
func vp8Frame(key bool, size int) []byte {
	f := make([]byte, size)
	f[0] = 1 | 1<<4
	if key {
		f[0] = 1 << 4
		copy(f[3:], []byte{0x9d, 0x01, 0x2a, 640 & 0xff, 640 >> 8, 360 & 0xff, 360 >> 8})
	}
	f[1] = 1
	return f
}

func opusFrame() []byte {
	f := make([]byte, 80)
	f[0] = mediacap.OpusTOC
	return f
}

// bench is a pipeline with senders that have keys and a track without a connection.
type bench struct {
	*pipeline
	script *script
	audio  *e2ee.Sender
	video  *e2ee.Sender
	rekeys atomic.Int32
	end    func()
}

func newBench(t testing.TB, demo bool, play func(*scripted)) *bench {
	t.Helper()
	return startBench(t, demo, &script{play: play})
}

func startBench(t testing.TB, demo bool, s *script) *bench {
	t.Helper()
	b := &bench{script: s, video: e2ee.NewVP8Sender(e2ee.Size{Width: 640, Height: 360}), audio: e2ee.NewOpusSender(mediacap.OpusTOC, 80)}
	secret := make([]byte, e2ee.SecretSize)
	if _, err := rand.Read(secret); err != nil {
		t.Fatal(err)
	}
	key, err := e2ee.NewEndpoint().SendKey(secret)
	if err != nil {
		t.Fatal(err)
	}
	for _, sender := range []*e2ee.Sender{b.video, b.audio} {
		if err := sender.SetKey(1, key); err != nil {
			t.Fatal(err)
		}
	}
	b.pipeline = newPipeline(s, demo, slog.New(slog.DiscardHandler), newPipelineMetrics())
	b.out.Store(&outlet{video: session.Outgoing{Sender: b.video, Track: &session.OutTrack{}},
		audio: session.Outgoing{Sender: b.audio, Track: &session.OutTrack{}}, rekey: func() { b.rekeys.Add(1) }})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); b.run(ctx) }()
	b.end = sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(func() {
		b.end()
		if n := s.living.Load(); n != 0 {
			t.Errorf("%d capture processes outlive the daemon", n)
		}
	})
	return b
}

// passed is how many units got as far as the track, which has no connection here.
func (b *bench) passed() float64 {
	return value(b.metrics.video.lineDown) + value(b.metrics.audio.lineDown)
}

func value(c prometheus.Counter) float64 { return testutil.ToFloat64(c) }

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("never: " + what)
		}
	}
}

func TestCaptureRunsOnlyWhileWanted(t *testing.T) {
	before := runtime.NumGoroutine()
	b := newBench(t, false, func(p *scripted) { p.hello(); p.untilStopped() })
	time.Sleep(20 * time.Millisecond)
	if b.script.started.Load() != 0 {
		t.Fatal("capture was started before it was wanted")
	}
	for range 3 {
		b.want(true)
		passed := b.passed()
		eventually(t, "units pass", func() bool { return b.passed() > passed+10 })
		b.want(false)
		eventually(t, "the process ends", func() bool { return b.script.living.Load() == 0 })
		passed = b.passed()
		time.Sleep(20 * time.Millisecond)
		if b.passed() != passed {
			t.Fatal("units after the end of the process")
		}
	}
	eventually(t, "it is shown as off", func() bool { st := b.state.Load(); return !st.Running && st.Trouble == "" })
	b.end()
	eventually(t, "no goroutine stays", func() bool { return runtime.NumGoroutine() <= before })
}

// From the press on nothing leaves the room, however long the process goes on.
func TestUnitsAfterThePressAreDropped(t *testing.T) {
	b := newBench(t, false, func(p *scripted) { p.ignoreStop = true; p.hello(); p.untilStopped() })
	b.want(true)
	eventually(t, "units pass", func() bool { return b.passed() > 10 })
	b.want(false)
	passed, began := b.passed(), time.Now()
	eventually(t, "units go on and are dropped", func() bool { return value(b.metrics.video.notWanted) > 3 })
	eventually(t, "it is killed", func() bool { return b.script.living.Load() == 0 })
	if took := time.Since(began); took > 4*stopGrace {
		t.Fatalf("killed after %v, the grace is %v", took, stopGrace)
	}
	if got := b.passed(); got > passed+1 { // the one that was under way
		t.Fatalf("%v units passed after the press", got-passed)
	}
}

func TestProcessThatDies(t *testing.T) {
	b := newBench(t, false, func(p *scripted) {
		p.hello()
		for range 5 {
			_ = p.video()
		}
	})
	b.want(true)
	eventually(t, "it is started again", func() bool { return b.script.started.Load() >= 2 })
	if value(b.metrics.captureRestarts) < 1 {
		t.Fatal("not counted")
	}
	b.want(false)
	eventually(t, "it stays ended", func() bool { return b.script.living.Load() == 0 && b.state.Load().Trouble == "" })
	n := b.script.started.Load()
	time.Sleep(2 * captureRetry)
	if b.script.started.Load() != n {
		t.Fatal("started although it is not wanted")
	}
}

func TestProcessThatCannotStart(t *testing.T) {
	b := startBench(t, false, &script{fail: errors.New("no such program")})
	b.want(true)
	eventually(t, "trouble is shown", func() bool { return strings.Contains(b.state.Load().Trouble, "no such program") })
	b.want(false)
	eventually(t, "trouble is over", func() bool { return b.state.Load().Trouble == "" })
}

func TestSyntheticUnitsInARealRoom(t *testing.T) {
	for name, play := range map[string]func(p *scripted){
		"says so":           func(p *scripted) { p.synthetic = true; p.hello(); p.untilStopped() },
		"only in its units": func(p *scripted) { p.hello(); p.synthetic = true; p.untilStopped() },
		"after a real one":  func(p *scripted) { p.hello(); p.synthetic = true; _ = p.video() },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, false, play)
			b.want(true)
			eventually(t, "the process is ended", func() bool { return b.state.Load().Trouble != "" })
			if n := b.passed(); n != 0 {
				t.Fatalf("%v synthetic units passed", n)
			}
			if _, err := b.unit(&mediacap.Unit{Codec: mediacap.Opus, Synthetic: true, Payload: opusFrame()}, nil); !errors.Is(err, errSynthetic) {
				t.Fatalf("the flow itself takes one: %v", err)
			}
		})
	}
	t.Run("demonstration", func(t *testing.T) {
		b := newBench(t, true, func(p *scripted) { p.synthetic = true; p.hello(); p.untilStopped() })
		b.want(true)
		eventually(t, "units pass", func() bool { return b.passed() > 10 })
	})
}

func TestHostileProcess(t *testing.T) {
	for name, play := range map[string]func(p *scripted){
		"junk":          func(p *scripted) { _, _ = p.peer.Write([]byte("GET / HTTP/1.1\r\n\r\n....................")) },
		"a huge length": func(p *scripted) { _, _ = p.peer.Write([]byte{'A', 'C', 1, 3, 0xff, 0xff, 0xff, 0xff}) },
		"units first": func(p *scripted) {
			_, _ = p.peer.Write(append([]byte{'A', 'C', 1, 3, 0, 0, 0, 25}, make([]byte, 25)...))
		},
		"says that it failed": func(p *scripted) {
			_ = p.out.Hello(mediacap.Hello{Build: "x"})
			_ = p.out.Status(mediacap.Status{State: mediacap.Failed, Reason: "no camera"})
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, false, play)
			b.want(true)
			eventually(t, "it is ended, and the screen says why", func() bool { return b.state.Load().Trouble != "" })
			if b.passed() != 0 {
				t.Fatal("something passed")
			}
		})
	}
	b := newBench(t, false, nil)
	b.on.Store(true)
	if _, err := b.unit(&mediacap.Unit{Codec: mediacap.H264, Payload: vp8Frame(true, 300)}, nil); err == nil || b.passed() != 0 {
		t.Fatal("a unit of another codec than the one asked for passed")
	}
}

// A process that does not read its requests holds up nobody.
func TestProcessThatDoesNotListen(t *testing.T) {
	// net.Pipe has no buffer: a request that is not read blocks its writer until the end.
	b := startBench(t, false, &script{deaf: true, play: func(p *scripted) {
		p.hello()
		for p.audio() == nil {
			time.Sleep(2 * time.Millisecond)
		}
	}})
	b.want(true)
	eventually(t, "it runs", func() bool { return b.passed() > 0 })
	began := time.Now()
	for i := range 1000 {
		b.keyFrame()
		b.setRate(100_000 + 50_000*(i%20))
	}
	if took := time.Since(began); took > time.Second {
		t.Fatalf("1000 requests took %v", took)
	}
	b.want(false)
	eventually(t, "it is killed", func() bool { return b.script.living.Load() == 0 })
	if took := time.Since(began); took > 5*time.Second {
		t.Fatalf("it took %v to end it", took)
	}
}

func TestMuteAndCameraOff(t *testing.T) {
	b := newBench(t, false, func(p *scripted) { p.hello(); p.untilStopped() })
	b.want(true)
	eventually(t, "both media pass", func() bool {
		return value(b.metrics.video.lineDown) > 3 && value(b.metrics.audio.lineDown) > 3
	})
	b.muted.Store(true)
	eventually(t, "sound is dropped", func() bool { return value(b.metrics.audio.muted) > 3 })
	b.cameraOff.Store(true)
	eventually(t, "the picture too", func() bool { return value(b.metrics.video.muted) > 3 })
	passed := b.passed()
	time.Sleep(30 * time.Millisecond)
	if b.passed() != passed {
		t.Fatal("something passed while both are off")
	}
	s := newSession(t)
	b.open(s, captureSettings{})
	if b.muted.Load() || b.cameraOff.Load() {
		t.Fatal("a new session begins muted")
	}
	b.close(newSession(t))
	if b.out.Load() == nil {
		t.Fatal("another session's end took the outlet away")
	}
	b.close(s)
	if b.out.Load() != nil {
		t.Fatal("units go on after the session's end")
	}
}

// Without a key nothing passes, and a key that is used up asks for the next.
func TestUnitsWithoutAKey(t *testing.T) {
	b := newBench(t, false, func(p *scripted) { p.hello(); p.untilStopped() })
	b.video.ClearKey()
	b.audio.ClearKey()
	b.want(true)
	eventually(t, "units are refused", func() bool {
		return value(b.metrics.video.reasons["no_key"]) > 3 && value(b.metrics.audio.reasons["no_key"]) > 3
	})
	if b.passed() != 0 {
		t.Fatal("a unit passed without a key")
	}
	b.help(b.out.Load(), fmt.Errorf("sealing: %w", e2ee.ErrKeyExhausted))
	if b.rekeys.Load() != 1 {
		t.Fatal("no new key asked for")
	}
}

func TestRequestsReachTheProcess(t *testing.T) {
	var got sync.Map
	b := newBench(t, false, func(p *scripted) {
		p.hello()
		for {
			select {
			case r := <-p.requests:
				got.Store(r, true)
			case <-p.stopped:
				return
			case <-time.After(5 * time.Millisecond):
				_ = p.audio()
			}
		}
	})
	b.setRate(123_000) // before it runs
	b.want(true)
	has := func(r mediacap.Request) func() bool { return func() bool { _, ok := got.Load(r); return ok } }
	eventually(t, "the rate that was set before", has(mediacap.Rate{Video: 123_000}))
	b.keyFrame()
	eventually(t, "a key frame", has(mediacap.KeyFrame{}))
	b.setRate(5)
	eventually(t, "no rate below the least", has(mediacap.Rate{Video: mediacap.MinVideoRate}))
	b.setRate(1 << 40)
	eventually(t, "none above the most", has(mediacap.Rate{Video: mediacap.MaxVideoRate}))
}

func TestRateHysteresis(t *testing.T) {
	p := newPipeline(&script{}, false, slog.New(slog.DiscardHandler), newPipelineMetrics())
	for _, c := range []struct{ set, want int }{
		{400_000, 400_000}, {410_000, 400_000}, {390_000, 400_000}, {421_000, 421_000}, {399_000, 399_000},
		{0, mediacap.MinVideoRate}, {mediacap.MaxVideoRate * 2, mediacap.MaxVideoRate},
	} {
		if p.setRate(c.set); int(p.rate.Video) != c.want {
			t.Fatalf("after %d: %d, want %d", c.set, p.rate.Video, c.want)
		}
	}
}

// What is counted for each unit allocates nothing of ours; what Tink allocates to seal is its own.
func TestUnitAllocatesNothing(t *testing.T) {
	b := newBench(t, false, nil)
	b.on.Store(true)
	frame := vp8Frame(true, 10_000)
	u := &mediacap.Unit{Codec: mediacap.VP8, KeyFrame: true, CaptureTime: mediacap.Now(), Width: 640, Height: 360, Payload: frame}
	buf := make([]byte, 0, 20_000)
	sealing := testing.AllocsPerRun(200, func() {
		if _, err := b.video.Encrypt(buf[:0], frame); err != nil {
			t.Fatal(err)
		}
	})
	all := testing.AllocsPerRun(200, func() {
		if _, err := b.unit(u, buf); err != nil {
			t.Fatal(err)
		}
	})
	if all > sealing {
		t.Errorf("%v allocations for a unit, %v of them to seal it", all, sealing)
	}
	b.cameraOff.Store(true)
	if n := testing.AllocsPerRun(200, func() { _, _ = b.unit(u, buf) }); n != 0 {
		t.Errorf("%v allocations for a unit that is dropped", n)
	}
}

func TestMetricNamesAndLabels(t *testing.T) {
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(newPipelineMetrics().collectors()...)
	r.MustRegister(session.NewMetrics().Metrics()...)
	r.MustRegister(buildInfo("1"))
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	// Labels that may exist. None of them has room for a person, a session or an address.
	values := map[string]func(string) bool{
		"kind":    func(v string) bool { return v == "audio" || v == "video" },
		"reason":  func(v string) bool { return len(v) < 20 && strings.Trim(v, "abcdefghijklmnopqrstuvwxyz_") == "" },
		"outcome": func(v string) bool { return v == "lost" || v == "not_reached" },
		"version": func(string) bool { return true },
	}
	seen := 0
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), "alcove_") {
			t.Errorf("%s is not ours by name", f.GetName())
		}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				seen++
				if ok := values[l.GetName()]; ok == nil || !ok(l.GetValue()) {
					t.Errorf("%s: label %s=%q is not on the list", f.GetName(), l.GetName(), l.GetValue())
				}
			}
		}
	}
	if seen < 50 {
		t.Fatalf("only %d labels seen: counters do not start at zero", seen)
	}
}
