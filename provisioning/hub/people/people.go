// Package people says who may do what at the hub: one table of roles and operations, deny by default.
//
// Its parties are the hub's handlers, which ask Allowed before they act. The hub's word decides about the hub's
// services alone (a place in the lobby, a LiveKit token); it opens no media, because keys are agreed between the
// endpoints. Identity is what the front desk wrote when it made the session: a role and a name that other people
// may see. Sign-in by passkey or OIDC is decided by the endpoints (daemon/e2ee/agreement), not here.
package people

import (
	"errors"
	"fmt"
	"unicode"
	"unicode/utf8"
)

// Role is one of the roles of the product. The zero value is nobody and may do nothing.
type Role string

// The roles. Therapist, Patient and Guest take part in sessions through a browser.
const (
	Therapist Role = "therapist"
	Patient   Role = "patient"
	Guest     Role = "guest"
	FrontDesk Role = "frontdesk"
	IT        Role = "it"
	Auditor   Role = "auditor"
	Device    Role = "device"
)

// Roles lists every role once.
func Roles() []Role {
	return []Role{Therapist, Patient, Guest, FrontDesk, IT, Auditor, Device}
}

// Operation is something that the hub does for somebody.
type Operation string

// The operations that exist.
const (
	MakeSession   Operation = "session.make"   // add, list, cancel, invite
	JoinSession   Operation = "session.join"   // use an invitation, knock, ask for a token once admitted
	OpenSession   Operation = "session.open"   // open, admit, refuse, remove, close
	ReadDocuments Operation = "documents.read" // roster, people, config, owner roots
)

// Operations lists every operation once.
func Operations() []Operation {
	return []Operation{MakeSession, JoinSession, OpenSession, ReadDocuments}
}

// Allowed reports whether a role may do an operation. What is not listed is refused.
func Allowed(r Role, op Operation) bool {
	switch op {
	case MakeSession:
		return r == FrontDesk || r == IT
	case JoinSession:
		return r == Therapist || r == Patient || r == Guest
	case OpenSession:
		return r == Device
	case ReadDocuments:
		return r == Device || r == IT
	}
	return false
}

// MaxName is the longest display name in bytes of UTF-8: the key agreement's document has room for no more.
const MaxName = 64

// ErrName is returned for a name that cannot be shown as it is.
var ErrName = errors.New("name cannot be used")

// CheckName refuses names that are empty, too long, or hold characters that a screen may show as something else:
// controls, and the marks that reverse the direction of text.
func CheckName(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("%w: it is empty", ErrName)
	case len(name) > MaxName:
		return fmt.Errorf("%w: it is longer than %d bytes", ErrName, MaxName)
	case !utf8.ValidString(name):
		return fmt.Errorf("%w: it is not UTF-8", ErrName)
	}
	for _, r := range name {
		if !unicode.IsPrint(r) { // IsPrint is false for controls, bidirectional marks and all spaces but U+0020
			return fmt.Errorf("%w: it holds the character %U", ErrName, r)
		}
	}
	return nil
}
