package pump

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pion/mediadevices/pkg/driver"
	_ "github.com/pion/mediadevices/pkg/driver/audiotest"
	_ "github.com/pion/mediadevices/pkg/driver/videotest"

	"github.com/alcove-room/alcove/mediacap"
	"github.com/alcove-room/alcove/mediacap/capturetest"
)

func unit(c mediacap.Codec, seq uint32, key bool) *mediacap.Unit {
	return &mediacap.Unit{Codec: c, Seq: seq, KeyFrame: key, Payload: []byte{byte(seq)}}
}

// drain takes everything that waits.
func drain(q *queue) (got []mediacap.Unit) {
	for q.audio.n > 0 || q.video.n > 0 || q.hasLevel {
		var u mediacap.Unit
		var l mediacap.Level
		if isLevel, ok := q.take(&u, &l); ok && !isLevel {
			got = append(got, u)
		}
	}
	return got
}

func TestQueueSendsSoundFirst(t *testing.T) {
	q := newQueue(func() {})
	q.put(unit(mediacap.VP8, 0, true))
	q.putLevel(mediacap.Level{CaptureTime: 1})
	q.putLevel(mediacap.Level{CaptureTime: 2})
	q.put(unit(mediacap.Opus, 0, false))
	var u mediacap.Unit
	var l mediacap.Level
	if isLevel, ok := q.take(&u, &l); !ok || isLevel || u.Codec != mediacap.Opus {
		t.Fatalf("first: %+v", u)
	}
	if isLevel, ok := q.take(&u, &l); !ok || !isLevel || l.CaptureTime != 2 {
		t.Fatalf("second: %+v", l)
	}
	if isLevel, ok := q.take(&u, &l); !ok || isLevel || u.Codec != mediacap.VP8 {
		t.Fatalf("third: %+v", u)
	}
}

func TestQueueDropsTheOldestSound(t *testing.T) {
	q := newQueue(func() {})
	for i := range uint32(audioSlots + 5) {
		q.put(unit(mediacap.Opus, i, false))
	}
	got := drain(q)
	if len(got) != audioSlots || got[0].Seq != 5 || got[0].Payload[0] != 5 || q.losses().Audio != 5 {
		t.Errorf("%d units from %d on, %+v lost", len(got), got[0].Seq, q.losses())
	}
}

func TestQueueDropsPicturesToTheNextKeyFrame(t *testing.T) {
	asked := 0
	q := newQueue(func() { asked++ })
	seq := uint32(0)
	put := func(n int, key bool) {
		for range n {
			q.put(unit(mediacap.VP8, seq, key))
			seq++
		}
	}
	put(1, true)
	put(videoSlots+3, false) // the last four find no place
	if asked != 1 || q.losses().Video != 4 {
		t.Fatalf("asked %d times, %+v lost", asked, q.losses())
	}
	var u mediacap.Unit
	var l mediacap.Level
	q.take(&u, &l) // there is room again, but only for a key frame
	put(2, false)
	put(1, true)
	put(2, false)
	got := drain(q)
	if len(got) != 3 || !got[0].KeyFrame || got[0].Seq != 14 || got[2].Seq != 16 {
		t.Errorf("after the key frame: %+v", got)
	}
	if asked != 1 || q.losses().Video != 4+7+2 {
		t.Errorf("asked %d times, %+v lost", asked, q.losses())
	}
	put(1, true)
	put(videoSlots-1, false)
	put(1, true) // a key frame that comes by itself into a full queue
	if got := drain(q); len(got) != 1 || asked != 1 {
		t.Errorf("%d pictures, asked %d times", len(got), asked)
	}
}

func TestQueueDoesNotAllocatePerUnit(t *testing.T) {
	q := newQueue(func() {})
	u := unit(mediacap.Opus, 0, false)
	u.Payload = make([]byte, 80)
	var taken mediacap.Unit
	var l mediacap.Level
	round := func() {
		q.put(u)
		q.take(&taken, &l)
	}
	for range 2 * audioSlots {
		round()
	}
	if n := testing.AllocsPerRun(100, round); n > 0 {
		t.Errorf("%v allocations per unit", n)
	}
}

// registered returns mediadevices' own test drivers by their labels.
func registered(t *testing.T, label string) Device {
	t.Helper()
	for _, d := range driver.GetManager().Query(func(d driver.Driver) bool { return d.Info().Label == label }) {
		return Device{ID: d.ID(), Name: label}
	}
	t.Fatalf("no driver %s", label)
	return Device{}
}

