package encode

import (
	"fmt"
	"math"
	"time"

	"github.com/pion/mediadevices/pkg/io/audio"
	"github.com/pion/mediadevices/pkg/wave"

	"github.com/alcove-room/alcove/mediacap"
	"github.com/alcove-room/alcove/mediacap/frame"
)

const (
	sampleRate   = 48000
	frameSamples = 960 // 20 ms
	frameTime    = 20 * time.Millisecond

	// maxSlip is how far a chunk's time may lie from the sample count before samples count as lost. Within
	// it the difference is the jitter of reading and the drift of the clock, and is followed slowly.
	maxSlip = 60 * time.Millisecond
	// maxFill is the longest gap that is filled with silence.
	maxFill = time.Second
	// slipPart of a lateness is followed per chunk.
	slipPart = 32
)

// soundTime returns when the first sample of a chunk was captured.
func soundTime(chunk wave.Audio) mediacap.Time {
	if t, ok := chunk.(frame.Timed); ok {
		return t.CaptureTime()
	}
	info := chunk.ChunkInfo()
	return mediacap.Now().Add(-samplesTime(info.Len))
}

func samplesTime(n int) time.Duration { return time.Duration(n) * time.Second / sampleRate }

// appendMono appends chunk's samples to dst, the channels of stereo mixed.
func appendMono(dst []int16, chunk wave.Audio) ([]int16, error) {
	info := chunk.ChunkInfo()
	if info.SamplingRate != sampleRate || info.Channels < 1 || info.Channels > 8 {
		return dst, fmt.Errorf("sound of %d Hz, %d channels, only %d Hz is supported", info.SamplingRate, info.Channels, sampleRate)
	}
	if s, ok := chunk.(*frame.Sound); ok {
		chunk = &s.Int16Interleaved
	}
	switch c := chunk.(type) {
	case *wave.Int16Interleaved:
		for i := range info.Len {
			sum := 0
			for _, v := range c.Data[i*info.Channels : (i+1)*info.Channels] {
				sum += int(v)
			}
			dst = append(dst, int16(sum/info.Channels))
		}
	case *wave.Float32Interleaved:
		for i := range info.Len {
			var sum float32
			for _, v := range c.Data[i*info.Channels : (i+1)*info.Channels] {
				sum += v
			}
			dst = append(dst, clip(sum/float32(info.Channels)))
		}
	default:
		for i := range info.Len {
			sum := int64(0)
			for ch := range info.Channels {
				sum += chunk.At(i, ch).Int() >> 16
			}
			dst = append(dst, int16(sum/int64(info.Channels)))
		}
	}
	return dst, nil
}

func clip(v float32) int16 {
	return int16(max(math.MinInt16, min(math.MaxInt16, math.Round(float64(v)*32767))))
}

// line puts chunks of any length and slightly uncertain time on one line of samples: the sample count
// tells the time, the chunks' times correct it, and what was lost is silence.
type line struct {
	pcm     []int16
	start   mediacap.Time // of pcm[0]
	started bool
}

// append adds a chunk's samples that were captured at t.
func (l *line) append(t mediacap.Time, chunk wave.Audio) (err error) {
	slip := t.Sub(l.start.Add(samplesTime(len(l.pcm))))
	switch {
	case !l.started || slip > maxFill:
		l.pcm, l.start, l.started = l.pcm[:0], t, true
	case slip > maxSlip:
		for range int(slip * sampleRate / time.Second) {
			l.pcm = append(l.pcm, 0)
		}
	case slip < 0:
		// A chunk may be read late, never before it was captured: the earliest chunks tell the truth. A
		// quarter of a frame keeps time going forward.
		l.start = l.start.Add(max(-frameTime/4, slip/4))
	default:
		l.start = l.start.Add(min(frameTime/40, slip/slipPart))
	}
	l.pcm, err = appendMono(l.pcm, chunk)
	return err
}

// drop removes the first frame.
func (l *line) drop() {
	l.pcm = l.pcm[:copy(l.pcm, l.pcm[frameSamples:])]
	l.start = l.start.Add(frameTime)
}

// Meter returns a mediadevices transform that measures what passes and calls report every 100 ms, on the
// goroutine that reads.
func Meter(report func(mediacap.Level)) audio.TransformFunc {
	return func(r audio.Reader) audio.Reader {
		m := meter{report: report}
		return audio.ReaderFunc(func() (wave.Audio, func(), error) {
			chunk, release, err := r.Read()
			if err == nil {
				m.add(chunk)
			}
			return chunk, release, err
		})
	}
}

type meter struct {
	report func(mediacap.Level)
	pcm    []int16
	sum    float64
	peak   int
	n      int
}

func (m *meter) add(chunk wave.Audio) {
	pcm, err := appendMono(m.pcm[:0], chunk)
	if err != nil {
		return // the encoder reports it
	}
	m.pcm = pcm
	for _, v := range pcm {
		a := int(v)
		m.sum += float64(a * a)
		m.peak = max(m.peak, a, -a)
	}
	if m.n += len(pcm); m.n < sampleRate/10 {
		return
	}
	m.report(mediacap.Level{CaptureTime: max(0, soundTime(chunk)), RMS: dbfs(math.Sqrt(m.sum / float64(m.n))), Peak: dbfs(float64(m.peak))})
	m.sum, m.peak, m.n = 0, 0, 0
}

func dbfs(amplitude float64) mediacap.DBFS {
	if amplitude <= 0 {
		return mediacap.MinLevel
	}
	return mediacap.DBFS(max(float64(mediacap.MinLevel), min(0, 20*math.Log10(amplitude/32768))))
}
