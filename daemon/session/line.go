package session

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"
	"github.com/livekit/protocol/livekit"
	"github.com/livekit/protocol/logger"
	lksdk "github.com/livekit/server-sdk-go/v2"
	"github.com/pion/interceptor"
	"github.com/pion/interceptor/pkg/cc"
	"github.com/pion/interceptor/pkg/gcc"
	"github.com/pion/interceptor/pkg/twcc"
	"github.com/pion/webrtc/v4"
)

const (
	// rejoinFirst and rejoinMost are our own back-off: the SDK's grows to 30 s, and somebody is waiting.
	rejoinFirst = 200 * time.Millisecond
	rejoinMost  = time.Second
	joinTimeout = 5 * time.Second
	dataTopic   = "alcove"
)

// Ticket is what it takes to join the SFU once.
type Ticket struct {
	URL      string
	Token    string
	Identity string
}

// line is the connection to the SFU. It carries sealed frames and never holds a key. One goroutine (run)
// owns the LiveKit room; a lost connection is never repaired by the SDK but replaced by a fresh one with a
// fresh token, because both SDKs' back-off is slower than a person's patience.
type line struct {
	log      *slog.Logger
	identity string
	ticket   func(context.Context) (Ticket, error)
	video    *OutTrack
	audio    *OutTrack
	firstBPS int

	// accept says whether an identity is a member of the current transcript.
	accept func(identity string) bool
	// onTrack receives an accepted track; it must not block.
	onTrack func(in *inTrack)
	onData  func(identity string, payload []byte)
	onRate  func(bps int)
	onState func(up bool)
	// onTrailer tells how the SFU marks frames of its own making on a new connection.
	onTrailer func(trailer []byte)
	metrics   *Metrics

	mu      sync.Mutex
	room    *lksdk.Room // the current one; nil while down; guarded by mu
	kick    chan struct{}
	changed chan struct{} // membership has changed
}

func newLine(l *line) *line {
	l.kick, l.changed = make(chan struct{}, 1), make(chan struct{}, 1)
	return l
}

// look makes the line review its tracks: membership has changed. It does not wait, as the SDK's writes may.
func (l *line) look() {
	select {
	case l.changed <- struct{}{}:
	default:
	}
}

// redial drops the present connection, if any, and joins again.
func (l *line) redial() {
	select {
	case l.kick <- struct{}{}:
	default:
	}
}

// run keeps the line up until ctx ends.
func (l *line) run(ctx context.Context) {
	wait := rejoinFirst
	for ctx.Err() == nil {
		up, err := l.once(ctx)
		l.metrics.lineLost(up)
		if ctx.Err() != nil {
			return
		}
		l.log.Info("line down", "err", err, "was_up", up)
		if up {
			wait = rejoinFirst
		}
		select {
		case <-ctx.Done():
		case <-l.kick:
		case <-time.After(wait):
		}
		wait = min(2*wait, rejoinMost)
	}
}

// once joins, stays until the connection is lost, and leaves. up tells whether it ever stood.
func (l *line) once(ctx context.Context) (up bool, err error) {
	ticketCtx, cancel := context.WithTimeout(ctx, joinTimeout)
	t, err := l.ticket(ticketCtx)
	cancel()
	if err != nil {
		return false, fmt.Errorf("get a token: %w", err)
	}
	if t.Identity != l.identity {
		return false, errors.New("the hub issued a token for another identity than this room's")
	}
	gone := make(chan error, 1)
	room := lksdk.NewRoom(l.callbacks(gone))
	joinCtx, cancel := context.WithTimeout(ctx, joinTimeout)
	err = room.JoinWithContextAndToken(joinCtx, t.URL, t.Token, l.options()...)
	cancel()
	if err != nil {
		go room.Disconnect() // may wait for a dead socket
		return false, fmt.Errorf("join: %w", err)
	}
	defer func() {
		l.setRoom(nil)
		l.video.detach()
		l.audio.detach()
		l.onState(false)
		go room.Disconnect()
	}()
	if room.LocalParticipant.Identity() != l.identity {
		return false, errors.New("the SFU gave this room another identity")
	}
	if err := l.publish(room); err != nil {
		return false, err
	}
	l.setRoom(room)
	l.onTrailer(room.SifTrailer())
	l.onState(true)
	l.review()
	select {
	case <-l.kick: // it was meant for the joining that has just worked
	default:
	}
	for {
		select {
		case <-ctx.Done():
			return true, ctx.Err()
		case <-l.kick:
			return true, errors.New("asked to join again")
		case err := <-gone:
			return true, err
		case <-l.changed:
			l.review()
		}
	}
}

