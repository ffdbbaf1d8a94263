package e2e

import (
	"bytes"
	"fmt"
	"image"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/livekit/protocol/auth"
	"github.com/livekit/protocol/livekit"
	"github.com/livekit/protocol/logger"
	lksdk "github.com/livekit/server-sdk-go/v2"
	"github.com/pion/rtp/codecs"
	"github.com/pion/webrtc/v4"
	pionmedia "github.com/pion/webrtc/v4/pkg/media"

	"github.com/alcove-room/alcove/daemon/e2e/browser"
	"github.com/alcove-room/alcove/mediacap/capturetest"
)

// tellTale notes which streams are handed to a page's worker and under which ids remote tracks arrive. It runs before
// the page's scripts and below whatever they put in front of Worker.
const tellTale = `window.tellTale = { worker: [], remote: [] };
{
  const post = Worker.prototype.postMessage;
  Worker.prototype.postMessage = function (m, ...rest) {
    if (['encode', 'decode', 'updateCodec', 'removeTransform'].includes(m?.kind)) {
      const { trackId, previousTrackId, participantIdentity } = m.data;
      tellTale.worker.push({ kind: m.kind, id: trackId, previous: previousTrackId, of: participantIdentity });
    }
    return post.call(this, m, ...rest);
  };
  const set = RTCPeerConnection.prototype.setRemoteDescription;
  const heard = new WeakSet();
  RTCPeerConnection.prototype.setRemoteDescription = function (...a) {
    if (!heard.has(this)) this.addEventListener('track', (e) => tellTale.remote.push(e.track.id));
    heard.add(this);
    return set.apply(this, a);
  };
}`

type told struct {
	Worker []struct{ Kind, ID, Previous, Of string }
	Remote []string
}

func tale(t *testing.T, p *browser.Page) (s told) {
	t.Helper()
	ok(t, p.Eval("window.tellTale", &s))
	return s
}

// namesake is an SFU that gives one remote track the id of the victim's own camera track. livekit-client finds the
// publication by the second half of the stream's id and the frame cryptor by the track's id: both come from `a=msid`
// of the SFU's offer (RFC 8830, section 2).
type namesake struct {
	victim party

	mu     sync.Mutex
	first  func(party, *livekit.SignalResponse) // another lie, told before
	camera string                               // the victim's own track, as it names it to the server
	sid    string                               // the remote track that is renamed; empty: none
	lied   bool
}

func (n *namesake) lie(who party, res *livekit.SignalResponse) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.first != nil {
		n.first(who, res)
	}
	if who != n.victim {
		return
	}
	switch v := res.Message.(type) {
	case *livekit.SignalResponse_TrackPublished:
		if v.TrackPublished.Track.Type == livekit.TrackType_VIDEO {
			n.camera = v.TrackPublished.Cid
		}
	case *livekit.SignalResponse_Offer:
		v.Offer.Sdp = n.rename(v.Offer.Sdp)
	case *livekit.SignalResponse_Answer:
		v.Answer.Sdp = n.rename(v.Answer.Sdp)
	}
}

// rename needs mu.
func (n *namesake) rename(sdp string) string {
	if n.sid == "" || n.camera == "" {
		return sdp
	}
	line := regexp.MustCompile(`msid:(PA_\w+)(\|\S*)? ` + regexp.QuoteMeta(n.sid))
	changed := line.ReplaceAllString(sdp, "msid:${1}|"+n.sid+" "+n.camera)
	n.lied = n.lied || changed != sdp
	return changed
}

// after makes another lie come first.
func (n *namesake) after(first func(party, *livekit.SignalResponse)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.first = first
}

// about says whose id the track gets from now on and returns it.
func (n *namesake) about(sid string) (camera string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.sid = sid
	return n.camera
}

func (n *namesake) hasLied() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.lied
}

// twoConnections stands before an SFU and refuses browsers the signalling of one peer connection for both directions:
// there, a browser names remote tracks itself. livekit-client then falls back to a connection for each direction, in
// which the SFU names them.
func twoConnections(t *testing.T, s *sfu) {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Origin") != "" && strings.HasPrefix(r.URL.Path, "/rtc/v1") {
			w.Header().Set("Access-Control-Allow-Origin", "*")
			w.WriteHeader(http.StatusNotFound)
			return
		}
		s.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	s.URL = srv.URL
}

