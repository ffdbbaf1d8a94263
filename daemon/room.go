package daemon

import (
	"context"
	"encoding/hex"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/alcove-room/alcove/daemon/audit"
	"github.com/alcove-room/alcove/daemon/e2ee/agreement"
	"github.com/alcove-room/alcove/daemon/keystore"
	"github.com/alcove-room/alcove/daemon/session"
	"github.com/alcove-room/alcove/mediacap"
	"github.com/alcove-room/alcove/provisioning"
	"github.com/alcove-room/alcove/provisioning/document"
)

// A session is opened this long before its start and may begin until this long after its end.
const (
	openBefore = 15 * time.Minute
	openAfter  = 30 * time.Minute
)

// maxOver bounds how many ended sessions are remembered; beyond it nothing opens until the oldest have run out.
const maxOver = 1024

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

	running sync.WaitGroup // sessions

	mu       sync.Mutex // guards all below
	closing  bool       // the daemon ends: nothing opens any more
	hubUp    bool
	heard    bool // the hub has opened the session on this connection: what it says of people is of this session
	sessions []provisioning.SessionEntry
	open     *session.Session
	entry    provisioning.SessionEntry // of open
	over     map[string]time.Time      // sessions that have ended here, and when they can be forgotten
	last     session.Outcome           // of the session before

	complained time.Time // about the hub, for the last time
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

// due brings what is open in line with the time and with the clinic's documents: a box that the roster does not list
// any more ends its session, and the session whose time it is is opened.
func (r *room) due(now time.Time) {
	docs := r.store.Current(now)
	r.mu.Lock()
	defer r.mu.Unlock()
	for sid, until := range r.over {
		if now.After(until) {
			delete(r.over, sid)
		}
	}
	if r.closing {
		return
	}
	next, found := chooseSession(r.sessions, r.over, now)
	switch {
	case r.open != nil && docs.Device == nil:
		r.log.Warn("the roster does not list this box any more, or has expired")
		go r.open.Revoked()
	case r.open != nil:
		// Nobody came to the one before: it must not keep the next from its time.
		if found && next.SID != r.entry.SID && now.After(r.entry.Ends) {
			go r.open.Yield()
		}
	case !found || docs.Device == nil || docs.Config == nil || len(r.over) >= maxOver:
	default:
		if err := r.beginLocked(next, docs); err != nil {
			r.log.Error("open session", "err", err)
			r.over[next.SID] = next.Ends.Add(openAfter)
		}
	}
}

// chooseSession picks the session to have open at now. Of several, one whose time is now comes before one that is
// early or late, and of those the one that began last.
func chooseSession(all []provisioning.SessionEntry, over map[string]time.Time, now time.Time) (provisioning.SessionEntry, bool) {
	var best provisioning.SessionEntry
	found, rank := false, 0
	for _, e := range all {
		if _, done := over[e.SID]; done || now.Before(e.Starts.Add(-openBefore)) || now.After(e.Ends.Add(openAfter)) {
			continue
		}
		k := 0 // over its time
		switch {
		case now.Before(e.Starts):
			k = 1
		case now.Before(e.Ends):
			k = 2
		}
		if !found || k > rank || k == rank && (k == 1 && e.Starts.Before(best.Starts) || k != 1 && e.Starts.After(best.Starts)) {
			best, found, rank = e, true, k
		}
	}
	return best, found
}