func (l *line) setRoom(r *lksdk.Room) {
	l.mu.Lock()
	l.room = r
	l.mu.Unlock()
}

func (l *line) current() *lksdk.Room {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.room
}

func (l *line) callbacks(gone chan error) *lksdk.RoomCallback {
	lost := func(why string) {
		select {
		case gone <- errors.New(why):
		default:
		}
	}
	cb := &lksdk.RoomCallback{
		OnDisconnectedWithReason: func(r lksdk.DisconnectionReason) { lost(string(r)) },
		OnReconnecting:           func() { lost("connection interrupted") },
	}
	cb.OnTrackPublished = func(pub *lksdk.RemoteTrackPublication, p *lksdk.RemoteParticipant) { l.consider(pub, p) }
	cb.OnTrackSubscribed = l.subscribed
	cb.OnDataPacket = func(data lksdk.DataPacket, from lksdk.DataReceiveParams) {
		user, ok := data.(*lksdk.UserDataPacket)
		if !ok || user.Topic != dataTopic || !l.accept(from.SenderIdentity) {
			l.metrics.refused("data")
			return
		}
		l.onData(from.SenderIdentity, user.Payload)
	}
	return cb
}

func (l *line) options() []lksdk.ConnectOption {
	estimator, _ := cc.NewInterceptor(func() (cc.BandwidthEstimator, error) {
		return gcc.NewSendSideBWE(
			gcc.SendSideBWEInitialBitrate(l.firstBPS),
			gcc.SendSideBWEMaxBitrate(4*l.firstBPS),
			gcc.SendSideBWEPacer(gcc.NewNoOpPacer()))
	})
	// The SDK makes one estimator for each of its two peer connections, the publisher's first.
	var first atomic.Bool
	estimator.OnNewPeerConnection(func(_ string, e cc.BandwidthEstimator) {
		if first.CompareAndSwap(false, true) {
			e.OnTargetBitrateChange(l.onRate)
		}
	})
	header, _ := twcc.NewHeaderExtensionInterceptor()
	return []lksdk.ConnectOption{
		lksdk.WithAutoSubscribe(false),
		lksdk.WithConnectTimeout(joinTimeout),
		lksdk.WithDisableRegionDiscovery(),
		lksdk.WithInterceptors([]interceptor.Factory{estimator, header}),
		lksdk.WithIncludeDefaultInterceptors(true),
		lksdk.WithLogger(logger.GetDiscardLogger()),
	}
}

// publish announces this room's two tracks as encrypted; nothing is written until there are keys.
func (l *line) publish(room *lksdk.Room) error {
	for _, out := range []*OutTrack{l.audio, l.video} {
		track, err := out.attach()
		if err != nil {
			return fmt.Errorf("make %s track: %w", out.kind, err)
		}
		opts := &lksdk.TrackPublicationOptions{
			Name: out.kind.String(), Encryption: livekit.Encryption_GCM, DisableDTX: true,
			Source: livekit.TrackSource_MICROPHONE,
		}
		if out.kind == webrtc.RTPCodecTypeVideo {
			opts.Source, opts.VideoWidth, opts.VideoHeight = livekit.TrackSource_CAMERA, out.width, out.height
		}
		if _, err := room.LocalParticipant.PublishTrack(track, opts); err != nil {
			return fmt.Errorf("publish %s: %w", out.kind, err)
		}
	}
	return nil
}

