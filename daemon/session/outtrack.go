package session

import (
	"fmt"
	"math/rand/v2"
	"sync"

	lksdk "github.com/livekit/server-sdk-go/v2"
	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/rtp/codecs"
	"github.com/pion/webrtc/v4"
)

// rtpMTU is the largest RTP payload: 1,200 bytes pass every path that carries WebRTC.
const rtpMTU = 1200

// OutTrack is one of the room's two tracks. It outlives connections: while the line is down, writes are
// dropped. RTP time is capture time, so that receivers can play picture and sound together.
type OutTrack struct {
	kind          webrtc.RTPCodecType
	mime          string
	clock         uint32
	width, height int
	keyFrame      func() // called when a receiver asks for a key frame; must not block
	metrics       *Metrics

	mu        sync.Mutex // guards all below
	track     *lksdk.LocalTrack
	payloader rtp.Payloader
	packet    rtp.Packet
	seq       uint16
	offset    uint32
}

func newOutTrack(mime string, width, height int, keyFrame func(), m *Metrics) (*OutTrack, error) {
	t := &OutTrack{mime: mime, width: width, height: height, keyFrame: keyFrame, metrics: m,
		seq: uint16(rand.Uint32()), offset: rand.Uint32()}
	switch mime {
	case mimeVP8:
		t.kind, t.clock, t.payloader = webrtc.RTPCodecTypeVideo, 90000, &codecs.VP8Payloader{}
	case mimeH264:
		t.kind, t.clock, t.payloader = webrtc.RTPCodecTypeVideo, 90000, &codecs.H264Payloader{}
	case mimeOpus:
		t.kind, t.clock, t.payloader = webrtc.RTPCodecTypeAudio, 48000, &codecs.OpusPayloader{}
	default:
		return nil, fmt.Errorf("no RTP payload format for %s", mime)
	}
	return t, nil
}

// attach makes the track object of a new connection.
func (t *OutTrack) attach() (*lksdk.LocalTrack, error) {
	track, err := lksdk.NewLocalTrack(
		webrtc.RTPCodecCapability{MimeType: t.mime, ClockRate: t.clock, Channels: t.channels()},
		lksdk.WithRTCPHandler(t.onRTCP))
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	t.track = track
	t.mu.Unlock()
	return track, nil
}

func (t *OutTrack) channels() uint16 {
	if t.mime == mimeOpus {
		return 2 // RFC 7587 section 7: always announced as two, whatever is sent
	}
	return 0
}

func (t *OutTrack) detach() {
	t.mu.Lock()
	t.track = nil
	t.mu.Unlock()
}

// onRTCP runs on the track's RTCP goroutine.
func (t *OutTrack) onRTCP(p rtcp.Packet) {
	switch p.(type) {
	case *rtcp.PictureLossIndication, *rtcp.FullIntraRequest:
		t.metrics.keyFrameAsked()
		t.keyFrame()
	}
}

// Write sends one sealed frame whose capture time on the track's RTP clock is rtpTime. It reports whether it
// went out; a frame without a connection is dropped, never kept.
func (t *OutTrack) Write(sealed []byte, rtpTime uint32) (bool, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.track == nil || !t.track.IsBound() {
		return false, nil
	}
	parts := t.payloader.Payload(rtpMTU, sealed)
	for i, part := range parts {
		t.packet.Header = rtp.Header{
			Version: 2, SequenceNumber: t.seq, Timestamp: t.offset + rtpTime,
			Marker: t.kind == webrtc.RTPCodecTypeVideo && i == len(parts)-1,
		}
		t.packet.Payload = part
		t.seq++
		if err := t.track.WriteRTP(&t.packet, nil); err != nil {
			return false, fmt.Errorf("write RTP: %w", err)
		}
	}
	return true, nil
}