// wait ends with the last session, or after the given time; nothing opens any more.
func (r *room) wait(most time.Duration) {
	r.mu.Lock()
	r.closing = true
	r.mu.Unlock()
	done := make(chan struct{})
	go func() { r.running.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(most):
		r.log.Error("a session does not end")
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
	codec := videoCodec(video.Codecs)
	conf := session.Config{
		SID: sid, Clinic: docs.Trust.Clinic(), Label: documentName(docs.Device.Label),
		Prove: prove, Verify: agreement.Proofs{}.Verify, MinLevel: minLevels(docs.Config.Policy),
		VideoMime: codec.MimeType(), Width: video.Width, Height: video.Height,
		VideoBPS: video.MaxBitrate, AudioBPS: docs.Config.Audio.Bitrate,
		Relay: relay{r.relay}, Ledger: r.ledger, Sink: r.sink, Log: r.log, Metrics: r.metrics, Clock: r.clock,
		Capture: r.pipeline.want, KeyFrame: r.pipeline.keyFrame, Rate: r.pipeline.setRate,
	}
	s, err := session.New(conf)
	if err != nil {
		return err
	}
	r.open, r.entry, r.heard = s, e, false
	r.pipeline.open(s, captureSettings{codec: codec, width: video.Width, height: video.Height, fps: video.FPS,
		videoBPS: video.MaxBitrate, audioBPS: conf.AudioBPS})
	r.running.Add(1)
	go r.follow(s, e)
	if r.hubUp {
		s.Connected()
	}
	return nil
}

// follow waits for a session's end. One that failed may be opened again, with new keys and nobody admitted.
func (r *room) follow(s *session.Session, e provisioning.SessionEntry) {
	defer r.running.Done()
	outcome := s.Run(r.ctx)
	r.pipeline.close(s)
	r.log.Info("session over", "failed", outcome.Failed, "reason", outcome.Reason)
	r.mu.Lock()
	r.open, r.entry, r.heard, r.last = nil, provisioning.SessionEntry{}, false, outcome
	if !outcome.Failed || outcome.Reason == agreement.ReasonGuesses.String() {
		r.over[e.SID] = e.Ends.Add(openAfter)
	}
	r.mu.Unlock()
	if r.ctx.Err() == nil {
		time.AfterFunc(time.Second, func() { r.due(time.Now()) })
	}
}

// maxDocumentName is how many bytes an endpoint document has for a name (daemon/e2ee/agreement).
const maxDocumentName = 64

// documentName is a room's label in the form that documents take: a roster counts characters, a document bytes.
func documentName(label string) string {
	label = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, label)
	for i, r := range label {
		if i+utf8.RuneLen(r) > maxDocumentName {
			return label[:i]
		}
	}
	return label
}

// minLevels is the clinic's least confirmation per role.
func minLevels(p document.Policy) map[agreement.Role]uint8 {
	out := map[agreement.Role]uint8{agreement.RoleDevice: agreement.LevelClinic}
	for _, r := range []agreement.Role{agreement.RoleTherapist, agreement.RolePatient, agreement.RoleGuest} {
		out[r] = uint8(p.Assurance(r.String()))
	}
	return out
}

// videoCodec is the first of the clinic's list: the capture process has an encoder for each on every machine.
func videoCodec(codecs []string) mediacap.Codec {
	if len(codecs) > 0 && codecs[0] == mediacap.H264.String() {
		return mediacap.H264
	}
	return mediacap.VP8
}

// discard takes decrypted frames while no screen is connected.
type discard struct{}

func (discard) Frame(string, string, []byte, uint32) {}

// What the hub says. Calls come from the relay's goroutine.

// Connected is called when the relay stands.
func (r *room) Connected() {
	r.mu.Lock()
	r.hubUp, r.heard = true, false
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
	r.hubUp, r.heard = false, false
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
	s, sid := r.open, r.entry.SID
	if s != nil && c.T == "opened" && c.SID == sid {
		r.heard = true
	}
	heard := r.heard
	r.mu.Unlock()
	ticket := session.Ticket{URL: c.URL, Token: c.Token, Identity: c.Identity}
	switch {
	case c.T == "error":
		r.complain("the hub refused", "error", errorCode(c.Error))
	case s == nil:
	case c.T == "cancelled":
		if c.SID == sid { // the desk cancels appointments of other days too
			s.Cancelled()
		}
	case !heard: // of the session before, or of nothing
	case c.T == "opened":
		s.Opened(ticket)
	case c.T == "token":
		s.Ticket(ticket)
	case c.T == "resync":
		s.Resync()
	case c.T == "knock" || c.T == "gone" || c.T == "back" || c.T == "left":
		r.hint(s, c)
	}
}

// complain logs what the hub did, at most once a second: it must not be able to fill the log.
func (r *room) complain(msg string, attr ...any) {
	r.mu.Lock()
	now := time.Now()
	quiet := now.Sub(r.complained) < time.Second
	if !quiet {
		r.complained = now
	}
	r.mu.Unlock()
	if !quiet {
		r.log.Warn(msg, attr...)
	}
}

// errorCode is one of PROTOCOL.md's codes, or "other": the hub's own words do not go into the log.
func errorCode(code string) string {
	known := []string{"bad_message", "not_admitted", "not_open", "d_taken", "unknown_knock", "unknown_session", "early", "media_unavailable", "failed"}
	if slices.Contains(known, code) {
		return code
	}
	return "other"
}

func (r *room) hint(s *session.Session, c provisioning.Control) {
	d, err := parseD(c.D)
	if err != nil {
		r.complain("the hub sent a damaged message", "type", c.T)
		return
	}
	switch c.T {
	case "knock":
		role, ok := remoteRole(c.Participant)
		if !ok {
			r.complain("the hub sent a damaged message", "type", c.T)
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
	return r.r.Send(ctx, provisioning.Control{T: "close", Reason: reason})
}

func (r relay) Message(ctx context.Context, raw []byte) error { return r.r.SendMessage(ctx, raw) }
