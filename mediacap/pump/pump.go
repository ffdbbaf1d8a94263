// Package pump runs one capture: it obtains tracks from mediadevices, encodes them, sends units over the
// socket to the daemon and obeys the daemon's requests, until the daemon says stop, the socket closes or a
// device fails.
//
// Sound has its own goroutine and goes first; nothing that pictures do can hold it up except one picture
// that is being written. The devices are closed within CloseLimit after a stop; a driver that hangs is left
// behind, since Run's caller ends the process and with it every open device.
package pump

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/pion/mediadevices"
	"github.com/pion/mediadevices/pkg/codec"
	mediaframe "github.com/pion/mediadevices/pkg/frame"
	"github.com/pion/mediadevices/pkg/io/audio"
	"github.com/pion/mediadevices/pkg/prop"

	"github.com/alcove-room/alcove/mediacap"
	"github.com/alcove-room/alcove/mediacap/encode"
)

const (
	// CloseLimit is how long closing the devices may take.
	CloseLimit = 120 * time.Millisecond
	// lastWord is how long the final status may take.
	lastWord = 50 * time.Millisecond
)

// Conn is the connected stream socket to the daemon.
type Conn interface {
	io.ReadWriteCloser
	SetWriteDeadline(time.Time) error
}

// Device is a driver of mediadevices.
type Device struct {
	ID   string
	Name string
}

// Config says what to capture.
type Config struct {
	Build      string // the program's version
	Synthetic  bool   // the devices are test sources
	Camera     Device
	Microphone Device
	Codec      mediacap.Codec   // of the picture: VP8 or H264; 0: VP8
	Backends   []encode.Backend // for H264, in order; nil: all
	Width      int              // pixels, wished
	Height     int
	FrameRate  float32 // frames per second, wished
	VideoRate  int     // bits per second
	AudioRate  int
	Log        *slog.Logger
}

// Run captures until ctx ends, the daemon asks to stop or closes conn (nil), or something fails. Failures
// are also told to the daemon. It closes conn.
func Run(ctx context.Context, conn Conn, cfg Config) error {
	if cfg.Codec == 0 {
		cfg.Codec = mediacap.VP8
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	c := &capture{cfg: cfg, conn: conn, out: mediacap.NewWriter(conn), end: cancel}
	c.queue = newQueue(c.forceKeyFrame)
	if err := c.greet(); err != nil {
		conn.Close()
		return reason(lost(err))
	}
	go c.obey()
	go c.start(ctx)
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		c.end(c.send())
	}()
	<-ctx.Done()
	cause := reason(context.Cause(ctx))
	c.closeDevices()
	c.sayGoodbye(cause, sent)
	return cause
}

// Refuse tells the daemon why there will be no capture, and closes conn.
func Refuse(conn Conn, cfg Config, why error) {
	sent := make(chan struct{})
	close(sent)
	c := &capture{cfg: cfg, conn: conn, out: mediacap.NewWriter(conn), queue: newQueue(func() {})}
	if err := c.greet(); err != nil {
		conn.Close()
		return
	}
	c.sayGoodbye(why, sent)
}

// errDone ends a capture that was asked to end.
var errDone = errors.New("asked to stop")

func reason(cause error) error {
	if errors.Is(cause, errDone) || errors.Is(cause, context.Canceled) {
		return nil
	}
	return cause
}

// capture is one run. The writer belongs to Run's goroutine until send starts and after it ended.
type capture struct {
	cfg   Config
	conn  Conn
	out   *mediacap.Writer
	queue *queue
	end   context.CancelCauseFunc

	mu      sync.Mutex
	closed  bool
	stream  mediadevices.MediaStream
	video   encode.Controller // nil until the encoder runs
	audio   encode.Controller
	pending mediacap.Rate // asked for before the encoders ran
}

func (c *capture) greet() error {
	if err := c.out.Hello(mediacap.Hello{Build: mediacap.Text(c.cfg.Build), Synthetic: c.cfg.Synthetic}); err != nil {
		return err
	}
	return c.out.Status(mediacap.Status{State: mediacap.Starting})
}

// obey reads requests until the socket closes.
func (c *capture) obey() {
	in := mediacap.NewRequestReader(c.conn)
	for {
		q, err := in.Read()
		if err != nil {
			c.end(lost(err))
			return
		}
		switch q := q.(type) {
		case mediacap.KeyFrame:
			c.forceKeyFrame()
		case mediacap.Rate:
			c.setRate(q)
		case mediacap.Stop:
			c.end(errDone)
			return
		}
	}
}

