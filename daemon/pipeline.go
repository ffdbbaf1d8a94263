package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/alcove-room/alcove/daemon/e2ee"
	"github.com/alcove-room/alcove/daemon/session"
	"github.com/alcove-room/alcove/mediacap"
)

// The whole way of a picture or a sound out of the room. Everything between the capture process and the
// network happens in flow and unit below; nothing else in the daemon touches a frame that leaves.
//
//	unit   <- capture socket              checked by mediacap.Reader: the sender counts as hostile
//	wanted? muted?                        dropped here, whatever the capture process does
//	sealed <- e2ee.Sender.Encrypt(unit)   an error drops the unit and counts it; it is never sent clear
//	track.Write(sealed)                   RTP, SRTP, SFU
//	receivers' PLI and messages           -> capture: key frame, within keyFrameGap and keyFrameBurst
//	bandwidth estimate                    -> capture: rate

const (
	// keyFrameGap is the least time between two requests for a key frame, keyFrameEvery between those of the long run,
	// and keyFrameBurst how many may come before the long run begins. Whoever comes in needs one when the keys change,
	// one when it confirms them and one when it subscribes, all within half a second, and sees nothing until the last.
	keyFrameGap   = 120 * time.Millisecond
	keyFrameEvery = 500 * time.Millisecond
	keyFrameBurst = 4

	captureRetry  = 300 * time.Millisecond
	captureSettle = 5 * time.Second
)

var errStopped = errors.New("the capture process stopped by itself")

var errSynthetic = errors.New("the capture process delivers a test source, and this room is not a demonstration")

// pipeline captures for the open session, while it is wanted, and carries each unit out.
type pipeline struct {
	launcher launcher
	demo     bool // the owner root is a demonstration: a test source is allowed, and screens say so
	log      *slog.Logger
	metrics  *pipelineMetrics

	out       atomic.Pointer[outlet] // where units go; nil: nowhere
	on        atomic.Bool            // the newest wish; units that come while it is off are dropped
	muted     atomic.Bool
	cameraOff atomic.Bool
	state     atomic.Pointer[captureState]
	wanted    chan bool // newest wish; buffered

	mu       sync.Mutex // guards below
	settings captureSettings
	requests *requests // of the running process
	rate     mediacap.Rate
	gate     keyFrameGate

	encoder string // of pictures, as the running process named it; flow's
}

// outlet is what a session gives the pipeline to send with.
type outlet struct {
	session      *session.Session // whose end closes the outlet
	video, audio session.Outgoing
	rekey        func()
}

// requests is what one capture process is to be told. It is written by a goroutine of its own: a process that does
// not read must not hold up whoever asks, which is the key agreement among others.
type requests struct {
	mu       sync.Mutex // guards below
	keyFrame bool
	rate     mediacap.Rate // zero: none to tell
	wake     chan struct{}
}

func newRequests(rate mediacap.Rate) *requests {
	r := &requests{rate: rate, wake: make(chan struct{}, 1)}
	r.wake <- struct{}{}
	return r
}

func (r *requests) ask(change func()) {
	r.mu.Lock()
	change()
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

func (r *requests) take() []mediacap.Request {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []mediacap.Request
	if r.rate != (mediacap.Rate{}) {
		out = append(out, r.rate)
	}
	if r.keyFrame {
		out = append(out, mediacap.KeyFrame{})
	}
	r.keyFrame, r.rate = false, mediacap.Rate{}
	return out
}

// run writes to the process until ctx ends or the process takes no more.
func (r *requests) run(ctx context.Context, to io.Writer) {
	w := mediacap.NewRequestWriter(to)
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.wake:
		}
		for _, request := range r.take() {
			if w.Send(request) != nil {
				return // the process has gone, which its reader says better
			}
		}
	}
}

// captureState is what is known of the capture process, for the screen.
type captureState struct {
	Running bool
	Trouble string
	Level   mediacap.DBFS
}

func newPipeline(l launcher, demo bool, log *slog.Logger, m *pipelineMetrics) *pipeline {
	p := &pipeline{launcher: l, demo: demo, log: log, metrics: m, wanted: make(chan bool, 1)}
	p.state.Store(&captureState{})
	return p
}

// open makes s the session that units go to, with everything on that may be turned off in a session.
func (p *pipeline) open(s *session.Session, settings captureSettings) {
	p.mu.Lock()
	p.settings, p.rate = settings, mediacap.Rate{}
	p.mu.Unlock()
	p.muted.Store(false)
	p.cameraOff.Store(false)
	p.out.Store(&outlet{session: s, video: s.Video(), audio: s.Audio(), rekey: s.Rekey})
}