// tap is a participant of whoever runs the SFU: it looks at every frame of one victim, has no key, and publishes a track.
type tap struct {
	room *lksdk.Room
	rec  *recorder // of the pictures that carried no trailer

	mu     sync.Mutex
	tracks map[webrtc.RTPCodecType]*tally
}

// tally counts the frames of one kind.
type tally struct {
	sealed, clear int
	injected      int // the SFU's own
}

func newTap(t *testing.T, s *sfu, room, identity string) *tap {
	t.Helper()
	w := &tap{rec: newRecorder(t), tracks: map[webrtc.RTPCodecType]*tally{webrtc.RTPCodecTypeVideo: {}, webrtc.RTPCodecTypeAudio: {}}}
	cb := &lksdk.RoomCallback{}
	cb.OnTrackSubscribed = func(track *webrtc.TrackRemote, _ *lksdk.RemoteTrackPublication, p *lksdk.RemoteParticipant) {
		if track.Kind() == webrtc.RTPCodecTypeAudio {
			w.readAudio(track)
			return
		}
		done := make(chan struct{})
		defer close(done)
		go func() {
			tick := time.NewTicker(time.Second)
			defer tick.Stop()
			for {
				p.WritePLI(track.SSRC()) // frames after the lie shall be decodable by themselves
				select {
				case <-tick.C:
				case <-done:
					return
				}
			}
		}()
		w.readVideo(track)
	}
	lksdk.SetLogger(logger.GetDiscardLogger())
	w.room = lksdk.NewRoom(cb)
	ok(t, w.room.JoinWithToken(s.LiveKit.URL, s.token(t, room, identity), lksdk.WithLogger(logger.GetDiscardLogger())))
	t.Cleanup(w.room.Disconnect)
	return w
}

// readAudio takes every packet: each is a frame (RFC 7587, section 4.2).
func (w *tap) readAudio(track *webrtc.TrackRemote) {
	for {
		p, _, err := track.ReadRTP()
		if err != nil {
			return
		}
		if len(p.Payload) > 0 {
			w.judge(webrtc.RTPCodecTypeAudio, p.Payload, p.Timestamp)
		}
	}
}

// readVideo takes every frame that arrived whole (RFC 7741, section 4.2).
func (w *tap) readVideo(track *webrtc.TrackRemote) {
	var frame []byte
	var last uint16
	for {
		p, _, err := track.ReadRTP()
		if err != nil {
			return
		}
		whole := p.SequenceNumber == last+1
		last = p.SequenceNumber
		var head codecs.VP8Packet
		payload, err := head.Unmarshal(p.Payload)
		switch {
		case err != nil:
			frame = nil
			continue
		case head.S == 1 && head.PID == 0:
			frame = bytes.Clone(payload)
		case !whole || frame == nil:
			frame = nil
			continue
		default:
			frame = append(frame, payload...)
		}
		if p.Marker {
			w.judge(webrtc.RTPCodecTypeVideo, frame, p.Timestamp)
			frame = nil
		}
	}
}

// blankFrame is what the SFU itself sends, before a trailer that it has told everybody, when a sender pauses: an empty
// picture of 8×8 or silence (livekit-server, pkg/sfu/downtrack.go, VP8KeyFrame8x8 and OpusSilenceFrame).
func blankFrame(kind webrtc.RTPCodecType) []byte {
	if kind == webrtc.RTPCodecTypeAudio {
		return append([]byte{0xf8, 0xff, 0xfe}, make([]byte, 77)...)
	}
	return []byte{
		0x10, 0x02, 0x00, 0x9d, 0x01, 0x2a, 0x08, 0x00, 0x08, 0x00, 0x00, 0x47, 0x08, 0x85, 0x85, 0x88,
		0x85, 0x84, 0x88, 0x02, 0x02, 0x00, 0x0c, 0x0d, 0x60, 0x00, 0xfe, 0xff, 0xab, 0x50, 0x80,
	}
}