// review subscribes to the tracks of members and lets go of all others; it runs at every change of membership.
func (l *line) review() {
	room := l.current()
	if room == nil {
		return
	}
	for _, p := range room.GetRemoteParticipants() {
		for _, pub := range p.TrackPublications() {
			if remote, ok := pub.(*lksdk.RemoteTrackPublication); ok {
				l.consider(remote, p)
			}
		}
	}
}

// consider subscribes to a track if its owner is in the transcript and it is announced as encrypted.
func (l *line) consider(pub *lksdk.RemoteTrackPublication, p *lksdk.RemoteParticipant) {
	why := l.unacceptable(pub, p)
	subscribed := pub.TrackRemote() != nil
	switch {
	case why == "" && !subscribed:
		if err := pub.SetSubscribed(true); err != nil {
			l.log.Warn("subscribe", "err", err)
		}
	case why != "":
		l.metrics.refused(why)
		if subscribed {
			if err := pub.SetSubscribed(false); err != nil {
				l.log.Warn("unsubscribe", "err", err)
			}
		}
	}
}

// unacceptable names the reason for which a track is not taken, or is empty.
func (l *line) unacceptable(pub *lksdk.RemoteTrackPublication, p *lksdk.RemoteParticipant) string {
	info := pub.TrackInfo()
	switch {
	case !l.accept(p.Identity()):
		return "not_a_member"
	case info.GetEncryption() != livekit.Encryption_GCM:
		return "not_encrypted"
	case info.GetSource() != livekit.TrackSource_CAMERA && info.GetSource() != livekit.TrackSource_MICROPHONE:
		return "source"
	}
	return ""
}

func (l *line) subscribed(track *webrtc.TrackRemote, pub *lksdk.RemoteTrackPublication, p *lksdk.RemoteParticipant) {
	if why := l.unacceptable(pub, p); why != "" {
		l.metrics.refused(why)
		return
	}
	switch mime := track.Codec().MimeType; mime {
	case mimeVP8, mimeH264, mimeOpus:
		ssrc := track.SSRC()
		l.onTrack(&inTrack{
			identity: p.Identity(), mime: mime, packets: track,
			requestKeyFrame: func() { p.WritePLI(ssrc) },
		})
	default:
		l.metrics.refused("codec")
	}
}

// sendData sends one sealed data message to one member.
func (l *line) sendData(identity string, sealed []byte) error {
	room := l.current()
	if room == nil {
		return errLineDown
	}
	return room.LocalParticipant.PublishDataPacket(lksdk.UserData(sealed),
		lksdk.WithDataPublishTopic(dataTopic), lksdk.WithDataPublishReliable(true),
		lksdk.WithDataPublishDestination([]string{identity}))
}

var errLineDown = errors.New("no connection to the SFU")

// PrepareSDK makes the SDK's signal connection use conf for the hub, at host:port, and the SDK silent: it writes
// addresses and identities. Both can only be set for the whole process, once, before the first join. The SDK dials with
// gorilla's package-wide dialer; nothing else in the daemon uses that package.
//
// An SFU of the clinic's own, at another address, shows a certificate that the machine's authorities vouch for; our own
// certificate is the hub's business alone.
func PrepareSDK(conf *tls.Config, hub string) {
	lksdk.SetLogger(logger.GetDiscardLogger())
	websocket.DefaultDialer = &websocket.Dialer{
		HandshakeTimeout: joinTimeout,
		NetDialTLSContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			d := tls.Dialer{Config: &tls.Config{MinVersion: tls.VersionTLS12}}
			if addr == hub {
				d.Config = conf
			}
			return d.DialContext(ctx, network, addr)
		},
	}
}
