package encode

// #cgo pkg-config: opus
// #include <opus.h>
//
// // opus_encoder_ctl is variadic, which cgo cannot call.
// static int alcove_opus_rate(OpusEncoder *e, opus_int32 bps) { return opus_encoder_ctl(e, OPUS_SET_BITRATE(bps)); }
//
// static OpusEncoder *alcove_opus_open(opus_int32 bps, int complexity, int loss, int *err) {
// 	OpusEncoder *e = opus_encoder_create(48000, 1, OPUS_APPLICATION_VOIP, err);
// 	if (!e)
// 		return NULL;
// 	if ((*err = alcove_opus_rate(e, bps)) ||
// 		(*err = opus_encoder_ctl(e, OPUS_SET_VBR(0))) ||
// 		(*err = opus_encoder_ctl(e, OPUS_SET_DTX(0))) ||
// 		(*err = opus_encoder_ctl(e, OPUS_SET_SIGNAL(OPUS_SIGNAL_VOICE))) ||
// 		(*err = opus_encoder_ctl(e, OPUS_SET_BANDWIDTH(OPUS_BANDWIDTH_SUPERWIDEBAND))) ||
// 		(*err = opus_encoder_ctl(e, OPUS_SET_COMPLEXITY(complexity))) ||
// 		(*err = opus_encoder_ctl(e, OPUS_SET_INBAND_FEC(1))) ||
// 		(*err = opus_encoder_ctl(e, OPUS_SET_PACKET_LOSS_PERC(loss)))) {
// 		opus_encoder_destroy(e);
// 		return NULL;
// 	}
// 	return e;
// }
import "C"

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/pion/mediadevices/pkg/codec"
	"github.com/pion/mediadevices/pkg/io/audio"
	"github.com/pion/mediadevices/pkg/prop"

	"github.com/alcove-room/alcove/mediacap"
)

// Our tuning.
const (
	OpusBitRate    = 32_000 // bits per second
	opusComplexity = 5
	opusLoss       = 10 // percent that in-band FEC is laid out for
)

// OpusVoice builds libopus encoders for speech: 48 kHz, mono, 20 ms, constant bit rate, fixed bandwidth, no
// DTX, in-band FEC. All packets have one size and one TOC byte as long as the rate stays (RFC 6716 section 3.1).
type OpusVoice struct {
	BitRate int // bits per second; 0 takes OpusBitRate
}

// RTPCodec implements codec.AudioEncoderBuilder.
func (o *OpusVoice) RTPCodec() *codec.RTPCodec {
	c := codec.NewRTPOpusCodec(sampleRate)
	c.Latency = frameTime
	return c
}

// BuildAudioEncoder implements codec.AudioEncoderBuilder. What Read returns is valid until the next Read.
func (o *OpusVoice) BuildAudioEncoder(r audio.Reader, _ prop.Media) (codec.ReadCloser, error) {
	rate := o.BitRate
	if rate == 0 {
		rate = OpusBitRate
	}
	if err := checkOpusRate(rate); err != nil {
		return nil, err
	}
	var rc C.int
	enc := C.alcove_opus_open(C.opus_int32(rate), opusComplexity, opusLoss, &rc)
	if enc == nil {
		return nil, fmt.Errorf("open Opus encoder: %s", C.GoString(C.opus_strerror(rc)))
	}
	e := &opusEncoder{sound: r, enc: enc, set: int64(rate)}
	e.rate.Store(int64(rate))
	// libopus gives its very first packet another bandwidth, and with it another TOC; nobody gets to see it.
	e.line.pcm = make([]int16, frameSamples)
	if _, err := e.encode(); err != nil {
		e.Close()
		return nil, err
	}
	e.line.pcm = e.line.pcm[:0]
	return e, nil
}

func checkOpusRate(bitsPerSecond int) error {
	if bitsPerSecond < mediacap.MinAudioRate || bitsPerSecond > mediacap.MaxAudioRate {
		return fmt.Errorf("set Opus rate: %d bit/s", bitsPerSecond)
	}
	return nil
}

// opusEncoder is one Opus stream. Read belongs to one goroutine; the other methods may be called by any.
type opusEncoder struct {
	sound audio.Reader
	rate  atomic.Int64 // bits per second that were asked for

	// Owned by the reading goroutine.
	line   line
	seq    uint32
	last   mediacap.Unit // what Describe returns
	packet [mediacap.MaxAudio]byte

	mu     sync.Mutex     // held while libopus works, never while waiting for sound
	enc    *C.OpusEncoder // nil when closed
	set    int64          // rate that libopus knows
	closed bool
}

// Read implements codec.ReadCloser: it returns the next packet of 20 ms.
func (e *opusEncoder) Read() ([]byte, func(), error) {
	for len(e.line.pcm) < frameSamples {
		chunk, release, err := e.sound.Read()
		if err != nil {
			return nil, func() {}, err
		}
		err = e.line.append(soundTime(chunk), chunk)
		release()
		if err != nil {
			return nil, func() {}, err
		}
	}
	n, err := e.encode()
	if err != nil {
		return nil, func() {}, err
	}
	e.last = mediacap.Unit{Codec: mediacap.Opus, Seq: e.seq, CaptureTime: max(0, e.line.start), Duration: frameTime}
	e.seq++
	e.line.drop()
	return e.packet[:n], func() {}, nil
}

func (e *opusEncoder) encode() (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return 0, io.EOF
	}
	if rate := e.rate.Load(); rate != e.set {
		if rc := C.alcove_opus_rate(e.enc, C.opus_int32(rate)); rc != 0 {
			return 0, fmt.Errorf("set Opus rate: %s", C.GoString(C.opus_strerror(rc)))
		}
		e.set = rate
	}
	n := C.opus_encode(e.enc, (*C.opus_int16)(&e.line.pcm[0]), frameSamples, (*C.uchar)(&e.packet[0]), C.opus_int32(len(e.packet)))
	if n < 0 {
		return 0, fmt.Errorf("encode Opus packet: %s", C.GoString(C.opus_strerror(n)))
	}
	return int(n), nil
}

// Close implements codec.ReadCloser. It waits for no sound.
func (e *opusEncoder) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.closed {
		C.opus_encoder_destroy(e.enc)
		e.enc, e.closed = nil, true
	}
	return nil
}

// Controller implements codec.Controllable.
func (e *opusEncoder) Controller() codec.EncoderController { return e }

// ForceKeyFrame implements codec.KeyFrameController; every packet of Opus stands alone.
func (e *opusEncoder) ForceKeyFrame() error { return errors.New("sound has no key frames") }

// SetBitRate implements codec.BitRateController.
func (e *opusEncoder) SetBitRate(bitsPerSecond int) error {
	if err := checkOpusRate(bitsPerSecond); err != nil {
		return err
	}
	e.rate.Store(int64(bitsPerSecond))
	return nil
}

// Describe implements Controller.
func (e *opusEncoder) Describe() mediacap.Unit { return e.last }

// Library implements Controller.
func (e *opusEncoder) Library() string { return C.GoString(C.opus_get_version_string()) }
