package capturetest

import (
	"crypto/rand"
	"fmt"
	"image"
	"io"
	"sync"
	"time"

	"github.com/pion/mediadevices/pkg/driver"
	mediaframe "github.com/pion/mediadevices/pkg/frame"
	"github.com/pion/mediadevices/pkg/io/audio"
	"github.com/pion/mediadevices/pkg/io/video"
	"github.com/pion/mediadevices/pkg/prop"
	"github.com/pion/mediadevices/pkg/wave"

	"github.com/alcove-room/alcove/mediacap"
	"github.com/alcove-room/alcove/mediacap/frame"
)

// Names of the test devices, as people see them.
const (
	CameraName     = "Alcove test picture"
	MicrophoneName = "Alcove test voice"
)

const (
	soundFrame   = 20 * time.Millisecond
	soundSamples = SampleRate / 50
	// ringSize keeps a picture untouched while a reader of mediadevices' broadcaster is a little late.
	ringSize = 4
)

// Devices are the identifiers of the registered test drivers.
type Devices struct{ Camera, Microphone string }

// Register adds a test camera of that size and frame rate and a test microphone to mediadevices' drivers
// and returns their identifiers, for GetUserMedia's constraints.
func Register(width, height int, frameRate float32) (Devices, error) {
	if width < 4*GridColumns || width > mediacap.MaxSide || height < width/4 || height > mediacap.MaxSide {
		return Devices{}, fmt.Errorf("test picture of %d×%d: the width is %d…%d, the height at least a quarter of it",
			width, height, 4*GridColumns, mediacap.MaxSide)
	}
	if frameRate < 1 || frameRate > 120 {
		return Devices{}, fmt.Errorf("test picture at %v frames per second: 1…120 are possible", frameRate)
	}
	c, err := register(&camera{width: width, height: height, rate: frameRate}, driver.Camera, CameraName)
	if err != nil {
		return Devices{}, err
	}
	m, err := register(&microphone{}, driver.Microphone, MicrophoneName)
	if err != nil {
		driver.GetManager().Delete(c)
		return Devices{}, err
	}
	return Devices{Camera: c, Microphone: m}, nil
}

// Unregister takes the drivers out again. They must be closed.
func (d Devices) Unregister() {
	driver.GetManager().Delete(d.Camera)
	driver.GetManager().Delete(d.Microphone)
}

// register finds the identifier, which Register keeps to itself, by a label that nobody else has.
func register(a driver.Adapter, kind driver.DeviceType, name string) (string, error) {
	label := name + " " + rand.Text()
	if err := driver.GetManager().Register(a, driver.Info{Label: label, Name: name, DeviceType: kind}); err != nil {
		return "", fmt.Errorf("register %s: %w", name, err)
	}
	for _, d := range driver.GetManager().Query(func(d driver.Driver) bool { return d.Info().Label == label }) {
		return d.ID(), nil
	}
	return "", fmt.Errorf("register %s: not found afterwards", name)
}

// device is what both drivers share: a Close that ends a waiting Read at once.
type device struct {
	done chan struct{}
	once *sync.Once // mediadevices may close twice
}

func (d *device) Open() error {
	d.done, d.once = make(chan struct{}), new(sync.Once)
	return nil
}

func (d *device) Close() error {
	if d.once != nil {
		d.once.Do(func() { close(d.done) })
	}
	return nil
}

// pacer waits for points of time, at most one reader at a time.
type pacer struct {
	done  <-chan struct{}
	timer *time.Timer
}

func (p *pacer) until(t time.Time) error {
	p.timer.Reset(time.Until(t))
	select {
	case <-p.done:
		return io.EOF
	case <-p.timer.C:
	}
	select {
	case <-p.done:
		return io.EOF
	default:
		return nil
	}
}

func (d *device) pacer() pacer { return pacer{done: d.done, timer: time.NewTimer(time.Hour)} }

// camera implements driver.Adapter and driver.VideoRecorder.
type camera struct {
	device
	width, height int
	rate          float32
}

// Properties implements driver.Adapter.
func (c *camera) Properties() []prop.Media {
	return []prop.Media{{Video: prop.Video{Width: c.width, Height: c.height, FrameRate: c.rate, FrameFormat: mediaframe.FormatI420}}}
}

// VideoRecord implements driver.VideoRecorder. The counter is the number of frame intervals since the
// start: a reader that is late misses numbers, as it misses frames of a camera.
func (c *camera) VideoRecord(prop.Media) (video.Reader, error) {
	interval := time.Duration(float64(time.Second) / float64(c.rate))
	ring := make([]*frame.Picture, ringSize)
	for i := range ring {
		p := image.NewYCbCr(image.Rect(0, 0, c.width, c.height), image.YCbCrSubsampleRatio420)
		ring[i] = &frame.Picture{YCbCr: *p}
	}
	painter, pace, start, n := newPainter(c.width, c.height), c.pacer(), time.Now(), int64(0)
	return video.ReaderFunc(func() (image.Image, func(), error) {
		n = max(n, int64(time.Since(start)/interval))
		if err := pace.until(start.Add(time.Duration(n) * interval)); err != nil {
			return nil, func() {}, err
		}
		p := ring[n%ringSize]
		p.Captured = mediacap.Now()
		painter.paint(&p.YCbCr, Stamp{Counter: uint32(n), Clock: time.Now()})
		n++
		return p, func() {}, nil
	}), nil
}

// microphone implements driver.Adapter and driver.AudioRecorder.
type microphone struct{ device }

// Properties implements driver.Adapter.
func (m *microphone) Properties() []prop.Media {
	return []prop.Media{{Audio: prop.Audio{SampleRate: SampleRate, ChannelCount: 1, Latency: soundFrame, SampleSize: 2, IsInterleaved: true}}}
}

// maxLate is how much sound a reader may be late by before samples are lost.
const maxLate = 500 * time.Millisecond

// AudioRecord implements driver.AudioRecorder.
func (m *microphone) AudioRecord(prop.Media) (audio.Reader, error) {
	ring := make([]*frame.Sound, ringSize)
	for i := range ring {
		info := wave.ChunkInfo{Len: soundSamples, Channels: 1, SamplingRate: SampleRate}
		ring[i] = &frame.Sound{Int16Interleaved: *wave.NewInt16Interleaved(info)}
	}
	voice, pace := &speaker{seed: Seed, index: -1}, m.pacer()
	start, captured, n := time.Now(), mediacap.Now(), int64(0)
	first := OffsetAt(start)
	return audio.ReaderFunc(func() (wave.Audio, func(), error) {
		if late := time.Since(start) - time.Duration(n+1)*soundFrame; late > maxLate {
			n += int64(late / soundFrame)
		}
		if err := pace.until(start.Add(time.Duration(n+1) * soundFrame)); err != nil {
			return nil, func() {}, err
		}
		s := ring[n%ringSize]
		s.Captured = captured.Add(time.Duration(n) * soundFrame)
		voice.fill(s.Data, first+n*soundSamples)
		n++
		return s, func() {}, nil
	}), nil
}
