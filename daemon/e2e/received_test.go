package e2e

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"image"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4/pkg/media/oggwriter"

	"github.com/alcove-room/alcove/daemon/e2e/browser"
	"github.com/alcove-room/alcove/daemon/e2e/stack"
	"github.com/alcove-room/alcove/mediacap/capturetest"
)

// The browser's fake camera and microphone.
const (
	filmWidth, filmHeight, filmRate = 640, 360, 15
	filmFrames                      = 90
	filmFirst                       = 7000 // counter of the first picture, apart from the room's
	tapeSeconds                     = 12
	// tapeFrom is where the tape begins in the test voice: far from what the room's microphone hears now, so that
	// neither side's own sound can be taken for the other's.
	tapeFrom = 1000 * capturetest.SampleRate
)

var filmClock = time.UnixMilli(1_700_000_000_000)

func filmPicture(i int) *image.YCbCr {
	return capturetest.Picture(filmWidth, filmHeight, uint32(filmFirst+i), filmClock.Add(time.Duration(i)*time.Second/filmRate))
}

// film writes a camera file: the test picture, its stamp counting from filmFirst.
func film(t *testing.T) string {
	t.Helper()
	var b bytes.Buffer
	fmt.Fprintf(&b, "YUV4MPEG2 W%d H%d F%d:1 Ip A1:1 C420jpeg\n", filmWidth, filmHeight, filmRate)
	for i := range filmFrames {
		p := filmPicture(i)
		b.WriteString("FRAME\n")
		b.Write(p.Y)
		b.Write(p.Cb)
		b.Write(p.Cr)
	}
	return write(t, "camera.y4m", b.Bytes())
}

// tape writes a microphone file: the test voice from tapeFrom on.
func tape(t *testing.T) string {
	t.Helper()
	voice := capturetest.Voice(tapeFrom, tapeSeconds*capturetest.SampleRate)
	var b bytes.Buffer
	b.WriteString("RIFF")
	for _, v := range []any{
		uint32(36 + 2*len(voice)), []byte("WAVEfmt "), uint32(16), uint16(1), uint16(1), uint32(capturetest.SampleRate),
		uint32(2 * capturetest.SampleRate), uint16(2), uint16(16), []byte("data"), uint32(2 * len(voice)), voice,
	} {
		ok(t, binary.Write(&b, binary.LittleEndian, v))
	}
	return write(t, "microphone.wav", b.Bytes())
}

func write(t *testing.T, name string, raw []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	ok(t, os.WriteFile(path, raw, 0o600))
	return path
}

// recorder is the room's sink: it keeps what was decrypted as files that any player reads.
type recorder struct {
	mu     sync.Mutex
	frames int
	ivf    bytes.Buffer
	ogg    bytes.Buffer
	opus   *oggwriter.OggWriter
	seq    uint16
	failed error
}

func newRecorder(t *testing.T) *recorder {
	t.Helper()
	r := &recorder{}
	r.opus = must[*oggwriter.OggWriter](t)(oggwriter.NewWith(&r.ogg, capturetest.SampleRate, 1))
	head := make([]byte, 32)
	copy(head, "DKIF\x00\x00\x20\x00VP80")
	binary.LittleEndian.PutUint16(head[12:], filmWidth)
	binary.LittleEndian.PutUint16(head[14:], filmHeight)
	binary.LittleEndian.PutUint32(head[16:], 90000)
	binary.LittleEndian.PutUint32(head[20:], 1)
	r.ivf.Write(head)
	return r
}

// Frame implements session.Sink.
func (r *recorder) Frame(_, mime string, frame []byte, timestamp uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch mime {
	case "video/VP8":
		head := make([]byte, 12)
		binary.LittleEndian.PutUint32(head, uint32(len(frame)))
		binary.LittleEndian.PutUint64(head[4:], uint64(timestamp))
		r.ivf.Write(head)
		r.ivf.Write(frame)
		r.frames++
	case "audio/opus":
		r.seq++
		p := rtp.Packet{Header: rtp.Header{Version: 2, SequenceNumber: r.seq, Timestamp: timestamp}, Payload: bytes.Clone(frame)}
		if err := r.opus.WriteRTP(&p); err != nil && r.failed == nil {
			r.failed = err
		}
	}
}

func (r *recorder) files() (ivf, ogg []byte, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return bytes.Clone(r.ivf.Bytes()), bytes.Clone(r.ogg.Bytes()), r.failed
}

