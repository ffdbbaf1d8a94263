package daemon

import (
	"context"
	"encoding/hex"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/alcove-room/alcove/daemon/audit"
	"github.com/alcove-room/alcove/daemon/e2ee/agreement"
	"github.com/alcove-room/alcove/daemon/keystore"
	"github.com/alcove-room/alcove/daemon/session"
	"github.com/alcove-room/alcove/provisioning"
	"github.com/alcove-room/alcove/provisioning/document"
)

// A session is opened this long before its start and may begin until this long after its end.
const (
	openBefore = 15 * time.Minute
	openAfter  = 30 * time.Minute
)

// room holds what this room is doing: it opens the session that is due, hands the hub's messages to it, and
// follows what is pressed.
type room struct {
	ctx      context.Context
	log      *slog.Logger
	store    *provisioning.Store
	keys     *keystore.Keystore
	ledger   ledger
	pipeline *pipeline
	metrics  *session.Metrics
	sink     session.Sink
	clock    session.Clock
	relay    *provisioning.Relay

	mu       sync.Mutex // guards all below
	hubUp    bool
	sessions []provisioning.SessionEntry
	open     *session.Session
	openSID  string
	over     map[string]bool // sessions that have ended here
	last     session.Outcome // of the session before
}

// ledger writes the audit log in the room's name.
type ledger struct {
	log *audit.Log
	out *slog.Logger
}

func (l ledger) entry(a audit.Action, object string) audit.Entry {
	return audit.Entry{Actor: "device", Role: "device", Action: a, Object: object, Outcome: audit.OK}
}

// Permit writes the entry of an action that opens something; on an error the action must not happen.
func (l ledger) Permit(a audit.Action, object string) error { return l.log.Permit(l.entry(a, object)) }

// Record writes the entry of an action that closes something, which happens in any case.
func (l ledger) Record(a audit.Action, object string) {
	if err := l.log.Record(l.entry(a, object)); err != nil {
		l.out.Error("audit", "action", a, "err", err)
	}
}

// due opens the session whose time it is, if none is open.
func (r *room) due(now time.Time) {
	docs := r.store.Current(now)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.open != nil || docs.Device == nil || docs.Config == nil {
		return
	}
	for _, e := range r.sessions {
		if r.over[e.SID] || now.Before(e.Starts.Add(-openBefore)) || now.After(e.Ends.Add(openAfter)) {
			continue
		}
		if err := r.beginLocked(e, docs); err != nil {
			r.log.Error("open session", "err", err)
			r.over[e.SID] = true
		}
		return
	}
}

func (r *room) beginLocked(e provisioning.SessionEntry, docs provisioning.Documents) error {
	sid, err := parseSID(e.SID)
	if err != nil {
		return err
	}
	prove, err := agreement.DeviceProver(r.keys.Sign())
	if err != nil {
		return err
	}
	video := docs.Config.Video
	conf := session.Config{
		SID: sid, Clinic: docs.Trust.Clinic(), Label: docs.Device.Label,
		Prove: prove, Verify: agreement.Proofs{}.Verify, MinLevel: minLevels(docs.Config.Policy),
		VideoMime: videoMime(video.Codecs), Width: video.Width, Height: video.Height,
		VideoBPS: video.MaxBitrate, AudioBPS: docs.Config.Audio.Bitrate,
		Relay: relay{r.relay}, Ledger: r.ledger, Sink: r.sink, Log: r.log, Metrics: r.metrics, Clock: r.clock,
		Capture: r.pipeline.want, KeyFrame: r.pipeline.keyFrame, Rate: r.pipeline.setRate,
	}
	s, err := session.New(conf)
	if err != nil {
		return err
	}
	r.open, r.openSID = s, e.SID
	r.pipeline.open(s, captureSettings{width: video.Width, height: video.Height, fps: video.FPS,
		videoBPS: video.MaxBitrate, audioBPS: conf.AudioBPS})
	go r.follow(s, e.SID)
	if r.hubUp {
		s.Connected()
	}
	return nil
}

// follow waits for a session's end. One that failed may be opened again, with new keys and nobody admitted.
func (r *room) follow(s *session.Session, sid string) {
	outcome := s.Run(r.ctx)
	r.pipeline.out.CompareAndSwap(s, nil)
	r.log.Info("session over", "failed", outcome.Failed, "reason", outcome.Reason)
	r.mu.Lock()
	r.open, r.openSID, r.last = nil, "", outcome
	if !outcome.Failed || outcome.Reason == agreement.ReasonGuesses.String() {
		r.over[sid] = true
	}
	r.mu.Unlock()
	if r.ctx.Err() == nil {
		time.AfterFunc(time.Second, func() { r.due(time.Now()) })
	}
}

// minLevels is the clinic's least confirmation per role.
func minLevels(p document.Policy) map[agreement.Role]uint8 {
	out := map[agreement.Role]uint8{agreement.RoleDevice: agreement.LevelClinic}
	for _, r := range []agreement.Role{agreement.RoleTherapist, agreement.RolePatient, agreement.RoleGuest} {
		out[r] = uint8(p.Assurance(r.String()))
	}
	return out
}

