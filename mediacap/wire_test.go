package mediacap

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"time"
)

var running = Status{
	State: Running,
	Video: VideoStream{Codec: VP8, Width: 640, Height: 360, FrameInterval: time.Second / 15, Device: "camera", Encoder: "libvpx"},
	Audio: AudioStream{Codec: Opus, SampleRate: 48000, Channels: 1, Device: "microphone", Encoder: "libopus"},
}

func picture(seq uint32, key bool) *Unit {
	return &Unit{Codec: VP8, KeyFrame: key, Seq: seq, CaptureTime: Time(1e9 + int64(seq)*66e6), Duration: 66 * time.Millisecond,
		Width: 640, Height: 360, Payload: bytes.Repeat([]byte{byte(seq)}, 1000)}
}

func sound(seq uint32) *Unit {
	return &Unit{Codec: Opus, Seq: seq, CaptureTime: Time(1e9 + int64(seq)*20e6), Duration: 20 * time.Millisecond,
		Payload: bytes.Repeat([]byte{byte(seq)}, 80)}
}

func startedWriter(t testing.TB, w io.Writer) *Writer {
	t.Helper()
	wr := NewWriter(w)
	if err := wr.Hello(Hello{Build: "1.0"}); err != nil {
		t.Fatal(err)
	}
	if err := wr.Status(running); err != nil {
		t.Fatal(err)
	}
	return wr
}