func ffmpeg(t *testing.T, in []byte, args ...string) []byte {
	t.Helper()
	cmd := exec.Command("ffmpeg", append([]string{"-hide_banner", "-loglevel", "error", "-i", "pipe:0"}, args...)...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(in), &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("ffmpeg: %v\n%s", err, &errs)
	}
	return out.Bytes()
}

// TestReceived decodes what the room got from the browser: the known picture and the known sound, and the room's own
// in the browser, at the same time.
func TestReceived(t *testing.T) {
	got := newRecorder(t)
	s := start(t, stack.Options{Sink: got})
	b := chromium(t, browser.Options{Video: film(t), Audio: tape(t)})
	p := call(t, s, b)
	picture(t, p, 15*time.Second)
	must[stack.Status](t)(s.Await(t.Context(), 15*time.Second, "the browser's picture and sound", func(st stack.Status) bool {
		return st.Session != nil && len(st.Session.People) == 1 &&
			st.Session.People[0].Received.VideoFrames > 75 && st.Session.People[0].Received.AudioPackets > 400
	}))
	heard(t, p)
	must[stack.Status](t)(s.Press(t.Context(), "end"))
	ivf, ogg, err := got.files()
	ok(t, err)
	judgeFilm(t, ivf, got.frames)
	judgeTape(t, ogg)
}

// judgeFilm reads the stamp of each decoded picture and compares the picture with the one of that number.
func judgeFilm(t *testing.T, ivf []byte, sent int) {
	t.Helper()
	raw := ffmpeg(t, ivf, "-vf", fmt.Sprintf("scale=%d:%d", filmWidth, filmHeight), "-fps_mode", "passthrough",
		"-pix_fmt", "gray", "-f", "rawvideo", "pipe:1")
	const size = filmWidth * filmHeight
	decoded, stamped, rises := len(raw)/size, 0, 0
	last, worst := -1, math.Inf(1)
	for i := range decoded {
		img := &image.Gray{Pix: raw[i*size : (i+1)*size], Stride: filmWidth, Rect: image.Rect(0, 0, filmWidth, filmHeight)}
		stamp, err := capturetest.ReadStamp(img)
		if err != nil {
			continue
		}
		stamped++
		n := int(stamp.Counter) - filmFirst
		if n < 0 || n >= filmFrames {
			t.Fatalf("decoded picture %d says counter %d, which the camera never showed", i, stamp.Counter)
		}
		want := filmPicture(n)
		if !stamp.Clock.Equal(filmClock.Add(time.Duration(n) * time.Second / filmRate).Truncate(time.Millisecond)) {
			t.Errorf("counter %d with clock %v", stamp.Counter, stamp.Clock)
		}
		worst = min(worst, psnr(img.Pix, want.Y))
		if last >= 0 && n != last && (n-last+filmFrames)%filmFrames < filmFrames/2 {
			rises++
		}
		last = n
	}
	t.Logf("page to room: %d frames, %d decoded, %d with a stamp, %d rises, worst PSNR %.1f dB", sent, decoded, stamped, rises, worst)
	if decoded < sent*9/10 || stamped < decoded*9/10 || rises < 30 || worst < 20 {
		t.Errorf("the browser's camera does not arrive: %d frames, %d decoded, %d with a stamp, %d rises, worst PSNR %.1f dB",
			sent, decoded, stamped, rises, worst)
	}
}

func psnr(a, b []byte) float64 {
	var sum float64
	for i := range a {
		d := float64(a[i]) - float64(b[i])
		sum += d * d
	}
	return 10 * math.Log10(255*255*float64(len(a))/max(sum, 1))
}

func judgeTape(t *testing.T, ogg []byte) {
	t.Helper()
	raw := ffmpeg(t, ogg, "-ac", "1", "-ar", "48000", "-f", "s16le", "pipe:1")
	pcm := samples(raw)
	const seconds = 3
	if len(pcm) < (seconds+2)*capturetest.SampleRate {
		t.Fatalf("the room decoded %d samples only", len(pcm))
	}
	pcm = pcm[len(pcm)-(seconds+1)*capturetest.SampleRate:][:seconds*capturetest.SampleRate]
	voice := capturetest.Voice(tapeFrom, tapeSeconds*capturetest.SampleRate)
	r, rms := bestMatch(pcm, append(voice, voice[:seconds*capturetest.SampleRate]...))
	t.Logf("page to room: correlation %.3f, RMS %.0f of 32767", r, rms)
	if r < 0.5 || rms < 100 {
		t.Errorf("the browser's microphone does not arrive: correlation %.3f, RMS %.0f", r, rms)
	}
}