// judge looks for the trailer of livekit-client's frames: IV, its length, index of the key.
func (w *tap) judge(kind webrtc.RTPCodecType, frame []byte, timestamp uint32) {
	const iv, tag, indices = 12, 16, 16
	n := len(frame)
	w.mu.Lock()
	defer w.mu.Unlock()
	switch to := w.tracks[kind]; {
	case n > iv+tag+2 && frame[n-2] == iv && frame[n-1] < indices:
		to.sealed++
	case bytes.Equal(frame, append(blankFrame(kind), w.room.SifTrailer()...)):
		to.injected++
	default:
		to.clear++
		if kind == webrtc.RTPCodecTypeVideo {
			w.rec.Frame("", "video/VP8", frame, timestamp)
		}
	}
}

func (w *tap) counts() (video, audio tally) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return *w.tracks[webrtc.RTPCodecTypeVideo], *w.tracks[webrtc.RTPCodecTypeAudio]
}

// waitFor returns when the tap has seen so many more pictures of either sort, or false.
func (w *tap) waitFor(limit time.Duration, clear, sealed int) bool {
	before, _ := w.counts()
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if now, _ := w.counts(); now.clear-before.clear >= clear && now.sealed-before.sealed >= sealed {
			return true
		}
	}
	return false
}

// pictures decodes the frames that carried no trailer and counts those that show the victim's camera.
func (w *tap) pictures(t *testing.T) (n int) {
	t.Helper()
	ivf, _, err := w.rec.files()
	ok(t, err)
	cmd := exec.Command("ffmpeg", "-hide_banner", "-loglevel", "quiet", "-i", "pipe:0", "-vf", fmt.Sprintf("scale=%d:%d", filmWidth, filmHeight),
		"-fps_mode", "passthrough", "-pix_fmt", "gray", "-f", "rawvideo", "pipe:1")
	cmd.Stdin = bytes.NewReader(ivf)
	raw, _ := cmd.Output() // what cannot be decoded shows nothing
	const size = filmWidth * filmHeight
	for ; len(raw) >= size; raw = raw[size:] {
		img := &image.Gray{Pix: raw[:size], Stride: filmWidth, Rect: image.Rect(0, 0, filmWidth, filmHeight)}
		stamp, err := capturetest.ReadStamp(img)
		if err == nil && stamp.Counter >= filmFirst && stamp.Counter < filmFirst+filmFrames {
			n++
		}
	}
	return n
}

// publish sends a track of a few bytes per picture and calls named with its sid before anybody else hears of it.
func (w *tap) publish(t *testing.T, e livekit.Encryption_Type, named func(sid string)) (sid string) {
	t.Helper()
	track := must[*lksdk.LocalTrack](t)(lksdk.NewLocalTrack(webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeVP8, ClockRate: 90000}))
	pub := must[*lksdk.LocalTrackPublication](t)(w.room.LocalParticipant.PublishTrack(track, &lksdk.TrackPublicationOptions{
		Name: "namesake", Source: livekit.TrackSource_CAMERA, VideoWidth: filmWidth, VideoHeight: filmHeight, Encryption: e,
	}))
	named(pub.SID())
	go func() {
		// The head of a key frame (RFC 6386, section 9.1) and nothing in it.
		frame := append([]byte{0x10, 0x02, 0x00, 0x9d, 0x01, 0x2a, 0x80, 0x02, 0x68, 0x01}, make([]byte, 100)...)
		for range time.Tick(time.Second / filmRate) {
			if track.WriteSample(pionmedia.Sample{Data: frame, Duration: time.Second / filmRate}, nil) != nil || t.Context().Err() != nil {
				return
			}
		}
	}()
	return pub.SID()
}

// TestTrackID is an SFU that gives a remote track the id of a page's own camera track. The worker of livekit-client then
// takes the camera's encoder for the remote one's decoder: with an identity that sends in the clear, or with none.
func TestTrackID(t *testing.T) {
	s := newSFU(t)
	twoConnections(t, s)
	g := chromium(t, browser.Options{Video: film(t), Audio: tape(t)})
	page := strangerPage(t)
	// That the lie works where nobody guards the worker.
	t.Run("stock worker, track announced as clear", func(t *testing.T) { stockVictim(t, s, g, page, livekit.Encryption_NONE) })
	t.Run("stock worker, track taken away again", func(t *testing.T) { stockVictim(t, s, g, page, livekit.Encryption_GCM) })
	t.Run("call page", func(t *testing.T) { guardedVictim(t, s, g) })
}