func TestRoundTrip(t *testing.T) {
	var wire bytes.Buffer
	w := startedWriter(t, &wire)
	sent := []Event{&Hello{Build: "1.0"}, &running, picture(7, true), sound(1),
		&Level{CaptureTime: 5, RMS: -31.25, Peak: -3}, picture(8, false), sound(2),
		&Status{State: Failed, Reason: "camera: gone"}}
	for _, e := range sent[2:] {
		var err error
		switch e := e.(type) {
		case *Unit:
			err = w.Unit(e)
		case *Level:
			err = w.Level(*e)
		case *Status:
			err = w.Status(*e)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	r := NewReader(&wire)
	for i, want := range sent {
		got, err := r.Read()
		if err != nil {
			t.Fatalf("event %d: %v", i, err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("event %d: got %+v, want %+v", i, got, want)
		}
	}
	for range 2 {
		if _, err := r.Read(); err != io.EOF {
			t.Fatalf("after the last event: %v, want EOF", err)
		}
	}
}

func TestRequestsRoundTrip(t *testing.T) {
	var wire bytes.Buffer
	w := NewRequestWriter(&wire)
	sent := []Request{KeyFrame{}, Rate{Video: 400_000}, Rate{Video: 300_000, Audio: 32_000}, Stop{}}
	for _, q := range sent {
		if err := w.Send(q); err != nil {
			t.Fatal(err)
		}
	}
	for _, bad := range []Request{Rate{Video: 1}, Rate{Audio: 1 << 30}} {
		if err := w.Send(bad); !errors.Is(err, ErrProtocol) {
			t.Errorf("%+v was sent: %v", bad, err)
		}
	}
	r := NewRequestReader(&wire)
	for _, want := range sent {
		got, err := r.Read()
		if err != nil || got != want {
			t.Fatalf("got %+v, %v; want %+v", got, err, want)
		}
	}
	if _, err := r.Read(); err != io.EOF {
		t.Fatalf("after the last request: %v", err)
	}
}

// TestBothEndsRefuse gives each wrong event to a Writer, and, written without a Writer's judgement, to a Reader.
func TestBothEndsRefuse(t *testing.T) {
	unit := func(change func(*Unit)) *Unit { u := picture(2, false); change(u); return u }
	tone := func(change func(*Unit)) *Unit { u := sound(2); change(u); return u }
	status := func(change func(*Status)) *Status { s := running; change(&s); return &s }
	for name, e := range map[string]Event{
		"second hello":          &Hello{},
		"unknown codec":         unit(func(u *Unit) { u.Codec = 9 }),
		"unannounced codec":     unit(func(u *Unit) { u.Codec = H264 }),
		"other size":            unit(func(u *Unit) { u.Width = 1280 }),
		"empty picture":         unit(func(u *Unit) { u.Payload = nil }),
		"huge picture":          unit(func(u *Unit) { u.Payload = make([]byte, MaxPayload+1) }),
		"no duration":           unit(func(u *Unit) { u.Duration = 0 }),
		"long duration":         unit(func(u *Unit) { u.Duration = MaxDuration + 1 }),
		"time repeats":          unit(func(u *Unit) { u.CaptureTime = picture(1, true).CaptureTime }),
		"time before the clock": unit(func(u *Unit) { u.CaptureTime = -1 }),
		"sequence repeats":      unit(func(u *Unit) { u.Seq = 1 }),
		"sequence goes back":    unit(func(u *Unit) { u.Seq = 1<<32 - 5 }),
		"gap without key frame": unit(func(u *Unit) { u.Seq = 3 }),
		"synthetic":             unit(func(u *Unit) { u.Synthetic = true }),
		"sound with size":       tone(func(u *Unit) { u.Width = 640 }),
		"sound with key frame":  tone(func(u *Unit) { u.KeyFrame = true }),
		"long sound":            tone(func(u *Unit) { u.Payload = make([]byte, MaxAudio+1) }),
		"sound goes back":       tone(func(u *Unit) { u.Seq = 1 }),
		"loud level":            &Level{RMS: 1},
		"quiet level":           &Level{RMS: -128},
		"unknown state":         status(func(s *Status) { s.State = 9 }),
		"video codec for audio": status(func(s *Status) { s.Audio.Codec = VP8 }),
		"huge size":             status(func(s *Status) { s.Video.Width = MaxSide + 1 }),
		"no size":               status(func(s *Status) { s.Video.Height = 0 }),
		"nameless camera":       status(func(s *Status) { s.Video.Device = "" }),
		"control characters":    status(func(s *Status) { s.Video.Device = "a\x1b[2Jb" }),
		"stereo":                status(func(s *Status) { s.Audio.Channels = 2 }),
		"streams of the dead":   status(func(s *Status) { s.State = Stopped }),
	} {
		t.Run(name, func(t *testing.T) {
			var wire bytes.Buffer
			w := startedWriter(t, &wire)
			if err := errors.Join(w.Unit(picture(1, true)), w.Unit(sound(1))); err != nil {
				t.Fatal(err)
			}
			before := wire.Len()
			if err := write(w, e); !errors.Is(err, ErrProtocol) {
				t.Errorf("writer: %v, want an ErrProtocol", err)
			}
			if wire.Len() != before {
				t.Error("writer sent a part of what it refused")
			}
			wire.Write(unjudged(t, e))
			r := NewReader(&wire)
			for range 4 {
				if _, err := r.Read(); err != nil {
					t.Fatal(err)
				}
			}
			_, err := r.Read()
			if !errors.Is(err, ErrProtocol) {
				t.Errorf("reader: %v, want an ErrProtocol", err)
			}
			if _, again := r.Read(); again != err {
				t.Errorf("reader went on after an error: %v", again)
			}
		})
	}
}

func write(w *Writer, e Event) error {
	switch e := e.(type) {
	case *Hello:
		return w.Hello(*e)
	case *Status:
		return w.Status(*e)
	case *Unit:
		return w.Unit(e)
	case *Level:
		return w.Level(*e)
	}
	return nil
}

// unjudged encodes e with a Writer whose rules were satisfied by a look-alike.
func unjudged(t *testing.T, e Event) []byte {
	t.Helper()
	var b bytes.Buffer
	f := frameWriter{w: &b}
	switch e := e.(type) {
	case *Hello:
		f.begin(typeHello)
		f.buf = append(f.buf, flag(e.Synthetic, helloSynthetic))
		f.text(e.Build)
	case *Status:
		f.begin(typeStatus)
		f.buf = append(f.buf, byte(e.State))
		f.text(e.Reason)
		f.buf = append(f.buf, byte(e.Video.Codec))
		f.buf = binary.BigEndian.AppendUint16(f.buf, e.Video.Width)
		f.buf = binary.BigEndian.AppendUint16(f.buf, e.Video.Height)
		f.buf = binary.BigEndian.AppendUint32(f.buf, uint32(e.Video.FrameInterval))
		f.text(e.Video.Device)
		f.text(e.Video.Encoder)
		f.buf = append(f.buf, byte(e.Audio.Codec))
		f.buf = binary.BigEndian.AppendUint32(f.buf, e.Audio.SampleRate)
		f.buf = append(f.buf, e.Audio.Channels)
		f.text(e.Audio.Device)
		f.text(e.Audio.Encoder)
	case *Unit:
		f.begin(typeUnit)
		f.buf = append(f.buf, byte(e.Codec), flag(e.KeyFrame, unitKeyFrame)|flag(e.Synthetic, unitSynthetic))
		f.buf = binary.BigEndian.AppendUint16(f.buf, e.Width)
		f.buf = binary.BigEndian.AppendUint16(f.buf, e.Height)
		f.buf = append(f.buf, 0, 0)
		f.buf = binary.BigEndian.AppendUint32(f.buf, e.Seq)
		f.buf = binary.BigEndian.AppendUint32(f.buf, uint32(e.Duration))
		f.buf = binary.BigEndian.AppendUint64(f.buf, uint64(e.CaptureTime))
		f.buf = append(f.buf, e.Payload...)
	case *Level:
		f.begin(typeLevel)
		f.buf = binary.BigEndian.AppendUint64(f.buf, uint64(e.CaptureTime))
		f.buf = binary.BigEndian.AppendUint16(f.buf, uint16(hundredths(e.RMS)))
		f.buf = binary.BigEndian.AppendUint16(f.buf, uint16(hundredths(e.Peak)))
	}
	if err := f.send(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestOrderOfMessages(t *testing.T) {
	w := NewWriter(io.Discard)
	if err := w.Status(running); !errors.Is(err, ErrProtocol) {
		t.Errorf("status before hello: %v", err)
	}
	if err := w.Hello(Hello{}); err != nil {
		t.Fatal(err)
	}
	if err := w.Unit(picture(1, true)); !errors.Is(err, ErrProtocol) {
		t.Errorf("unit before status: %v", err)
	}
	if err := w.Status(running); err != nil {
		t.Fatal(err)
	}
	if err := w.Unit(picture(1, false)); !errors.Is(err, ErrProtocol) {
		t.Errorf("stream that begins without a key frame: %v", err)
	}
	if err := w.Unit(picture(1, true)); err != nil {
		t.Fatal(err)
	}
	if err := w.Unit(picture(5, true)); err != nil {
		t.Errorf("key frame after a gap: %v", err)
	}
	small := running
	small.Video.Width, small.Video.Height = 320, 180
	if err := w.Status(small); err != nil {
		t.Fatal(err)
	}
	u := picture(6, false)
	u.Width, u.Height = 320, 180
	if err := w.Unit(u); !errors.Is(err, ErrProtocol) {
		t.Errorf("new size without a key frame: %v", err)
	}
	if err := w.Status(Status{State: Stopped}); err != nil {
		t.Fatal(err)
	}
	if err := w.Status(running); !errors.Is(err, ErrProtocol) {
		t.Errorf("status after the end: %v", err)
	}
}

func TestGapsAreReported(t *testing.T) {
	var wire bytes.Buffer
	w := startedWriter(t, &wire)
	u := picture(1<<32-1, true)
	u.CaptureTime = 1
	for _, u := range []*Unit{u, picture(3, true), sound(9), sound(10), sound(14)} {
		if err := w.Unit(u); err != nil {
			t.Fatal(err)
		}
	}
	r := NewReader(&wire)
	var lost []uint32
	for {
		e, err := r.Read()
		if err != nil {
			break
		}
		if u, ok := e.(*Unit); ok {
			lost = append(lost, u.Lost)
		}
	}
	if want := []uint32{0, 3, 0, 0, 3}; !reflect.DeepEqual(lost, want) {
		t.Errorf("lost %v, want %v", lost, want)
	}
}

func TestVersionMismatch(t *testing.T) {
	_, err := NewReader(bytes.NewReader([]byte{'A', 'C', 2, 1, 0, 0, 0, 2, 0, 0})).Read()
	var v *VersionError
	if !errors.As(err, &v) || v.Peer != 2 || !errors.Is(err, ErrProtocol) {
		t.Fatalf("got %v", err)
	}
	if !strings.Contains(err.Error(), "version 2") {
		t.Errorf("error does not say which version: %v", err)
	}
}

func TestHeadersAreJudgedBeforeBodies(t *testing.T) {
	for name, b := range map[string][]byte{
		"magic":        {'X', 'C', 1, 1, 0, 0, 0, 2, 0, 0},
		"type":         {'A', 'C', 1, 77, 0, 0, 0, 2, 0, 0},
		"request":      {'A', 'C', 1, typeStop, 0, 0, 0, 0},
		"length":       {'A', 'C', 1, typeUnit, 0xff, 0xff, 0xff, 0xff},
		"short level":  {'A', 'C', 1, typeLevel, 0, 0, 0, 1, 0},
		"hello's flag": {'A', 'C', 1, typeHello, 0, 0, 0, 2, 4, 0},
		"hello's tail": {'A', 'C', 1, typeHello, 0, 0, 0, 3, 0, 0, 0},
		"hello's text": {'A', 'C', 1, typeHello, 0, 0, 0, 2, 0, 1},
	} {
		r := NewReader(bytes.NewReader(b))
		if _, err := r.Read(); !errors.Is(err, ErrProtocol) {
			t.Errorf("%s: %v", name, err)
		}
		if cap(r.buf) > MaxMessage {
			t.Errorf("%s: allocated %d bytes", name, cap(r.buf))
		}
	}
	var wire bytes.Buffer
	startedWriter(t, &wire)
	for _, cut := range []int{1, 7, 9} {
		r := NewReader(bytes.NewReader(wire.Bytes()[:cut]))
		if _, err := r.Read(); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("cut at %d: %v", cut, err)
		}
	}
}

func TestNoAllocationPerUnit(t *testing.T) {
	var wire bytes.Buffer
	w := startedWriter(t, &wire)
	r := NewReader(&wire)
	seq := uint32(0)
	p, s := picture(0, true), sound(0)
	p.Payload = make([]byte, 10_000)
	round := func() {
		seq++
		p.Seq, s.Seq = seq, seq
		p.KeyFrame = seq == 1
		p.CaptureTime += 66e6
		s.CaptureTime += 20e6
		if w.Unit(p) != nil || w.Unit(s) != nil || w.Level(Level{CaptureTime: 1, RMS: -20, Peak: -10}) != nil {
			t.Fatal("write failed")
		}
		for range 3 {
			if _, err := r.Read(); err != nil {
				t.Fatal(err)
			}
		}
	}
	for range 2 { // hello and status
		if _, err := r.Read(); err != nil {
			t.Fatal(err)
		}
	}
	round()
	if n := testing.AllocsPerRun(200, round); n != 0 {
		t.Errorf("%v allocations per picture, sound and level", n)
	}
}

func TestRTPTime(t *testing.T) {
	for _, c := range []struct {
		codec Codec
		t     Time
		want  uint32
	}{
		{VP8, 0, 0}, {VP8, 1e9, 90000}, {Opus, 20e6, 960},
		{VP8, Time(400 * 24 * time.Hour), uint32(400 * 24 * 3600 * 90000 % (1 << 32))},
		{VP8, -1, 0},
	} {
		if got := c.codec.RTPTime(c.t); got != c.want {
			t.Errorf("%v at %d: %d, want %d", c.codec, c.t, got, c.want)
		}
	}
	VP8.RTPTime(Time(1<<63 - 1)) // must not overflow the division
}

func TestNowIsSharedAndMonotonic(t *testing.T) {
	a := Now()
	b := Now()
	if a <= 0 || b < a {
		t.Errorf("%d then %d", a, b)
	}
}

func TestTextFitsTheWire(t *testing.T) {
	for _, s := range []string{"camera", "a\x00\x1b[2Jb", strings.Repeat("é", 300), "\xff\xfe", strings.Repeat("a", 199) + "é"} {
		if err := checkText("name", Text(s)); err != nil {
			t.Errorf("%q: %v", s, err)
		}
	}
}

// FuzzReader checks that whatever bytes arrive, a Reader returns only events that a Writer would have sent,
// in exactly the bytes in which it would have sent them.
func FuzzReader(f *testing.F) {
	var wire bytes.Buffer
	w := startedWriter(f, &wire)
	for _, err := range []error{w.Unit(picture(1, true)), w.Unit(sound(1)), w.Level(Level{CaptureTime: 1, RMS: -20, Peak: -3.5}),
		w.Unit(picture(2, false)), w.Unit(picture(9, true)), w.Unit(sound(5)), w.Status(Status{State: Stopped, Reason: "asked to"})} {
		if err != nil {
			f.Fatal(err)
		}
	}
	f.Add(wire.Bytes())
	f.Add(wire.Bytes()[:60])
	f.Add([]byte{'A', 'C', 2, 1, 0, 0, 0, 2, 0, 0})
	f.Fuzz(func(t *testing.T, in []byte) {
		var again bytes.Buffer
		w := NewWriter(&again)
		r := NewReader(bytes.NewReader(in))
		for {
			e, err := r.Read()
			if err != nil {
				break
			}
			if err := write(w, e); err != nil {
				t.Fatalf("reader let pass what a writer refuses: %v", err)
			}
		}
		if !bytes.HasPrefix(in, again.Bytes()) {
			t.Fatal("one event has two encodings")
		}
	})
}