func (c *capture) forceKeyFrame() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.video != nil { // a new encoder begins with one anyway
		if err := c.video.ForceKeyFrame(); err != nil {
			c.cfg.Log.Warn("key frame refused", "err", err)
		}
	}
}

func (c *capture) setRate(r mediacap.Rate) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.Video != 0 {
		c.pending.Video = r.Video
	}
	if r.Audio != 0 {
		c.pending.Audio = r.Audio
	}
	c.applyRateLocked()
}

func (c *capture) applyRateLocked() {
	apply := func(to encode.Controller, rate *uint32) {
		if to == nil || *rate == 0 {
			return
		}
		if err := to.SetBitRate(int(*rate)); err != nil {
			c.cfg.Log.Warn("rate refused", "err", err)
		}
		*rate = 0
	}
	apply(c.video, &c.pending.Video)
	apply(c.audio, &c.pending.Audio)
}

// start opens the devices and starts one goroutine per medium.
func (c *capture) start(ctx context.Context) {
	stream, err := mediadevices.GetUserMedia(c.constraints())
	if err != nil {
		c.end(fmt.Errorf("open %s and %s: %w", c.cfg.Camera.Name, c.cfg.Microphone.Name, err))
		return
	}
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		closeTracks(stream, c.cfg.Log)
		return
	}
	c.stream = stream
	c.mu.Unlock()
	for _, t := range stream.GetAudioTracks() {
		if at, ok := t.(interface {
			Transform(fns ...audio.TransformFunc)
		}); ok {
			at.Transform(encode.Meter(c.queue.putLevel))
		}
		go c.read(ctx, t, mediacap.Opus, c.cfg.Microphone.Name)
	}
	for _, t := range stream.GetVideoTracks() {
		go c.read(ctx, t, c.cfg.Codec, c.cfg.Camera.Name)
	}
}

func (c *capture) constraints() mediadevices.MediaStreamConstraints {
	return mediadevices.MediaStreamConstraints{
		Video: func(m *mediadevices.MediaTrackConstraints) {
			m.DeviceID = prop.StringExact(c.cfg.Camera.ID)
			m.Width, m.Height = prop.Int(c.cfg.Width), prop.Int(c.cfg.Height)
			m.FrameRate = prop.Float(c.cfg.FrameRate)
			m.FrameFormat = prop.FrameFormatOneOf{mediaframe.FormatI420, mediaframe.FormatNV12, mediaframe.FormatNV21,
				mediaframe.FormatYUYV, mediaframe.FormatUYVY, mediaframe.FormatMJPEG}
		},
		Audio: func(m *mediadevices.MediaTrackConstraints) {
			m.DeviceID = prop.StringExact(c.cfg.Microphone.ID)
			m.SampleRate = prop.IntExact(48000)
			m.ChannelCount = prop.Int(1)
			m.Latency = prop.Duration(20 * time.Millisecond)
		},
		Codec: mediadevices.NewCodecSelector(
			mediadevices.WithVideoEncoders(c.encoder()),
			mediadevices.WithAudioEncoders(&encode.OpusVoice{BitRate: c.cfg.AudioRate})),
	}
}

func (c *capture) encoder() codec.VideoEncoderBuilder {
	if c.cfg.Codec == mediacap.H264 {
		return &encode.H264{BitRate: c.cfg.VideoRate, FrameRate: c.cfg.FrameRate, Backends: c.cfg.Backends}
	}
	return &encode.VP8{BitRate: c.cfg.VideoRate, FrameRate: c.cfg.FrameRate}
}

// read encodes one track into the queue until it ends.
func (c *capture) read(ctx context.Context, t mediadevices.Track, kind mediacap.Codec, device string) {
	err := func() error {
		r, err := encode.Open(t, kind)
		if err != nil {
			return err
		}
		defer r.Close()
		c.control(kind, r.Controller())
		for ctx.Err() == nil {
			u, err := r.Read()
			if err != nil {
				return err
			}
			u.Synthetic = c.cfg.Synthetic
			c.queue.put(u)
		}
		return nil
	}()
	switch {
	case errors.Is(err, io.EOF):
		c.end(fmt.Errorf("%s stopped delivering", device))
	case err != nil:
		c.end(fmt.Errorf("%s: %w", device, err))
	}
}