func config(camera, microphone Device) Config {
	return Config{Build: "test", Synthetic: true, Camera: camera, Microphone: microphone, Width: 640, Height: 480,
		FrameRate: 30, VideoRate: 600_000, AudioRate: 32_000, Log: slog.New(slog.DiscardHandler)}
}

// run starts Run and returns the daemon's end.
func run(t *testing.T, cfg Config) (conn net.Conn, ended chan error) {
	t.Helper()
	conn, theirs := net.Pipe()
	t.Cleanup(func() { conn.Close() })
	ended = make(chan error, 1)
	go func() { ended <- Run(context.Background(), theirs, cfg) }()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return conn, ended
}

// TestForeignDrivers runs drivers that know nothing of capture times or of this repository, with pictures
// in 4:2:2, through the same path.
func TestForeignDrivers(t *testing.T) {
	conn, ended := run(t, config(registered(t, "VideoTest"), registered(t, "AudioTest")))
	in := mediacap.NewReader(conn)
	var ages [2][]time.Duration
	for len(ages[mediacap.Video]) < 15 || len(ages[mediacap.Audio]) < 75 {
		e, err := in.Read()
		if err != nil {
			t.Fatal(err)
		}
		if u, ok := e.(*mediacap.Unit); ok {
			m := u.Codec.Medium()
			ages[m] = append(ages[m], mediacap.Now().Sub(u.CaptureTime))
		}
	}
	for m, list := range ages {
		// A driver that does not tell the time is taken at its word, and a machine that stops for a moment makes single
		// chunks late and the next ones early. The middle one tells whether time is right.
		slices.Sort(list)
		if age := list[len(list)/2]; age < -40*time.Millisecond || age > time.Second {
			t.Errorf("medium %d was captured %v ago, from %v to %v", m, age, list[0], list[len(list)-1])
		}
	}
	stopAndDrain(t, conn, in)
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func stopAndDrain(t *testing.T, conn net.Conn, in *mediacap.Reader) {
	t.Helper()
	drained := make(chan error)
	go func() {
		for {
			if _, err := in.Read(); err != nil {
				drained <- err
				return
			}
		}
	}()
	if err := mediacap.NewRequestWriter(conn).Send(mediacap.Stop{}); err != nil {
		t.Fatal(err)
	}
	if err := <-drained; err != io.EOF {
		t.Errorf("after the stop: %v", err)
	}
}

func TestNothingIsLeftBehind(t *testing.T) {
	d, err := capturetest.Register(160, 96, 30)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Unregister()
	cfg := config(Device{ID: d.Camera, Name: "picture"}, Device{ID: d.Microphone, Name: "voice"})
	once := func() {
		conn, ended := run(t, cfg)
		in := mediacap.NewReader(conn)
		for {
			e, err := in.Read()
			if err != nil {
				t.Fatal(err)
			}
			if _, ok := e.(*mediacap.Unit); ok {
				break
			}
		}
		stopAndDrain(t, conn, in)
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
	}
	once()
	before := runtime.NumGoroutine()
	for range 10 {
		once()
	}
	for range 100 { // readers end within a frame of the stop
		if runtime.NumGoroutine() <= before {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("%d goroutines before, %d after ten captures", before, runtime.NumGoroutine())
}

func TestMissingDeviceFails(t *testing.T) {
	conn, ended := run(t, config(Device{ID: "none", Name: "Camera X"}, registered(t, "AudioTest")))
	last := lastStatus(conn)
	if err := <-ended; err == nil {
		t.Error("no error")
	}
	if last.State != mediacap.Failed || !strings.Contains(last.Reason, "Camera X") {
		t.Errorf("last status %+v", last)
	}
}

func TestRefuseTellsWhy(t *testing.T) {
	conn, theirs := net.Pipe()
	defer conn.Close()
	go Refuse(theirs, config(Device{}, Device{}), errors.New("find camera: no device"))
	if last := lastStatus(conn); last.State != mediacap.Failed || last.Reason != "find camera: no device" {
		t.Errorf("last status %+v", last)
	}
}

func lastStatus(conn net.Conn) (last mediacap.Status) {
	in := mediacap.NewReader(conn)
	for {
		e, err := in.Read()
		if err != nil {
			return last
		}
		if s, ok := e.(*mediacap.Status); ok {
			last = *s
		}
	}
}
