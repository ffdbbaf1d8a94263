package sessions

import (
	"errors"
	"fmt"
	"time"

	"github.com/alcove-room/alcove/provisioning/document"
)

// MaxMessage is the largest message of the relay in bytes, text or binary.
const MaxMessage = 64 << 10

// Subprotocol is the WebSocket subprotocol of both relays.
const Subprotocol = "alcove.relay.v1"

// control is every text message that a page or a room may send; fields says which members belong to which type.
type control struct {
	T      string `json:"t"`
	Bearer string `json:"bearer"`
	SID    string `json:"sid"`
	D      string `json:"d"`
	Reason string `json:"reason"`
	N      uint64 `json:"n"`
}

type fields struct{ bearer, sid, d, reason, n bool }

func pageFields() map[string]fields {
	return map[string]fields{
		"hello": {bearer: true}, "knock": {d: true}, "token": {}, "leave": {}, "ping": {n: true},
	}
}

func roomFields() map[string]fields {
	return map[string]fields{
		"open": {sid: true, d: true}, "admit": {d: true}, "refuse": {d: true, reason: true},
		"remove": {d: true, reason: true}, "token": {}, "close": {reason: true}, "ping": {n: true},
	}
}

// maxReason bounds what a room may have us repeat to others.
const maxReason = 64

var errMessage = errors.New("message refused")

// parseControl reads one text message. allowed is pageFields() or roomFields().
func parseControl(raw []byte, allowed map[string]fields) (control, error) {
	var c control
	if err := document.Decode(raw, &c); err != nil {
		return control{}, fmt.Errorf("%w: %w", errMessage, err)
	}
	f, ok := allowed[c.T]
	if !ok {
		return control{}, fmt.Errorf("%w: unknown type", errMessage)
	}
	if c.Bearer != "" && !f.bearer || c.SID != "" && !f.sid || c.D != "" && !f.d || c.Reason != "" && !f.reason || c.N != 0 && !f.n {
		return control{}, fmt.Errorf("%w: a member does not belong to %q", errMessage, c.T)
	}
	if len(c.Reason) > maxReason || !printable(c.Reason) {
		return control{}, fmt.Errorf("%w: reason is no short code", errMessage)
	}
	return c, nil
}

func printable(s string) bool {
	for i := range len(s) {
		if s[i] < 0x20 || s[i] > 0x7e {
			return false
		}
	}
	return true
}

// What the hub sends. Every type is a struct of its own: readers refuse members that do not belong.
type (
	person struct {
		ID   string `json:"id"`
		Role string `json:"role"`
		Name string `json:"name"`
	}
	roomLabel struct {
		Label string `json:"label"`
	}
	bareMessage struct {
		T string `json:"t"`
	}
	welcomeMessage struct {
		T           string    `json:"t"`
		SID         string    `json:"sid"`
		Clinic      string    `json:"clinic"`
		Participant person    `json:"participant"`
		Room        roomLabel `json:"room"`
		State       string    `json:"state"`
	}
	tokenMessage struct {
		T        string `json:"t"`
		SID      string `json:"sid,omitempty"` // of opened alone
		URL      string `json:"url"`
		Token    string `json:"token"`
		Identity string `json:"identity"`
	}
	reasonMessage struct {
		T      string `json:"t"`
		Reason string `json:"reason"`
	}
	errorMessage struct {
		T       string `json:"t"`
		Error   string `json:"error"`
		Message string `json:"message"`
	}
	pongMessage struct {
		T string `json:"t"`
		N uint64 `json:"n"`
	}
	knockMessage struct {
		T           string `json:"t"`
		D           string `json:"d"`
		Participant person `json:"participant"`
	}
	placeMessage struct {
		T string `json:"t"`
		D string `json:"d"`
	}
	cancelledMessage struct {
		T   string `json:"t"`
		SID string `json:"sid"`
	}
	sessionEntry struct {
		SID          string    `json:"sid"`
		Starts       time.Time `json:"starts"`
		Ends         time.Time `json:"ends"`
		Participants []person  `json:"participants"`
	}
	sessionsMessage struct {
		T        string         `json:"t"`
		Sessions []sessionEntry `json:"sessions"`
	}
)

func personOf(p Participant) person { return person{ID: p.ID, Role: string(p.Role), Name: p.Name} }

func entryOf(s Session) sessionEntry {
	e := sessionEntry{SID: s.SID.String(), Starts: s.Starts, Ends: s.Ends, Participants: []person{}}
	for _, p := range s.Participants {
		e.Participants = append(e.Participants, personOf(p))
	}
	return e
}

// wording is the error form of PROTOCOL.md for codes of the relay.
func wording(code string) string {
	switch code {
	case "bad_message":
		return "The message is not one of this protocol. Load the page again."
	case "not_open":
		return "No session is open. Open one first."
	case "not_admitted":
		return "You have not been admitted. Wait until the room lets you in."
	case "d_taken":
		return "Another member of the session uses this document. Make a new one."
	case "unknown_knock":
		return "Nobody knocks with this document. Wait for the next knock."
	case "unknown_session":
		return "This room has no such session, or it has ended. Wait for the next list of sessions."
	case "early":
		return "The session's window has not begun. Try again when it begins."
	case "media_unavailable":
		return "The media server does not answer. Ask again in a moment; call IT when this stays."
	case "failed":
		return "The hub could not store the change. Try again; call IT when this stays."
	}
	return "The hub could not do this. Try again; call IT when this stays."
}