func (c *capture) control(kind mediacap.Codec, to encode.Controller) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if kind.Medium() == mediacap.Video {
		c.video = to
	} else {
		c.audio = to
	}
	c.applyRateLocked()
}

// send writes what the queue holds until it is closed. The first picture tells the real size, so it is
// what makes the state running; sound from before is not sent.
func (c *capture) send() error {
	var u mediacap.Unit
	var l mediacap.Level
	var status mediacap.Status
	for {
		isLevel, ok := c.queue.take(&u, &l)
		if !ok {
			return errDone
		}
		var err error
		switch {
		case !isLevel && u.Codec.Medium() == mediacap.Video && c.changed(&status, &u):
			status = c.running(&u)
			if err = c.out.Status(status); err == nil {
				err = c.out.Unit(&u)
			}
		case status.State != mediacap.Running:
		case isLevel:
			err = c.out.Level(l)
		default:
			err = c.out.Unit(&u)
		}
		if err != nil {
			return lost(err)
		}
	}
}

// changed reports whether u is the first picture of another size or encoder, which begins with a key frame.
func (c *capture) changed(s *mediacap.Status, u *mediacap.Unit) bool {
	if u.Width != s.Video.Width || u.Height != s.Video.Height {
		return true
	}
	return u.KeyFrame && s.Video.Encoder != c.library()
}

func (c *capture) library() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return mediacap.Text(c.video.Library())
}

// lost tells our own mistakes from a socket that takes nothing more: however the daemon went away, there
// is nobody to capture for.
func lost(err error) error {
	if errors.Is(err, mediacap.ErrProtocol) {
		return fmt.Errorf("capture: %w", err)
	}
	return errDone
}

func (c *capture) running(u *mediacap.Unit) mediacap.Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := mediacap.Status{
		State: mediacap.Running,
		Video: mediacap.VideoStream{Codec: u.Codec, Width: u.Width, Height: u.Height, FrameInterval: u.Duration,
			Device: mediacap.Text(c.cfg.Camera.Name), Encoder: mediacap.Text(c.video.Library())},
		Audio: mediacap.AudioStream{Codec: mediacap.Opus, SampleRate: 48000, Channels: 1,
			Device: mediacap.Text(c.cfg.Microphone.Name), Encoder: "libopus"},
	}
	if e, ok := c.video.(encode.Chooser); ok {
		choice := e.Choice()
		c.cfg.Log.Info("encoder", "name", choice.Name, "reason", choice.Reason())
	}
	if c.audio != nil {
		s.Audio.Encoder = mediacap.Text(c.audio.Library())
	}
	return s
}

// closeDevices closes what is open and makes sure that nothing is opened afterwards.
func (c *capture) closeDevices() {
	c.mu.Lock()
	c.closed = true
	stream := c.stream
	c.mu.Unlock()
	if stream == nil {
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		closeTracks(stream, c.cfg.Log)
	}()
	select {
	case <-done:
	case <-time.After(CloseLimit):
		c.cfg.Log.Warn("a device did not close in time; the end of the process closes it", "limit", CloseLimit)
	}
}

func closeTracks(s mediadevices.MediaStream, log *slog.Logger) {
	for _, t := range s.GetTracks() {
		if err := t.Close(); err != nil {
			log.Warn("close device", "err", err)
		}
	}
}

// sayGoodbye ends the sender and sends the final status, if the socket takes it.
func (c *capture) sayGoodbye(cause error, sent <-chan struct{}) {
	c.queue.close()
	if err := c.conn.SetWriteDeadline(time.Now().Add(lastWord)); err != nil {
		c.cfg.Log.Debug("set deadline of the last word", "err", err)
	}
	<-sent
	final := mediacap.Status{State: mediacap.Stopped}
	if cause != nil {
		final = mediacap.Status{State: mediacap.Failed, Reason: mediacap.Text(cause.Error())}
	}
	if err := c.out.Status(final); err != nil {
		c.cfg.Log.Debug("the daemon did not take the last word", "err", err)
	}
	if d := c.queue.losses(); d != (Dropped{}) {
		c.cfg.Log.Warn("the daemon was slow", "dropped_audio", d.Audio, "dropped_video", d.Video)
	}
	c.conn.Close()
}