// close takes the session away, if it is still the one that units go to.
func (p *pipeline) close(s *session.Session) {
	if o := p.out.Load(); o != nil && o.session == s {
		p.out.CompareAndSwap(o, nil)
	}
}

// want opens or closes camera and microphone. It does not wait for either; but from the moment on that they are not
// wanted nothing of them leaves the room, however long the process takes to stop.
func (p *pipeline) want(on bool) {
	p.on.Store(on)
	for {
		select {
		case p.wanted <- on:
			return
		default:
		}
		select {
		case <-p.wanted:
		default:
		}
	}
}

// run owns the capture process until ctx ends. A process that dies while it is wanted is started again.
func (p *pipeline) run(ctx context.Context) {
	on := false
	for ctx.Err() == nil {
		if !on {
			p.state.Store(&captureState{}) // trouble with what nobody wants is over
			select {
			case <-ctx.Done():
			case on = <-p.wanted:
			}
			continue
		}
		began := time.Now()
		err := p.capture(ctx, &on)
		p.metrics.captureUp.Set(0)
		if err == nil || ctx.Err() != nil {
			p.state.Store(&captureState{})
			continue
		}
		p.metrics.captureRestarts.Inc()
		p.state.Store(&captureState{Trouble: err.Error()})
		p.log.Error("capture", "err", err)
		wait := captureRetry
		if time.Since(began) < captureSettle {
			wait = 4 * captureRetry // it dies at once: do not spin
		}
		select {
		case <-ctx.Done():
		case on = <-p.wanted:
		case <-time.After(wait):
		}
	}
}

// capture runs one capture process until it is not wanted any more (nil) or fails. When it returns, the process has
// ended and no unit of it is under way.
func (p *pipeline) capture(ctx context.Context, on *bool) error {
	p.mu.Lock()
	settings := p.settings
	p.mu.Unlock()
	proc, err := p.launcher.launch(ctx, settings)
	if err != nil {
		return err
	}
	p.state.Store(&captureState{Running: true, Level: mediacap.MinLevel}) // whoever may open devices runs
	stopAsking := p.ask(ctx, proc)
	p.encoder = ""
	flow := make(chan error, 1)
	go func() { flow <- p.flow(proc) }()
	flowing := true
	err = p.repin()
	for err == nil && *on {
		select {
		case <-ctx.Done():
			*on = false
		case *on = <-p.wanted:
		case err = <-flow:
			flowing = false
		}
	}
	stopAsking()
	if e := proc.Close(); e != nil {
		p.log.Warn("capture process did not stop as asked", "err", e)
	}
	if flowing {
		<-flow
	}
	return err
}

// ask lets the process be told what is asked for, until the returned function is called.
func (p *pipeline) ask(ctx context.Context, proc io.Writer) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	p.mu.Lock()
	p.requests = newRequests(p.rate)
	go p.requests.run(ctx, proc)
	p.mu.Unlock()
	return func() {
		cancel()
		p.mu.Lock()
		p.requests = nil
		p.mu.Unlock()
	}
}

// flow reads one capture process to its end.
func (p *pipeline) flow(from captureProcess) error {
	reader := mediacap.NewReader(from)
	var buf []byte
	for {
		event, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return errStopped
		}
		if err != nil {
			return fmt.Errorf("read from the capture process: %w", err)
		}
		switch e := event.(type) {
		case *mediacap.Hello:
			if e.Synthetic && !p.demo {
				return errSynthetic
			}
		case *mediacap.Status:
			if err := p.status(e); err != nil {
				return err
			}
		case *mediacap.Level:
			p.state.Store(&captureState{Running: true, Level: e.RMS})
		case *mediacap.Unit:
			if buf, err = p.unit(e, buf); err != nil {
				return err
			}
		}
	}
}

func (p *pipeline) status(s *mediacap.Status) error {
	switch s.State {
	case mediacap.Running:
		if p.encoder != "" && p.encoder != s.Video.Encoder {
			if err := p.repin(); err != nil { // one that failed was replaced
				return err
			}
		}
		p.encoder = s.Video.Encoder
		p.metrics.captureUp.Set(1)
		p.state.Store(&captureState{Running: true, Level: mediacap.MinLevel})
		p.log.Info("capture runs", "video", s.Video.Encoder, "audio", s.Audio.Encoder, "camera", s.Video.Device, "microphone", s.Audio.Device)
	case mediacap.Failed:
		return fmt.Errorf("the capture process failed: %s", s.Reason)
	}
	return nil
}

