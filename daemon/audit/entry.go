package audit

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"time"
)

// Action is what happened. The table below is the whole list: an action that is
// not in it cannot be logged, and so cannot be done.
type Action string

// The actions of a room.
const (
	// Opening: refused when their entry cannot be written.
	SessionStart Action = "session.start"
	Admit        Action = "session.admit"
	EnrolApply   Action = "enrol.apply"
	DocApply     Action = "document.apply"
	// Running: may use the reserved space, refused when even that fails.
	Unmute   Action = "capture.unmute"
	Continue Action = "session.continue"
	// Closing: always happen.
	Mute         Action = "capture.mute"
	Pause        Action = "capture.pause"
	SessionLeave Action = "session.leave"
	SessionEnd   Action = "session.end"
	Refuse       Action = "session.refuse"
	Remove       Action = "session.remove"
	RoundFailed  Action = "agreement.failed"
	Alarm        Action = "alarm"
	Recovered    Action = "audit.recovered"
)

// Class is what becomes of an action whose entry cannot be written.
type Class int

// The classes of promise 6.
const (
	Opening Class = iota + 1 // opens something; refused
	Running                  // within what is open already; may use the reserved space
	Closing                  // closes something; always happens
)

// classes is the table.
func classes() map[Action]Class {
	return map[Action]Class{
		SessionStart: Opening, Admit: Opening, EnrolApply: Opening, DocApply: Opening,
		Unmute: Running, Continue: Running,
		Mute: Closing, Pause: Closing, SessionLeave: Closing, SessionEnd: Closing,
		Refuse: Closing, Remove: Closing, RoundFailed: Closing, Alarm: Closing, Recovered: Closing,
	}
}

// Class is the action's class; 0 for an action that is not in the table.
func (a Action) Class() Class { return classes()[a] }

// Outcome is how an action went.
type Outcome string

// The outcomes.
const (
	OK      Outcome = "ok"
	Refused Outcome = "refused"
	Failed  Outcome = "failed"
)

// Entry is one line of the log. It has no place for a name, and its values have
// no room for one: pseudonyms and object ids are single words.
type Entry struct {
	Time    time.Time `json:"time"`   // set by the log
	Actor   string    `json:"actor"`  // pseudonym, or "device"
	Role    string    `json:"role"`   // therapist, patient, guest, frontdesk, it, auditor, device
	Action  Action    `json:"action"` //
	Object  string    `json:"object"` // id of what was acted on; may be empty
	Outcome Outcome   `json:"outcome"`
}

// ErrEntry: the entry does not have the form of an entry.
var ErrEntry = errors.New("not an audit entry")

var word = regexp.MustCompile(`^[A-Za-z0-9._:/-]{1,96}$`)

func (e *Entry) validate() error {
	switch {
	case !word.MatchString(e.Actor):
		return fmt.Errorf("%w: actor is one word", ErrEntry)
	case !slices.Contains([]string{"therapist", "patient", "guest", "frontdesk", "it", "auditor", "device"}, e.Role):
		return fmt.Errorf("%w: unknown role", ErrEntry)
	case e.Action.Class() == 0:
		return fmt.Errorf("%w: unknown action %.40q", ErrEntry, e.Action)
	case e.Object != "" && !word.MatchString(e.Object):
		return fmt.Errorf("%w: object is one word", ErrEntry)
	case !slices.Contains([]Outcome{OK, Refused, Failed}, e.Outcome):
		return fmt.Errorf("%w: unknown outcome", ErrEntry)
	}
	return nil
}

// line is the record: the JSON of the entry, whose bytes are the leaf, and "\n".
func (e *Entry) line() ([]byte, error) {
	b, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("audit entry: %w", err)
	}
	return append(b, '\n'), nil
}