// stockVictim is an unmodified livekit-client with an unmodified worker. The ghost's track is announced with e; one that
// is announced as encrypted is unpublished as soon as it has taken over the camera's encoder.
func stockVictim(t *testing.T, s *sfu, g *browser.Browser, page string, e livekit.Encryption_Type) {
	room := "stock-" + e.String()
	ctx, api := s.rooms(t, &auth.VideoGrant{RoomCreate: true})
	must[*livekit.Room](t)(api.CreateRoom(ctx, &livekit.CreateRoomRequest{Name: room}))
	defer func() {
		must[*livekit.DeleteRoomResponse](t)(api.DeleteRoom(ctx, &livekit.DeleteRoomRequest{Room: room}))
	}()
	n := &namesake{victim: other}
	s.lies(n.lie)
	key := make([]int, 32)
	for i := range key {
		key[i] = 11 * i % 256
	}
	p := must[*browser.Page](t)(g.Open(page, probe, tellTale))
	defer p.Close()
	joinStranger(t, p, strangerOptions{URL: s.URL, Token: s.token(t, room, "victim"), Key: key, Publish: true})
	w := newTap(t, s, room, ghost)
	if !w.waitFor(10*time.Second, 0, 30) {
		t.Fatalf("the tap receives no sealed pictures; the page says:\n%s", p.Said())
	}
	if before, _ := w.counts(); before.clear != 0 {
		t.Fatalf("%d pictures are clear before anybody lies", before.clear)
	}
	var camera string
	sid := w.publish(t, e, func(sid string) { camera = n.about(sid) })
	ok(t, p.Await(10*time.Second, "tellTale.worker.some(m => m.id === '"+camera+"' && m.kind === 'decode')"))
	if e == livekit.Encryption_GCM {
		ok(t, w.room.LocalParticipant.UnpublishTrack(sid))
		ok(t, p.Await(10*time.Second, "tellTale.worker.some(m => m.id === '"+camera+"' && m.kind === 'removeTransform')"))
	}
	w.waitFor(6*time.Second, 60, 0)
	video, _ := w.counts()
	shown := w.pictures(t)
	t.Logf("%d pictures sealed, then %d clear, of which %d show the camera", video.sealed, video.clear, shown)
	if !n.hasLied() || video.clear < 30 || shown < 10 {
		t.Errorf("the lie does nothing to a stock worker, so the call page is tested against nothing: %+v", tale(t, p))
	}
}

// guardedVictim is the call page. The ghost's track is shown to it as one of the room's, announced as encrypted.
func guardedVictim(t *testing.T, s *sfu, g *browser.Browser) {
	s.keeps.Store(true) // whoever can lie can also leave the hub's removals undone
	st := start(t, s.options(t))
	n := &namesake{victim: aPage}
	s.lies(n.lie)
	p := call(t, st, g, tellTale)
	room := s.room(t)
	w := newTap(t, s, room, ghost)
	m := &mask{encryption: livekit.Encryption_GCM, room: roomIdentity(t, st, s, room, ghost)}
	m.roomP = s.participant(t, room, m.room)
	n.after(m.lie)
	ok(t, p.Eval("probe.clear()", nil)) // of the page's own camera, shown before the call
	picture(t, p, 15*time.Second)
	if !w.waitFor(15*time.Second, 0, 30) {
		t.Fatal("the tap receives nothing of the page")
	}

	var camera string
	sid := w.publish(t, livekit.Encryption_GCM, func(sid string) { camera = n.about(sid) })
	ok(t, p.Await(10*time.Second, "tellTale.remote.includes('"+camera+"')"))
	// Under the room's identity the camera would be sealed with the room's key; taken away, it would be clear.
	ok(t, w.room.LocalParticipant.UnpublishTrack(sid))
	time.Sleep(2 * time.Second)
	video, audio := w.counts()
	saw := tale(t, p)
	t.Logf("pictures %+v, sound %+v", video, audio)
	for _, m := range saw.Worker {
		if (m.ID == camera || m.Previous == camera) && m.Kind != "encode" {
			t.Errorf("the worker was told to %s the camera's id for %s", m.Kind, m.Of)
		}
	}
	if video.clear > 0 || audio.clear > 0 || audio.sealed == 0 {
		t.Errorf("clear frames left the page: pictures %+v, of which %d show the camera; sound %+v", video, w.pictures(t), audio)
	}
	stopped(t, p)
	screenshot(t, p, "lie-track-id")
}