// videoMime is the first codec of the list that this daemon can send in software.
func videoMime(codecs []string) string {
	if len(codecs) > 0 && codecs[0] == "h264" {
		return "video/H264"
	}
	return "video/VP8"
}

// discard takes decrypted frames while no screen is connected.
type discard struct{}

func (discard) Frame(string, string, []byte, uint32) {}

// What the hub says. Calls come from the relay's goroutine.

// Connected is called when the relay stands.
func (r *room) Connected() {
	r.mu.Lock()
	r.hubUp = true
	s := r.open
	r.mu.Unlock()
	if s != nil {
		s.Connected()
	}
}

// Disconnected is called when the relay is lost, and for each attempt that fails.
func (r *room) Disconnected(err error) {
	r.mu.Lock()
	was := r.hubUp
	r.hubUp = false
	s := r.open
	r.mu.Unlock()
	if was {
		r.log.Warn("hub lost", "err", err)
	}
	if s != nil && was {
		s.Disconnected()
	}
}

// Message is one message of the key agreement.
func (r *room) Message(raw []byte) {
	if s := r.current(); s != nil {
		s.Message(raw)
	}
}

func (r *room) current() *session.Session {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.open
}

// Control is one message of the hub's own.
func (r *room) Control(c provisioning.Control) {
	if c.T == "sessions" {
		r.mu.Lock()
		r.sessions = c.Sessions
		r.mu.Unlock()
		r.due(time.Now())
		return
	}
	r.mu.Lock()
	s, sid := r.open, r.openSID
	r.mu.Unlock()
	if s == nil {
		return
	}
	ticket := session.Ticket{URL: c.URL, Token: c.Token, Identity: c.Identity}
	switch c.T {
	case "opened":
		s.Opened(ticket)
	case "token":
		s.Ticket(ticket)
	case "resync":
		s.Resync()
	case "cancelled":
		if c.SID == sid { // the desk cancels appointments of other days too
			s.Cancelled()
		}
	case "error":
		r.log.Warn("the hub refused", "error", c.Error, "message", c.Message)
	case "knock", "gone", "back", "left":
		r.hint(s, c)
	}
}

func (r *room) hint(s *session.Session, c provisioning.Control) {
	d, err := parseD(c.D)
	if err != nil {
		r.log.Warn("the hub sent a damaged message", "type", c.T)
		return
	}
	switch c.T {
	case "knock":
		role, ok := remoteRole(c.Participant)
		if !ok {
			r.log.Warn("the hub sent a damaged message", "type", c.T)
			return
		}
		s.Knock(d, c.Participant.ID, c.Participant.Name, role)
	case "gone":
		s.Gone(d)
	case "back":
		s.Back(d)
	case "left":
		s.Left(d)
	}
}

func remoteRole(p *provisioning.Participant) (agreement.Role, bool) {
	if p == nil {
		return 0, false
	}
	for _, r := range []agreement.Role{agreement.RoleTherapist, agreement.RolePatient, agreement.RoleGuest} {
		if p.Role == r.String() {
			return r, true
		}
	}
	return 0, false
}

func parseD(s string) (agreement.D, error) {
	var d agreement.D
	raw, err := hex.DecodeString(s)
	if err != nil || len(raw) != len(d) {
		return d, errors.New("not a document hash")
	}
	copy(d[:], raw)
	return d, nil
}

func parseSID(s string) ([16]byte, error) {
	var sid document.Bytes
	if err := sid.UnmarshalText([]byte(s)); err != nil || len(sid) != 16 {
		return [16]byte{}, errors.New("the hub sent a session id that is not 16 bytes")
	}
	return [16]byte(sid), nil
}

// relay gives a session the room's connection to the hub.
type relay struct{ r *provisioning.Relay }

func (r relay) Open(ctx context.Context, sid [16]byte, d string) error {
	text, err := document.Bytes(sid[:]).MarshalText()
	if err != nil {
		return err
	}
	return r.r.Send(ctx, provisioning.Control{T: "open", SID: string(text), D: d})
}

func (r relay) Admit(ctx context.Context, d string) error {
	return r.r.Send(ctx, provisioning.Control{T: "admit", D: d})
}

func (r relay) Refuse(ctx context.Context, d, reason string) error {
	return r.r.Send(ctx, provisioning.Control{T: "refuse", D: d, Reason: reason})
}

func (r relay) Remove(ctx context.Context, d, reason string) error {
	return r.r.Send(ctx, provisioning.Control{T: "remove", D: d, Reason: reason})
}

func (r relay) Token(ctx context.Context) error {
	return r.r.Send(ctx, provisioning.Control{T: "token"})
}

func (r relay) Close(ctx context.Context, reason string) error {
	return r.r.Send(context.WithoutCancel(ctx), provisioning.Control{T: "close", Reason: reason})
}

func (r relay) Message(ctx context.Context, raw []byte) error { return r.r.SendMessage(ctx, raw) }
