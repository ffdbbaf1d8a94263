package daemon

import (
	"context"
	"errors"
	"fmt"
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
//	muted?                                dropped here, whatever the capture process does
//	sealed <- e2ee.Sender.Encrypt(unit)   an error drops the unit and counts it; it is never sent clear
//	track.Write(sealed)                   RTP, SRTP, SFU
//	receivers' PLI and messages           -> capture: key frame, at most one each keyFrameGap
//	bandwidth estimate                    -> capture: rate

const (
	keyFrameGap   = 250 * time.Millisecond
	captureRetry  = 300 * time.Millisecond
	captureSettle = 5 * time.Second
)

var errSynthetic = errors.New("the capture process delivers a test source, and this room is not a demonstration")

// pipeline captures for the open session, while it is wanted, and carries each unit out.
type pipeline struct {
	launcher launcher
	demo     bool // the owner root is a demonstration: a test source is allowed, and screens say so
	log      *slog.Logger
	metrics  *pipelineMetrics

	out       atomic.Pointer[session.Session] // where units go; nil: nowhere
	muted     atomic.Bool
	cameraOff atomic.Bool
	state     atomic.Pointer[captureState]
	wanted    chan bool // newest wish; buffered

	mu       sync.Mutex // guards below
	settings captureSettings
	requests *mediacap.RequestWriter
	rate     mediacap.Rate
	gate     keyFrameGate
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
	p.out.Store(s)
}

// want opens or closes camera and microphone. It does not wait for either.
func (p *pipeline) want(on bool) {
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

// capture runs one capture process until it is not wanted any more (nil) or fails.
func (p *pipeline) capture(ctx context.Context, on *bool) error {
	p.mu.Lock()
	settings := p.settings
	p.mu.Unlock()
	proc, err := p.launcher.launch(ctx, settings)
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.requests = mediacap.NewRequestWriter(proc)
	if p.rate != (mediacap.Rate{}) {
		err = p.requests.Send(p.rate)
	}
	p.mu.Unlock()
	flow := make(chan error, 1)
	go func() { flow <- p.flow(proc) }()
	if s := p.out.Load(); s != nil {
		// An encoder that was started again may bring other parameter sets.
		if e := s.Video().Sender.Repin(int64(mediacap.Now())); e != nil && !errors.Is(e, e2ee.ErrTooSoon) {
			err = errors.Join(err, e)
		}
	}
	for err == nil && *on {
		select {
		case <-ctx.Done():
			*on = false
		case *on = <-p.wanted:
		case err = <-flow:
			if err == nil {
				err = errors.New("the capture process stopped by itself")
			}
		}
	}
	p.mu.Lock()
	p.requests = nil
	p.mu.Unlock()
	if e := proc.Close(); e != nil && err == nil && *on {
		err = e
	}
	return err
}

// flow reads one capture process to its end.
func (p *pipeline) flow(from captureProcess) error {
	reader := mediacap.NewReader(from)
	var buf []byte
	for {
		event, err := reader.Read()
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
		p.metrics.captureUp.Set(1)
		p.state.Store(&captureState{Running: true, Level: mediacap.MinLevel})
		p.log.Info("capture runs", "video", s.Video.Encoder, "audio", s.Audio.Encoder, "camera", s.Video.Device, "microphone", s.Audio.Device)
	case mediacap.Failed:
		return fmt.Errorf("the capture process failed: %s", s.Reason)
	}
	return nil
}

// unit carries one unit out. The buffer is reused for the next.
func (p *pipeline) unit(u *mediacap.Unit, buf []byte) ([]byte, error) {
	if u.Synthetic && !p.demo {
		return buf, errSynthetic
	}
	s := p.out.Load()
	if s == nil {
		return buf, nil
	}
	out, off := s.Video(), p.cameraOff.Load()
	if u.Codec.Medium() == mediacap.Audio {
		out, off = s.Audio(), p.muted.Load()
	}
	if off {
		p.metrics.dropped(u, "muted")
		return buf, nil
	}
	if out.Sender.Codec().String() != u.Codec.MimeType() {
		return buf, fmt.Errorf("the capture process sends %s, %s was asked for", u.Codec.MimeType(), out.Sender.Codec())
	}
	sealed, err := out.Sender.Encrypt(buf[:0], u.Payload)
	if err != nil {
		p.refused(s, u, err)
		return buf, nil
	}
	sent, err := out.Track.Write(sealed, u.Codec.RTPTime(u.CaptureTime))
	switch {
	case err != nil:
		p.log.Warn("write", "err", err)
		p.metrics.dropped(u, "write")
	case !sent:
		p.metrics.dropped(u, "line_down")
	default:
		p.metrics.sent(u, len(sealed))
	}
	return sealed, nil
}

// refused counts a unit that was not sealed, and asks for what the sender needs to go on.
func (p *pipeline) refused(s *session.Session, u *mediacap.Unit, err error) {
	p.metrics.dropped(u, e2ee.Reason(err))
	switch {
	case errors.Is(err, e2ee.ErrKeyExhausted):
		s.Rekey()
	case errors.Is(err, e2ee.ErrNeedKeyFrame):
		p.keyFrame()
	}
}

// keyFrame asks the encoder for a key frame. Requests closer together than keyFrameGap become one, sent at
// the end of the gap: a receiver that storms cannot turn the picture into key frames.
func (p *pipeline) keyFrame() {
	p.mu.Lock()
	defer p.mu.Unlock()
	wait, ask := p.gate.request(time.Now())
	switch {
	case !ask:
	case wait == 0:
		p.sendLocked(mediacap.KeyFrame{})
	default:
		time.AfterFunc(wait, func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.gate.fired(time.Now())
			p.sendLocked(mediacap.KeyFrame{})
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
	p.sendLocked(p.rate)
}

func (p *pipeline) sendLocked(r mediacap.Request) {
	if p.requests == nil {
		return
	}
	if err := p.requests.Send(r); err != nil {
		p.log.Info("capture process not told", "err", err)
	}
}

// keyFrameGate spaces requests. It holds at most one that waits.
type keyFrameGate struct {
	last    time.Time
	pending bool
}

// request says whether to ask for a key frame, and after which wait.
func (g *keyFrameGate) request(now time.Time) (wait time.Duration, ask bool) {
	if g.pending {
		return 0, false
	}
	if since := now.Sub(g.last); since < keyFrameGap {
		g.pending = true
		return keyFrameGap - since, true
	}
	g.last = now
	return 0, true
}

func (g *keyFrameGate) fired(now time.Time) { g.last, g.pending = now, false }
