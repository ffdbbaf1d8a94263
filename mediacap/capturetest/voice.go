package capturetest

import (
	"math"
	"time"
)

// SampleRate of the test sound in Hz.
const SampleRate = 48000

// Seed of the test sound.
const Seed = 1

const (
	syllable      = SampleRate / 5 // samples
	phrase        = 15             // syllables, the last pauses of which are silent
	phrasePause   = 4
	burst         = SampleRate / 40 // samples of noise in front of a vowel
	highestVoice  = 4000            // Hz
	voiceLoudness = 0.3             // of full scale
)

// vowels are the first three formants in Hz of a e i o u.
var vowels = [5][3]float64{{730, 1090, 2440}, {530, 1840, 2480}, {270, 2290, 3010}, {570, 840, 2410}, {300, 870, 2240}}

// Voice returns n samples of the test sound from sampleOffset on. The sound is a pure function of the
// offset: syllables of five vowels at changing pitch, with hissed onsets, and pauses as in speech. The test
// microphone plays offset 48·t at wall clock t in milliseconds (see OffsetAt), so a receiver knows which
// part of it to expect.
func Voice(sampleOffset int64, n int) []int16 {
	out := make([]int16, n)
	(&speaker{seed: Seed, index: -1}).fill(out, sampleOffset)
	return out
}

// OffsetAt returns the sample that the test microphone hears at t.
func OffsetAt(t time.Time) int64 {
	return t.Unix()*SampleRate + int64(t.Nanosecond())*SampleRate/int64(time.Second)
}

// speaker computes the sound; it keeps only what can be computed again from the offset.
type speaker struct {
	seed      uint64
	index     int64 // of the syllable below, -1 before the first
	silent    bool
	pitch     float64 // radians per sample
	harmonics []float64
}

func (s *speaker) fill(dst []int16, offset int64) {
	for i := range dst {
		at := offset + int64(i)
		if k := at / syllable; k != s.index {
			s.enter(k)
		}
		dst[i] = int16(math.Round(s.sample(at) * voiceLoudness * math.MaxInt16))
	}
}

// enter chooses pitch and vowel of syllable k.
func (s *speaker) enter(k int64) {
	s.index = k
	h := mix(s.seed ^ mix(uint64(k)))
	s.silent = k%phrase >= phrase-phrasePause || h%8 == 0
	if s.silent {
		return
	}
	f0 := 95 + float64(h>>8%1024)/1024*110
	vowel := vowels[h>>20%5]
	s.pitch = 2 * math.Pi * f0 / SampleRate
	s.harmonics = s.harmonics[:0]
	sum := 0.0
	for f := f0; f < highestVoice; f += f0 {
		a := 0.0
		for i, formant := range vowel {
			d := (f - formant) / (80 + 40*float64(i))
			a += 1 / (1 + d*d) / float64(i+1)
		}
		s.harmonics = append(s.harmonics, a)
		sum += a
	}
	for i := range s.harmonics {
		s.harmonics[i] /= sum / 2
	}
}

// sample returns the sound at one sample of the current syllable, between -1 and 1.
func (s *speaker) sample(at int64) float64 {
	if s.silent {
		return 0
	}
	t := float64(at - s.index*syllable)
	envelope := math.Sin(math.Pi * t / syllable)
	if t < burst {
		hiss := float64(int64(mix(s.seed+uint64(at)))) / math.MaxInt64 * 0.25 // in [-0.25, 0.25]
		return hiss * math.Sin(math.Pi*t/burst)
	}
	// sin(nx) = 2cos(x)·sin((n-1)x) - sin((n-2)x)
	sin, cos := math.Sincos(s.pitch * t)
	twice, before, sum := 2*cos, 0.0, 0.0
	for _, a := range s.harmonics {
		sum += a * sin
		sin, before = twice*sin-before, sin
	}
	return max(-1, min(1, sum*envelope))
}

// mix is the finalizer of SplitMix64: it spreads neighbouring numbers over all bits.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