// repin lets an encoder that was started again, or one that took over, bring other parameter sets.
func (p *pipeline) repin() error {
	o := p.out.Load()
	if o == nil {
		return nil
	}
	if err := o.video.Sender.Repin(int64(mediacap.Now())); err != nil && !errors.Is(err, e2ee.ErrTooSoon) {
		return fmt.Errorf("take up the encoder: %w", err)
	}
	return nil
}

// unit carries one unit out. The buffer is reused for the next.
func (p *pipeline) unit(u *mediacap.Unit, buf []byte) ([]byte, error) {
	if u.Synthetic && !p.demo {
		return buf, errSynthetic
	}
	o := p.out.Load()
	if o == nil {
		return buf, nil
	}
	out, off, counts := &o.video, p.cameraOff.Load(), &p.metrics.video
	if u.Codec.Medium() == mediacap.Audio {
		out, off, counts = &o.audio, p.muted.Load(), &p.metrics.audio
	}
	if !p.on.Load() {
		counts.notWanted.Inc()
		return buf, nil
	}
	if off {
		counts.muted.Inc()
		return buf, nil
	}
	if out.Sender.Codec().String() != u.Codec.MimeType() {
		return buf, fmt.Errorf("the capture process sends %s, %s was asked for", u.Codec.MimeType(), out.Sender.Codec())
	}
	sealed, err := out.Sender.Encrypt(buf[:0], u.Payload)
	if err != nil {
		counts.refused(e2ee.Reason(err))
		p.help(o, err)
		return buf, nil
	}
	sent, err := out.Track.Write(sealed, u.Codec.RTPTime(u.CaptureTime))
	switch {
	case err != nil:
		counts.write.Inc()
	case !sent:
		counts.lineDown.Inc()
	default:
		counts.sent.Inc()
		counts.bytes.Add(float64(len(sealed)))
	}
	return sealed, nil
}

// help asks for what a sender needs that has refused a unit.
func (p *pipeline) help(o *outlet, err error) {
	switch {
	case errors.Is(err, e2ee.ErrKeyExhausted):
		o.rekey()
	case errors.Is(err, e2ee.ErrNeedKeyFrame):
		p.keyFrame()
	}
}

// keyFrame asks the encoder for a key frame. Requests that come too soon become one, sent when it may be: a receiver
// that storms cannot turn the picture into key frames.
func (p *pipeline) keyFrame() {
	p.mu.Lock()
	defer p.mu.Unlock()
	wait, ask := p.gate.request(time.Now())
	switch {
	case !ask:
	case wait == 0:
		p.keyFrameLocked()
	default:
		time.AfterFunc(wait, func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.gate.fired(time.Now())
			p.keyFrameLocked()
		})
	}
}

// setRate tells the encoder what the picture may take, when it has changed by more than a twentieth.
func (p *pipeline) setRate(bps int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	rate := uint32(min(max(bps, mediacap.MinVideoRate), mediacap.MaxVideoRate))
	if old := p.rate.Video; old != 0 && rate*20 > old*19 && rate*20 < old*21 {
		return
	}
	p.rate = mediacap.Rate{Video: rate}
	if r := p.requests; r != nil {
		r.ask(func() { r.rate = p.rate })
	}
}

func (p *pipeline) keyFrameLocked() {
	if r := p.requests; r != nil {
		r.ask(func() { r.keyFrame = true })
	}
}

// keyFrameGate spaces requests. It holds at most one that waits.
type keyFrameGate struct {
	last    time.Time // of the last request
	full    time.Time // when a whole burst will be there again
	pending bool
}

// request says whether to ask for a key frame, and after which wait.
func (g *keyFrameGate) request(now time.Time) (wait time.Duration, ask bool) {
	if g.pending {
		return 0, false
	}
	at := g.full.Add(-(keyFrameBurst - 1) * keyFrameEvery)
	if next := g.last.Add(keyFrameGap); next.After(at) {
		at = next
	}
	if now.Before(at) {
		g.pending = true
		return at.Sub(now), true
	}
	g.fired(now)
	return 0, true
}

func (g *keyFrameGate) fired(now time.Time) {
	g.last, g.pending = now, false
	if g.full.Before(now) {
		g.full = now
	}
	g.full = g.full.Add(keyFrameEvery)
}
